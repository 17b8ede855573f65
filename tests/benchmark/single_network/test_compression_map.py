"""A compression map is read back: with the network's file it gives the compressed network again, to the bit."""

import base64
import json
import zlib
from dataclasses import replace

import pytest
import torch

from benchmark.catalog import MODELS
from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.nir.writing import write_nir
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import CheckpointError
from benchmark.single_network.compression_map import MapError, load, rebuild, write_map
from compressors import OBC, QPSNN, RTN, Magnitude, RandomPruning, SpatioTemporal
from hardware.storage import noted
from tests.compressors.networks import CLASSES, RandomEvents, T, fit

SHAPE = (2, 6, 6)
METHODS = {
    "pruned": lambda: RandomPruning(0.3),
    "quantised": lambda: RTN(bits=4),
    "quantised for all rows, asymmetric": lambda: RTN(bits=3, per="tensor", symmetric=False),
    "pruned and quantised": lambda: Magnitude(0.5, bits=3),
    "narrowed": lambda: SpatioTemporal(0.5),
    "narrowed and quantised": lambda: QPSNN(0.5, bits=4, quantize_ends=True),
    "N:M": lambda: OBC(pattern="2:4", solver="fast"),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A dense network as a NIR file."""
    path = tmp_path_factory.mktemp("nir") / "dense.nir"
    write_nir(path, dense("mlp"), SHAPE)
    return path


def dense(model: str, graph=None):
    torch.manual_seed(0)
    options = {"mlp": {"hidden": 16}, "conv": {"width": 4, "hidden": 8}, "nir": {"path": str(graph)}}[model]
    network = MODELS[model].load()(SHAPE, CLASSES, **options)
    if model != "nir":  # so that the untrained network fires
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(4)
    return network


@pytest.mark.parametrize("model", ["mlp", "conv", "nir"])
@pytest.mark.parametrize("name", METHODS)
def test_file_and_map_give_the_compressed_network(name, model, graph, tmp_path):
    compressor = METHODS[name]()
    module = fit(compressor, SNNClassifier(dense(model, graph), classes=CLASSES, timesteps=T))
    done = compressor.compression
    write_map(tmp_path / "small.map.json", done)
    checkpoints.save(tmp_path / "small.safetensors", module.network, {"compressed": done.to_dict()})

    read = load(tmp_path / "small.map.json")
    assert [layer.name for layer in read.layers] == [layer.name.removeprefix("network.") for layer in done.layers]
    for layer, original in zip(read.layers, done.layers, strict=True):
        assert torch.equal(layer.mask, original.mask)
        assert layer.coding() == original.coding()
        assert (layer.outputs is None) == (original.outputs is None)
        assert layer.outputs is None or torch.equal(layer.outputs, original.outputs)
        assert (layer.codes is None) == (original.codes is None)
        if layer.codes is not None:
            assert torch.equal(layer.codes, original.codes)
            assert torch.equal(layer.weight(), module.get_parameter(f"{original.name}.weight"))

    kept = checkpoints.load(tmp_path / "small.safetensors")
    state = {key: value.clone() for key, value in kept.state.items()}
    for layer in read.layers:
        if layer.grid is not None:  # these come from the map alone
            state[f"{layer.name}.weight"].fill_(7.0)
    again = dense(model, graph)
    rebuild(again, replace(kept, state=state), read, "small.map.json")
    expected = module.network.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    assert {key for key, _ in noted(again).items()} == {layer.name for layer in read.layers if layer.grid}
    x = RandomEvents().x
    whole = SNNClassifier(again, classes=CLASSES, timesteps=T).eval()
    assert torch.equal(whole(x), module.eval()(x))


@pytest.fixture
def content(tmp_path):
    """The JSON of a map of quantised layers, and a function that reads it after a change."""
    compressor = RTN(bits=4)
    fit(compressor)
    path = tmp_path / "small.map.json"
    write_map(path, compressor.compression)
    return path, json.loads(path.read_text())


def data(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


HUGE = {"dtype": "bits", "shape": [2**40, 2**10], "data": data(bytes(1000))}
FAULTS = {
    "another format": (lambda c: c.update(format="snnbench compression map 9"), "not a compression map: format"),
    "no format": (lambda c: c.pop("format"), "format: Field required"),
    "something unknown": (lambda c: c.update(more=1), "more: Extra inputs"),
    "no layers": (lambda c: c.pop("layers"), "layers: Field required"),
    "a list of layers": (lambda c: c.update(layers=[]), "layers: Input should be"),
    "no mask": (lambda c: c["layers"]["0"].pop("mask"), "layers.0.mask: Field required"),
    "a dtype of objects": (lambda c: c["layers"]["0"]["mask"].update(dtype="object"), "layers.0.mask.dtype"),
    "another dtype": (lambda c: c["layers"]["0"]["mask"].update(dtype="uint8"), "layer '0': mask is uint8"),
    "a negative shape": (lambda c: c["layers"]["0"]["mask"].update(shape=[-1, 2]), "layers.0.mask.shape.0"),
    "another shape": (lambda c: c["layers"]["0"].update(shape=[6, 2, 3, 2]), r"mask is bits of shape \[6, 2, 3, 3\]"),
    "one axis": (lambda c: c["layers"]["0"].update(shape=[108]), "layers.0.shape: List should have at least 2"),
    "no base64": (lambda c: c["layers"]["0"]["mask"].update(data="~~~~"), r"layer '0': an array of .* is damaged"),
    "cut base64": (lambda c: c["layers"]["5"]["codes"].update(data=c["layers"]["5"]["codes"]["data"][:-3]), "damaged"),
    "cut zlib": (lambda c: c["layers"]["5"]["codes"].update(data=c["layers"]["5"]["codes"]["data"][:16]), "are not"),
    "no zlib": (lambda c: c["layers"]["0"]["mask"].update(data="AAAA"), "is damaged"),
    "too many": (lambda c: c["layers"]["0"]["mask"].update(data=data(bytes(10**6))), "are not 14 bytes"),
    "too few": (lambda c: c["layers"]["0"]["mask"].update(data=data(bytes(2))), "are not 14 bytes"),
    "huge": (lambda c: c["layers"]["0"].update(mask=HUGE, shape=[2**40, 2**10]), "declares arrays of .* bytes"),
    "no codes": (lambda c: c["layers"]["0"].pop("codes"), "some of them are missing"),
    "narrower codes": (lambda c: c["layers"]["0"].update(bits=2), "a code is [0-9]+, more than 2 bits hold"),
    "no width": (lambda c: c["layers"]["0"].update(bits=99), "a grid of 99 bits"),
    "a word for a width": (lambda c: c["layers"]["0"].update(bits="4"), "layers.0.bits"),
    "other rows": (lambda c: c["layers"]["0"].update(scale=c["layers"]["5"]["scale"]), "grid's array has shape"),
    "scales of nothing": (
        lambda c: c["layers"]["0"]["scale"].update(data=data(bytes(4 * 6))), "scales or zero points that are none"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_map_is_refused_in_one_line(fault, content):
    path, told = content
    spoil, message = FAULTS[fault]
    spoil(told)
    path.write_text(json.dumps(told))
    with pytest.raises(MapError, match=message) as caught:
        load(path)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"format": ' + b"9" * 9999])
def test_what_is_no_json_is_refused(text, tmp_path):
    path = tmp_path / "small.map.json"
    path.write_bytes(text)
    with pytest.raises(MapError, match="is not a compression map"):
        load(path)
    with pytest.raises(MapError, match="no compression map at"):
        load(tmp_path / "none.json")


def test_data_that_would_fill_the_memory_are_not_expanded(content):
    path, told = content
    told["layers"]["0"]["mask"]["data"] = data(bytes(2**27))  # 128 MiB in some hundred kB
    path.write_text(json.dumps(told))
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(MapError, match="are not 14 bytes"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_the_map_of_another_network_is_refused(content, tmp_path):
    path, _ = content
    compressor = RandomPruning(0.3)
    module = fit(compressor)
    kept = checkpoints.save(tmp_path / "small.safetensors", module.network, {})
    write_map(tmp_path / "own.map.json", compressor.compression)
    own = load(tmp_path / "own.map.json")
    rebuild(module.network, kept, own, path)

    (first, *others) = own.layers
    for layer, message in (
        (replace(first, name="conv9"), "the network has no layer 'conv9'"),
        (replace(first, shape=(1, 2, 3, 3)), r"layer '0' is \[1, 2, 3, 3\], not \[6, 2, 3, 3\]"),
        (replace(first, mask=torch.zeros_like(first.mask)), "layer '0' has weights that the map says are pruned"),
    ):
        with pytest.raises(MapError, match=message):
            rebuild(module.network, kept, replace(own, layers=(layer, *others)), path)


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({"0": {"bits": 4}}, r"grid of 0\.scale: Field required"),
        ([], "grid of : Input should be"),
        ({"9": None}, "grid of 9"),
    ],
)
def test_a_checkpoint_whose_grids_are_none_is_refused(grids, message, tmp_path):
    module = fit(RTN(bits=4))
    kept = checkpoints.save(tmp_path / "small.safetensors", module.network, {})
    assert set(kept.description["grids"]) == {"0", "5", "7"}
    assert kept.description == checkpoints.load(tmp_path / "small.safetensors").description
    with pytest.raises(CheckpointError, match=message):
        checkpoints.restore(module.network, replace(kept, description={"grids": grids}), "small.safetensors")
    unknown = {"grids": {"6": kept.description["grids"]["5"]}}
    with pytest.raises(CheckpointError, match="does not fit the network: grid of 6: the network has no such layer"):
        checkpoints.restore(module.network, replace(kept, description=unknown), "small.safetensors")
