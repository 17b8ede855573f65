"""What `snnbench compress` leaves behind is read again without the project, to the bit."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from benchmark.catalog import MODELS
from benchmark.networks.nir.writing import write_nir
from benchmark.networks.weights import checkpoints
from benchmark.single_network.compression_map import write_map
from compressors.base import Compressor
from compressors.compression import Compression
from compressors.methods.obc import OBC
from compressors.methods.random_pruning import RandomPruning
from compressors.methods.rtn import RTN
from tests.compressors.networks import QUIET, RandomEvents, classifier, make

FOREIGN = """
    import base64, json, sys, zlib
    import numpy as np
    from safetensors.numpy import load_file

    def array(told):
        raw = zlib.decompress(base64.b64decode(told["data"]))
        if told["dtype"] == "bits":
            size = int(np.prod(told["shape"]))
            return np.unpackbits(np.frombuffer(raw, np.uint8))[:size].reshape(told["shape"]).astype(bool)
        return np.frombuffer(raw, np.dtype(told["dtype"]).newbyteorder("<")).reshape(told["shape"])

    state = load_file("small.safetensors")
    layers = json.load(open("small.map.json"))["layers"]
    found = {}
    for name, told in layers.items():
        weight, mask = state[name + ".weight"], array(told["mask"])
        assert weight.shape == tuple(told["shape"]) and not weight[~mask].any(), name
        found[name] = {"kept": int(mask.sum()), "bits": told.get("bits")}
        if "codes" in told:
            codes, scale, zero = (array(told[key]) for key in ("codes", "scale", "zero"))
            rows = codes.reshape(len(codes), -1)
            values = scale * (rows.astype(np.float32) - zero.astype(np.float32))
            assert (values.reshape(weight.shape) * mask == weight).all(), name
            assert codes.max() < 2 ** told["bits"], name
    assert not {name.split(".")[0] for name in sys.modules} & {"benchmark", "compressors", "hardware", "datamodules"}
    print(json.dumps(found))
"""


def elsewhere(program: str, folder: Path) -> str:
    """What a program prints that is run in a folder, by an interpreter that has not imported the project."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compressed(compressor: Compressor):
    module = classifier()
    Trainer(max_epochs=0, callbacks=[compressor], **QUIET).fit(module, datamodule=RandomEvents())
    assert compressor.compression is not None
    return module, compressor.compression


METHODS = {
    "pruned": lambda: RandomPruning(0.3),
    "4 bits": lambda: RTN(bits=4),
    "3 bits for all rows": lambda: RTN(bits=3, per="tensor"),
    "pruned, 4 bits": lambda: OBC(0.5, bits=4),
}


@pytest.mark.parametrize("name", METHODS)
def test_map_and_state_agree_in_a_program_that_knows_neither(name, tmp_path):
    module, compression = compressed(METHODS[name]())
    checkpoints.save(tmp_path / "small.safetensors", module.network, {})
    write_map(tmp_path / "small.map.json", compression)
    found = json.loads(elsewhere(FOREIGN, tmp_path))
    expected = {
        layer.name.removeprefix("network."): {"kept": layer.kept, "bits": layer.grid and layer.grid.bits}
        for layer in compression.layers
    }
    assert found == expected


def test_the_map_of_a_whole_network_is_the_masks_of_all_layers(tmp_path):
    _, compression = compressed(make("identity"))
    write_map(tmp_path / "dense.map.json", compression)
    told = json.loads((tmp_path / "dense.map.json").read_text())
    assert told["format"] == "snnbench compression map 1"
    assert list(told["layers"]) == [layer.name.removeprefix("network.") for layer in compression.layers]
    write_map(tmp_path / "empty.map.json", Compression(()))
    assert json.loads((tmp_path / "empty.map.json").read_text())["layers"] == {}


PLAIN = """
    import sys
    import torch
    from safetensors.torch import load_file
    from spikingjelly.activation_based import functional, layer, neuron
    from torch import nn

    net = nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1, bias=False), layer.BatchNorm2d(6), neuron.LIFNode(tau=2.0), layer.MaxPool2d(2),
        layer.Flatten(), layer.Linear(54, 8, bias=False), neuron.LIFNode(tau=4.0), layer.Linear(8, 3),
    )
    functional.set_step_mode(net, "m")
    net.load_state_dict(load_file("small.safetensors"))
    x, scores = torch.load("asked.pt")
    with torch.no_grad():
        assert torch.equal(net.eval()(x), scores)
    assert not {name.split(".")[0] for name in sys.modules} & {"benchmark", "compressors", "hardware", "datamodules"}
"""


@pytest.mark.slow
def test_plain_layers_take_the_state_and_give_the_same_scores(tmp_path):
    module, _ = compressed(OBC(0.3))
    checkpoints.save(tmp_path / "small.safetensors", module.network, {})
    x = torch.rand(4, 5, 2, 6, 6).round()
    with torch.no_grad():
        torch.save((x, module.eval().network(x)), tmp_path / "asked.pt")
    elsewhere(PLAIN, tmp_path)


FROM_NIR = """
    import sys
    import nir, numpy as np, torch

    graph = nir.read("small.nir")
    x, scores = torch.load("asked.pt")
    following = dict(graph.edges)
    name = following["input"]
    while name != "output":
        node = graph.nodes[name]
        if isinstance(node, nir.Flatten):
            x = x.flatten(2)
        elif isinstance(node, nir.Affine):
            assert not node.bias.any()
            x = torch.nn.functional.linear(x, torch.from_numpy(node.weight))
        elif isinstance(node, nir.LIF):
            tau, threshold, v, spikes = float(node.tau[0]), float(node.v_threshold[0]), torch.zeros(x[0].shape), []
            assert (node.r == 1).all() and (node.v_leak == node.v_reset).all()
            for current in x:
                v = v + (current - v) / tau
                fired = (v >= threshold).float()
                spikes.append(fired)
                v = torch.where(fired > 0, torch.zeros(()), v)
            x = torch.stack(spikes)
        else:
            raise TypeError(name)
        name = following[name]
    assert torch.equal(x, scores) and 0 < scores.mean() < 1
    assert not {name.split(".")[0] for name in sys.modules} & {"benchmark", "compressors", "hardware", "datamodules"}
"""


def test_a_program_of_its_own_reads_the_nir_file_and_gives_the_same_spikes(tmp_path):
    torch.manual_seed(0)
    network = MODELS["mlp"].load()((2, 6, 6), 3, hidden=16).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)
        x = torch.rand(10, 4, 2, 6, 6).round()
        torch.save((x, network(x)), tmp_path / "asked.pt")
    write_nir(tmp_path / "small.nir", network, (2, 6, 6))
    elsewhere(FROM_NIR, tmp_path)


def test_a_layer_under_two_names_is_saved(tmp_path):
    shared = torch.nn.Linear(2, 2)
    network = torch.nn.Sequential(shared, shared)
    checkpoints.save(tmp_path / "twice.safetensors", network, {})
    again = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    checkpoints.restore(again, checkpoints.load(tmp_path / "twice.safetensors"), "twice")
    assert torch.equal(again[1].weight, shared.weight)
