"""Packed networks: as small as the record says, and the same bits for the project and for a reader of its own."""

import importlib.util
import json
import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from safetensors.torch import load_file, safe_open, save_file
from torch import nn

from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints, packed
from compressors.compression import Compression, LayerCompression
from compressors.methods.obc import OBC
from compressors.methods.qpsnn import QPSNN
from compressors.methods.random_pruning import RandomPruning
from compressors.methods.rtn import RTN
from compressors.quantization.grids import fit_grid
from compressors.quantization.rescaw import MidRise
from hardware import HardwareCost
from hardware.memory import Mask, WeightCoding, best_format, format_bits
from tests.compressors.networks import QUIET, RandomEvents, classifier

READER = Path(__file__).parents[4] / "docs" / "read_packed.py"
FORMATS = ("dense", "bitmask", "csr", "csr8", "csr16", "relative", "block4x4", "narrowed", "2:4", "2:8", "4:16")


def reader():
    spec = importlib.util.spec_from_file_location("read_packed", READER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Network(nn.Module):
    """A network of one weight and one bias, ``layer.weight`` and ``layer.bias``, of any shape."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.layer = nn.ParameterDict({"weight": nn.Parameter(weight), "bias": nn.Parameter(torch.arange(2.0))})

    @property
    def weight(self) -> torch.Tensor:
        return self.layer["weight"].detach()


def bits_of(tensor) -> bytes:
    return np.ascontiguousarray(tensor).tobytes()


def without_negative_zeros(weight: torch.Tensor) -> torch.Tensor:
    return torch.where(weight == 0, 0.0, weight)


def quantised(weight: torch.Tensor, mask: torch.Tensor, bits: int, kind: str) -> LayerCompression:
    """A layer on a grid: symmetric, asymmetric, of one scale, or without zero."""
    rows = weight.flatten(1)
    if kind == "midrise":
        grid = MidRise.of(rows.abs().amax(1, keepdim=True).clamp_min(1e-3), bits)
    else:
        per = "tensor" if kind == "tensor" else "channel"
        grid = fit_grid(rows, bits, per=per, symmetric=kind != "asymmetric", search=False)
    codes = grid.codes(rows).view_as(weight)
    return LayerCompression("network.layer", tuple(weight.shape), mask, grid=grid, codes=codes)


SHAPES = st.one_of(
    st.tuples(st.integers(1, 20), st.integers(1, 40)),  # linear
    st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 5)),
    st.tuples(st.integers(1, 8), st.just(1), st.integers(1, 3), st.integers(1, 3)),  # depthwise
    st.tuples(st.integers(1, 8), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
)


@st.composite
def masks(draw, shape):
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["random", "all", "none", "rows and channels", "2:4", "blocks"]))
    mask = generator.random(shape) < draw(st.floats(0, 1))
    if kind in ("all", "none"):
        mask = np.full(shape, kind == "all")
    if kind == "rows and channels":
        sides = [generator.random(size) < 0.5 for size in shape[:2]]
        mask = np.broadcast_to(np.outer(*sides).reshape(*shape[:2], *[1] * (len(shape) - 2)), shape).copy()
    if kind == "2:4":
        matrix = np.zeros((shape[0], math.prod(shape[1:])), bool)
        matrix[:, ::4] = matrix[:, 3::4] = True
        mask = matrix.reshape(shape)
    if kind == "blocks":
        rows, columns = shape[0], math.prod(shape[1:])
        blocks = generator.random((-(-rows // 4), -(-columns // 4))) < 0.4
        mask = np.kron(blocks, np.ones((4, 4), bool)).astype(bool)[:rows, :columns].reshape(shape)
    return torch.from_numpy(mask)


@st.composite
def layers(draw):
    """A network of one layer, and what was done to it."""
    shape = draw(SHAPES)
    mask = draw(masks(shape))
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**32)))) * mask
    kind = draw(st.sampled_from(["float", "channel", "tensor", "asymmetric", "midrise"]))
    if kind == "float":
        return Network(weight), LayerCompression("network.layer", shape, mask)
    done = quantised(weight, mask, draw(st.integers(2, 8)), kind)
    return Network(done.weight()), done


def save(folder: str | Path, network: nn.Module, *done: LayerCompression) -> Path:
    path = Path(folder, "small.safetensors")
    checkpoints.save_packed(path, network, {}, Compression(done))
    return path


@given(layers(), st.data())
@settings(max_examples=200, deadline=None)
def test_every_format_gives_the_bits_back_to_both_readers_at_the_size_of_the_formula(case, data):
    network, done = case
    coding = done.coding() or WeightCoding()
    formula = format_bits(Mask.of((network.weight != 0).numpy()), coding)
    form = data.draw(st.sampled_from(sorted(formula)))
    with TemporaryDirectory() as folder, patch.object(packed, "best_format", lambda sizes: form):
        path = save(folder, network, done)
        weight = without_negative_zeros(network.weight)
        loaded = checkpoints.load(path)
        assert bits_of(loaded.state["layer.weight"]) == bits_of(weight)
        assert loaded.codings == ({} if done.grid is None else {"layer": coding})
        theirs = reader().read(path)
        assert theirs["layer.weight"].dtype == np.float32
        assert bits_of(theirs["layer.weight"]) == bits_of(weight)
        assert bits_of(theirs["layer.bias"]) == bits_of(network.layer["bias"].detach())

        content = packed.pack_state({"weight": network.weight}, {"weight": done})
        (told,) = json.loads(content.contents)["weights"].values()
        assert told["format"] == form
        parts = {name: tensor for name, tensor in load_file(path).items() if name.startswith("layer.weight_")}
        assert told["slots"] * coding.bits + index_bits(told) == formula[form]
        assert content.sizes["weights"] == math.ceil(told["slots"] * coding.bits / 8)
        assert 0 <= 8 * (content.sizes["weights"] + content.sizes["index"]) - formula[form] < 8 * len(parts)
        assert 0 <= 8 * content.sizes["scales"] - coding.side_bits < 8
        assert sum(tensor.nbytes for tensor in parts.values()) == sum(content.sizes.values())


def index_bits(told: dict) -> int:
    """Bits of an index, from the table of docs/packed_file.md."""
    form, slots, (rows, channels, *taps) = told["format"], told["slots"], told["shape"]
    columns = channels * math.prod(taps)
    if form.startswith("csr"):
        width = int(form[3:] or math.ceil(math.log2(columns)))
        return (rows + 1) * math.ceil(math.log2(slots + 1)) + slots * width
    if ":" in form:
        return slots * int(math.log2(int(form.partition(":")[2])))
    return {
        "dense": 0,
        "bitmask": rows * columns,
        "relative": 4 * slots,
        "block4x4": -(-rows // 4) * -(-columns // 4),
        "narrowed": rows + channels,
    }[form]


@given(layers())
@settings(max_examples=50, deadline=None)
def test_the_smallest_format_is_taken(case):
    network, done = case
    formula = format_bits(Mask.of((network.weight != 0).numpy()), done.coding() or WeightCoding())
    content = packed.pack_state({"weight": network.weight}, {"weight": done})
    (told,) = json.loads(content.contents)["weights"].values()
    assert told["format"] == best_format(formula)


def test_numbers_that_are_no_numbers_and_negative_zeros(tmp_path):
    weight = torch.tensor([[math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, -1.5]])
    path = save(tmp_path, Network(weight))
    for read in (checkpoints.load(path).state["layer.weight"], reader().read(path)["layer.weight"]):
        assert bits_of(read) == bits_of(without_negative_zeros(weight))


METHODS = {
    "pruned": lambda: RandomPruning(0.3),
    "4 bits": lambda: RTN(bits=4),
    "3 bits, one scale": lambda: RTN(bits=3, per="tensor"),
    "4 bits, asymmetric": lambda: RTN(bits=4, symmetric=False),
    "pruned, 4 bits": lambda: OBC(0.5, bits=4),
    "narrowed, 4 bits without zero": lambda: QPSNN(0.5, bits=4),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_compressed_network_takes_the_bits_of_its_record_and_counts_the_same_again(name, tmp_path):
    module, compressor = classifier(), METHODS[name]()
    Trainer(max_epochs=0, callbacks=[compressor], **QUIET).fit(module, datamodule=RandomEvents())
    before = cost(module, compressor.compression.codings())
    path = tmp_path / "small.safetensors"
    size = checkpoints.save_packed(path, module.network, {"compressed": {}}, compressor.compression)
    assert size.file == path.stat().st_size

    tensors = 4 * len(before.layers)  # those of a weight: codes, at most two of index, zero points
    indexed = sum(layer.memory_bits[layer.best_format] for layer in before.layers)
    assert 0 <= 8 * (size.weights + size.index) - indexed < 8 * tensors
    assert 0 <= 8 * size.scales - sum(layer.side_bits for layer in before.layers) < 8 * tensors
    plain = [tensor for tensor in module.network.state_dict().values() if tensor.ndim < 2]
    assert size.others == sum(tensor.nbytes for tensor in plain)

    again = classifier(seed=1)
    loaded = checkpoints.load(path)
    checkpoints.restore(again.network, loaded, path)
    after = cost(again, {f"network.{layer}": coding for layer, coding in loaded.codings.items()})
    assert after == before
    x = RandomEvents().x
    with torch.no_grad():
        assert torch.equal(again.eval()(x), module.eval()(x))
    theirs = reader().read(path)
    assert theirs.keys() == loaded.state.keys()
    assert all(bits_of(theirs[key]) == bits_of(tensor) for key, tensor in loaded.state.items())


def cost(module, codings):
    counter = HardwareCost(codings)
    Trainer(callbacks=[counter], **QUIET).test(module, datamodule=RandomEvents(), verbose=False)
    return counter.report


def test_weights_off_the_grid_of_their_codes_are_not_written(tmp_path):
    done = quantised(torch.randn(4, 6), torch.ones(4, 6, dtype=torch.bool), 4, "channel")
    weight = done.weight()
    weight[1, 2] += 1e-3
    with pytest.raises(CheckpointError, match=r"small.safetensors: layer.weight has 1 weights that are not on"):
        save(tmp_path, Network(weight), done)
    assert list(tmp_path.iterdir()) == []


def test_the_reader_for_everybody_needs_numpy_and_json_alone_and_is_short():
    lines = [line for line in READER.read_text().splitlines() if line.strip()]
    assert len(lines) < 60
    imported = {line.split()[1] for line in lines if line.startswith(("import", "from"))}
    assert imported == {"json", "math", "numpy", "pathlib"}


# Files that lie


def sample(form: str, folder: Path) -> Path:
    """A file of one 4-bit weight [6, 24] in a format."""
    mask = torch.zeros(6, 24, dtype=torch.bool)
    mask[::2, ::8] = True
    done = quantised(torch.full((6, 24), 0.7) * mask, mask, 4, "asymmetric")
    with patch.object(packed, "best_format", lambda sizes: form):
        return save(folder, Network(done.weight()), done)


def changed(path: Path, header: dict | None = None, **tensors) -> Path:
    """The same file with other entries in the weight's header, and other tensors; None: without it."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    content = {**load_file(path), **{f"layer.weight_{name}": tensor for name, tensor in tensors.items()}}
    told = json.loads(metadata[packed.KEY])
    told["weights"]["layer.weight"] |= header or {}
    kept = {name: tensor for name, tensor in content.items() if tensor is not None}
    save_file(kept, path, metadata=metadata | {packed.KEY: json.dumps(told)})
    return path


def u8(*entries: int) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.uint8)


LIES = {
    "unknown format": ("csr", {"format": "zip"}, {}, "unknown memory format 'zip'"),
    "no such group": ("csr", {"format": "9:4"}, {}, "unknown memory format '9:4'"),
    "more columns": ("bitmask", {"shape": [6, 25]}, {}, "bitmask: 18 bytes instead of the 19 of 150 entries"),
    "more rows": ("csr", {"shape": [7, 24]}, {}, "the row offsets do not rise from 0 to 9"),
    "more values": ("csr", {"slots": 99}, {}, "packed: 5 bytes instead of the 50 of 99 entries of 4 bits"),
    "less than nothing": ("csr", {"slots": -1}, {}, "weights.layer.weight.slots"),
    "no shape": ("csr", {"shape": [6]}, {}, "weights.layer.weight.shape"),
    "an empty side": ("csr", {"shape": [0, 24]}, {}, "weights.layer.weight.shape.0"),
    "words for numbers": ("csr", {"slots": "9"}, {}, "weights.layer.weight.slots"),
    "a new entry": ("csr", {"run": "me"}, {}, "weights.layer.weight.run"),
    "a width of floats": ("csr", {"num_bits": 32}, {}, "int of 32 bits"),
    "a width of nothing": ("csr", {"num_bits": 9}, {}, "int of 9 bits"),
    "another meaning": ("csr", {"type": "float"}, {}, "float of 4 bits"),
    "a universe of zeros": ("csr", {"shape": [2**40, 24], "slots": 0}, {}, "is too large for a file of"),
    "a missing index": ("csr", {}, {"col_indices": None}, "no tensor layer.weight_col_indices"),
    "an index of floats": ("csr", {}, {"col_indices": torch.zeros(6)}, "no tensor layer.weight_col_indices of"),
    "a column out of range": ("csr", {}, {"col_indices": u8(*[255] * 6)}, "column 31 of 24"),
    "columns twice": ("csr", {}, {"col_indices": u8(*[0] * 6)}, "the columns of a row do not rise"),
    "offsets that fall": ("csr", {}, {"row_offsets": u8(9, 9, 9, 9)}, "the row offsets do not rise from 0 to 9"),
    "a mask of more": ("bitmask", {}, {"bitmask": u8(*[255] * 18)}, "9 values, and places for 144"),
    "runs over the end": ("relative", {}, {"runs": u8(*[255] * 6)}, "the runs end at weight 175 of 144"),
    "a place twice": ("1:4", {"format": "2:4", "slots": 72},
                      {"places": u8(*[0] * 18), "packed": u8(*[0] * 36)}, "a group has a place twice"),
    "fewer groups": ("1:4", {"format": "1:8"}, {}, "places: 9 bytes instead of the 14"),
    "another block": ("block4x4", {}, {"bitmask": u8(0, 0)}, "values, and places for 0"),
    "no rows": ("narrowed", {}, {"row_bitmask": u8(0)}, "values, and places for 0"),
    "scales of other rows": ("csr", {}, {"scale": torch.ones(5, 1)}, r"scales \[5, 1\] for 6 rows"),
    "a scale below zero": ("csr", {}, {"scale": -torch.ones(6, 1)}, "a scale that is not finite and above 0"),
    "no scales": ("csr", {}, {"scale": None}, "no tensor layer.weight_scale of torch.float32"),
    "fewer zero points": ("csr", {}, {"zero_point": u8(1)}, "zero_point: 1 bytes instead of the 3"),
    "dense and short": ("csr", {"format": "dense"}, {}, "9 values, and places for 144"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie_are_refused_by_file_and_weight(lie, tmp_path):
    form, header, tensors, message = LIES[lie]
    path = changed(sample(form, tmp_path), header, **tensors)
    with pytest.raises(CheckpointError, match=message) as refused:
        checkpoints.load(path)
    assert str(path) in str(refused.value)
    assert "layer.weight" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_weight_that_is_there_twice_and_a_truncated_file_are_refused(tmp_path):
    path = sample("csr", tmp_path)
    content = path.read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"small.safetensors is not a checkpoint"):
            checkpoints.load(path)
    path.write_bytes(content)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), "layer.weight": torch.zeros(6, 24)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="packed weight layer.weight: the file also has it plain"):
        checkpoints.load(path)


def test_names_that_would_meet_are_refused():
    state = {"a.weight": torch.ones(3, 3), "a.weight_packed": torch.ones(3)}
    with pytest.raises(packed.PackedError, match=r"a.weight: the network has a tensor a.weight_packed"):
        packed.pack_state(state, {})


@pytest.mark.parametrize("form", FORMATS)
def test_any_bytes_give_a_network_of_the_same_shape_or_the_error(form, tmp_path):
    mask = torch.zeros(6, 24, dtype=torch.bool)
    mask[::2, ::8] = mask[::2, 1::8] = True
    torch.manual_seed(0)
    done = quantised(torch.randn(6, 24) * mask, mask, 4, "asymmetric")
    network = Network(done.weight())
    with patch.object(packed, "best_format", lambda sizes: form):
        path = save(tmp_path, network, done)
    content, draw = path.read_bytes(), random.Random(0)
    messages = []
    for _ in range(300):
        path.write_bytes(mutated(content, draw))
        try:
            checkpoints.restore(network, checkpoints.load(path), path)
        except CheckpointError as error:
            messages.append(str(error))
        assert network.weight.shape == (6, 24)
    assert 0 < len(messages) < 300
    assert all("small.safetensors" in message and "\n" not in message for message in messages)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, left out or put in; the header's length is left alone every other time."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(draw.choice([0, 8]), len(changed))
        match draw.choice(["flip", "set", "set", "cut", "insert"]):
            case "flip":
                changed[place] ^= 1 << draw.randrange(8)
            case "set":
                changed[place] = draw.choice(b'0123456789abc",:[]{}\xff')
            case "cut":
                del changed[place]
            case "insert":
                changed.insert(place, draw.randrange(256))
    return bytes(changed)
