"""Checkpoints as people save them, and as strangers might."""

import argparse
import collections
import datetime
import pathlib
import pickle
import types
import uuid
import zipfile

import lightning
import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.utils.prune
from torch import nn

from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


class Wrapped(nn.Module):
    """A network in a wrapper of somebody's own."""

    def __init__(self, network, name):
        super().__init__()
        self.add_module(name, network)


class Lit(lightning.LightningModule):
    """A LightningModule with something beside the network."""

    def __init__(self):
        super().__init__()
        self.network = small()
        self.head = nn.Linear(2, 2)


def with_optimizer(**beside):
    network = small()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    return {"net": network.state_dict(), "optimizer": optimizer.state_dict(), **beside}


STATE = small().state_dict()
SAVED = {
    "plain": lambda: STATE,
    "ordered": lambda: collections.OrderedDict(STATE),
    "spikingjelly's examples": lambda: with_optimizer(epoch=3, max_test_acc=0.5),
    "model_state_dict": lambda: {"model_state_dict": STATE, "loss": 0.1},
    "state_dict": lambda: {"state_dict": STATE, "best_acc1": torch.tensor(0.3), "arch": "vgg"},
    "deeper": lambda: {"checkpoint": {"model": STATE}, "epoch": 1},
    "scalars of numpy": lambda: with_optimizer(acc=np.float64(0.5), epoch=np.int64(3), yes=np.bool_(True)),
    "arrays of numpy": lambda: {"net": STATE, "curve": np.arange(5.0), "rng": np.random.default_rng(0).random(3)},
    "arguments": lambda: {"model": STATE, "args": argparse.Namespace(lr=np.float32(0.1), out=pathlib.Path("runs"))},
    "random state": lambda: {"net": STATE, "rng": {"cpu": torch.get_rng_state()}, "figures": {"a": torch.tensor(1.0)}},
    "an average deeper": lambda: {"state_dict": STATE, "callbacks": {"EMA": {"average": dict(STATE)}}},
    "an epoch among them": lambda: {**STATE, "epoch": 7},
    "a default dictionary": lambda: collections.defaultdict(list, STATE),
    "with its epoch": lambda: (3, STATE),
    "in a list": lambda: [{"epoch": 3}, {"net": STATE}],
    "things beside": lambda: {
        "net": STATE,
        "started": datetime.datetime.now(datetime.UTC),
        "took": datetime.timedelta(hours=1),
        "options": types.SimpleNamespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
        "history": collections.defaultdict(list, {"loss": [0.1]}),
        "last": collections.deque([1.0, 2.0], maxlen=5),
        "range": range(3),
        "id": uuid.UUID(int=1),
    },
    "compiled": lambda: Wrapped(small(), "_orig_mod").state_dict(),
    "compiled parts": lambda: Wrapped(Wrapped(small(), "_orig_mod"), "net").state_dict(),
    "parallel": lambda: nn.DataParallel(small()).state_dict(),
    "parallel and compiled": lambda: nn.DataParallel(Wrapped(small(), "_orig_mod")).state_dict(),
    "wrapper": lambda: Wrapped(Wrapped(small(), "backbone"), "net").state_dict(),
    "network": lambda: Wrapped(small(), "network").state_dict(),
    "beside a head": lambda: {name: value for name, value in Lit().state_dict().items() if "head" not in name},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", SAVED)
def test_what_people_save_is_loaded(tmp_path, name, zipped):
    expected = {key: value.clone() for key, value in small().state_dict().items()}
    saved = SAVED[name]()
    torch.save(saved, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    network = small(seed=1)
    checkpoints.restore(network, checkpoints.load(tmp_path / "net.pth"), "net.pth")
    if name not in ("spikingjelly's examples", "scalars of numpy"):  # which have been trained
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    else:
        assert all(torch.equal(value, saved["net"][key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("inside", ["network", "net"])
def test_a_network_keeps_a_name_that_all_of_its_own_begin_with(tmp_path, inside):
    saved = Wrapped(Wrapped(small(), inside), inside)
    for state in (saved.state_dict(), Wrapped(saved, inside).state_dict()):
        torch.save(state, tmp_path / "net.pt")
        network = Wrapped(Wrapped(small(1), inside), inside)
        checkpoints.restore(network, checkpoints.load(tmp_path / "net.pt"), "net.pt")
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), saved.parameters(), strict=True))


class Thing:
    """A class of somebody's own."""


class Opener:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return open, ("/dev/null",)


def expanded(path):
    torch.save({"weight": torch.zeros(1).expand(2**30)}, path)


def compressed(path):
    torch.save({"weight": torch.zeros(2**22)}, path)
    with zipfile.ZipFile(path) as stored:
        entries = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def saved(content):
    return lambda path: torch.save(content(), path)


THING = r"it contains an object of class tests\.benchmark\.networks\.weights\.test_pickled\.Thing: save net.state_dict"


def sharing(depth):
    """A pickle's instructions for a pair of equal pairs of equal pairs and so on, each of them written once."""
    shared = ()
    for _ in range(depth):
        shared = (shared, shared)
    return pickle.dumps(shared, 2)[2:-1]


def program(path, zipped, instructions):
    """A file of torch.save that consists of these instructions."""
    content = b"\x80\x02" + instructions + b"."
    if not zipped:
        head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + content + pickle.dumps([], 2))
        return
    torch.save({"weight": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as stored:
        entries = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, content if name.endswith("/data.pkl") else entry)


SET = b"cbuiltins\nset\n"
SWOLLEN = {
    "key": lambda depth: b"}" + sharing(depth) + b"K\x01s",
    "keys": lambda depth: b"}(" + sharing(depth) + b"K\x01u",
    "storage": lambda depth: b"(X\x07\x00\x00\x00storage" + sharing(depth) + b"tQ",
    "set": lambda depth: SET + b"](" + sharing(depth) + b"e\x85R",
    "many sets": lambda depth: b"](" + sharing(min(depth, 20)) + b"e\x85q\xff0" + (SET + b"h\xffR0") * 999 + b"N",
}
"""Where a tuple is hashed."""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", SWOLLEN)
def test_tuples_that_share_their_parts_are_not_hashed_for_ever(tmp_path, place, zipped):
    program(tmp_path / "net.pt", zipped, SWOLLEN[place](100))
    with pytest.raises(CheckpointError, match="net.pt .*over 20,000,000 entries: save net.state_dict.. alone"):
        checkpoints.load(tmp_path / "net.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_tuples_of_any_reasonable_size_may_be_keys(tmp_path, zipped):
    program(tmp_path / "net.pt", zipped, SWOLLEN["key"](10))
    with pytest.raises(CheckpointError, match="holds no state dict"):
        checkpoints.load(tmp_path / "net.pt")


REFUSED = {
    "object": (saved(lambda: {"net": STATE, "config": Thing()}), THING),
    "module": (saved(small), r"of class torch\.nn\.modules\.container\.Sequential: save net.state_dict\(\) instead"),
    "code": (saved(lambda: {"net": STATE, "x": Opener()}), r"an object of class (io|_io)\.open: save"),
    "two": (saved(lambda: {"generator": STATE, "critic": STATE | {}}), "2 state dicts .'generator', 'critic'.: save"),
    "masks": (
        saved(lambda: {"net": STATE, "masks": {"0.weight": torch.ones(2, 1, 3, 3)}}),
        "state dicts .'net', 'masks'.",
    ),
    "none": (saved(lambda: {"epoch": 3, "loss": torch.tensor(1.0)}), "holds no state dict"),
    "protocol 4": (
        lambda path: torch.save(STATE, path, pickle_protocol=4),
        "a pickle of protocol 4: save it again",
    ),
    "number": (saved(lambda: 3), "holds no state dict"),
    "empty": (saved(dict), "holds no state dict"),
    "sparse": (saved(lambda: {"w": torch.eye(3).to_sparse()}), "'w' is no plain tensor of numbers"),
    "complex": (saved(lambda: {"a": torch.zeros(2), "w": torch.zeros(2, dtype=torch.cfloat)}), "'w' is no plain"),
    "meta": (saved(lambda: {"w": torch.zeros(2, device="meta")}), "'w' is no plain tensor of numbers"),
    "expanded": (expanded, "declares 4,294,967,296 bytes of tensors"),
    "compressed": (compressed, "its parts would be .* bytes, more than the file"),
    "text": (lambda path: path.write_text("hello"), "it is damaged, or no file of torch.save"),
    "nothing": (lambda path: path.touch(), "it is damaged, or no file of torch.save"),
    "script": (lambda path: torch.jit.script(nn.Linear(2, 2)).save(path), "it is a program in TorchScript"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_is_refused_in_our_words(tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=f"net.pt .*{message}|net.pt: {message}") as caught:
        checkpoints.load(tmp_path / "net.pt")
    text = str(caught.value)
    assert "\n" not in text
    assert "weights_only" not in text
    assert "arbitrary code" not in text
    assert "trust" not in text


def test_parts_that_cannot_be_joined_do_not_fit(tmp_path):
    state = {"block.0.attn.q_conv.weight": torch.zeros(4, 4), "block.0.attn.k_conv.weight": torch.zeros(4, 3)}
    state["block.0.attn.v_conv.weight"] = torch.zeros(4, 4)
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"attn": nn.ModuleDict()})])})
    network["blocks"][0]["attn"]["qkv_conv_bn"] = nn.Sequential(nn.Linear(4, 12, bias=False))
    with pytest.raises(CheckpointError, match="release does not fit the network"):
        checkpoints.restore(network, checkpoints.Checkpoint(state, {}, ""), "release")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path, dtype):
    torch.save(STATE | {"3.weight": STATE["3.weight"].to(dtype)}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=rf"net.pt does not fit the network: 3.weight is {dtype} instead"):
        checkpoints.restore(small(1), checkpoints.load(tmp_path / "net.pt"), tmp_path / "net.pt")
    safetensors.torch.save_file(STATE | {"3.bias": STATE["3.bias"].to(dtype)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match=f"3.bias is {dtype}"):
        checkpoints.restore(small(1), checkpoints.load(tmp_path / "net.safetensors"), "net.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_are(dtype):
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in STATE.items()}
    checkpoints.restore(small(1), checkpoints.Checkpoint(state, {}, ""), "net")


def pruned():
    network = small()
    nn.utils.prune.l1_unstructured(network[0], "weight", 0.5)
    return network


def parametrised(of):
    network = small()
    of(network[3])
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (
            pruned,
            "0.weight is saved .* torch.nn.utils.prune computes .*: call torch.nn.utils.prune.remove.module, 'w",
        ),
        (
            lambda: parametrised(nn.utils.weight_norm),
            "3.weight is saved .*remove_weight_norm.module",
        ),
        (lambda: parametrised(nn.utils.spectral_norm), "3.weight is saved .*remove_spectral_norm.module, 'weight'"),
        (
            lambda: parametrised(nn.utils.parametrizations.weight_norm),
            "3.weight .*remove_parametrizations.module, 'w",
        ),
        (
            lambda: parametrised(nn.utils.parametrizations.orthogonal),
            "3.weight .*remove_parametrizations.module, 'w",
        ),
        (lambda: Wrapped(pruned(), "module"), "0.weight is saved .*torch.nn.utils.prune.remove"),
    ],
)
def test_weights_in_parts_have_a_remedy(make, remedy):
    with pytest.raises(CheckpointError, match=remedy) as caught:
        checkpoints.restore(small(1), checkpoints.Checkpoint(make().state_dict(), {}, ""), "net.pt")
    assert len(str(caught.value).splitlines()) == 1
