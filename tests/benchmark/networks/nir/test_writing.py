"""NIR files out: what is written comes back to the bit, and what NIR cannot say is refused by name."""

import json
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from spikingjelly.activation_based import layer, neuron
from torch import nn

from benchmark.cli import main
from benchmark.networks.nir.reading import NIRError, nir_network, stated_reset
from benchmark.networks.nir.writing import to_nir, write_nir
from tests.benchmark.networks.nir.nir_graphs import CELLS, CHAINS, CLASSES, SHAPE, events, graph_of, run, spiking
from tests.conftest import REAL_DATA

HEADS = {
    "if": lambda: neuron.IFNode(0.7),
    "if, soft": lambda: neuron.IFNode(0.7, None),
    "lif": lambda: neuron.LIFNode(3.0, v_threshold=0.3),
    "lif, soft, charged": lambda: neuron.LIFNode(3.0, decay_input=False, v_threshold=0.3, v_reset=None),
    "lif, reset below zero": lambda: neuron.LIFNode(3.0, v_threshold=0.3, v_reset=-0.5),
    "plif": lambda: neuron.ParametricLIFNode(2.5, v_threshold=0.3),
    "cuba": lambda: neuron.CUBALIFNode(0.5, 0.75, 0.6),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("timestep", [None, 1e-3])
def test_neurons_come_back_to_the_bit(tmp_path, head, timestep):
    torch.manual_seed(0)
    network = spiking(layer.Flatten(), layer.Linear(CELLS, CLASSES), HEADS[head]())
    network[1].weight.data.mul_(8)
    write_nir(tmp_path / "out.nir", network, SHAPE, timestep)
    again = nir_network(SHAPE, CLASSES, path=str(tmp_path / "out.nir"))
    x = events(steps=30)
    spikes = run(network, x)
    assert 0 < spikes.mean() < 1
    assert torch.equal(run(again, x), spikes)


@pytest.mark.parametrize("name", CHAINS)
def test_layers_come_back_to_the_bit(load, tmp_path, name):
    network = load(graph_of(*CHAINS[name]))
    write_nir(tmp_path / "out.nir", network, SHAPE)
    again = nir_network(SHAPE, CLASSES, path=str(tmp_path / "out.nir"))
    assert torch.equal(run(again, events()), run(network, events()))


class Residual(nn.Module):
    """Convolution, BatchNorm and neuron, added to their input."""

    def __init__(self):
        super().__init__()
        self.body = spiking(
            layer.Conv2d(2, 2, 3, padding=1, bias=False), layer.BatchNorm2d(2), layer.Dropout(0.5), neuron.IFNode(0.5)
        )
        self.head = spiking(layer.Flatten(), layer.Linear(CELLS, CLASSES), neuron.LIFNode(v_threshold=0.1))

    def forward(self, x):
        return self.head(self.body(x) + x)


def test_residual_network_with_batchnorm_comes_back(tmp_path):
    torch.manual_seed(0)
    network = Residual().eval()
    norm = network.body[1]
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.data.normal_()
    norm.running_var.uniform_(0.5, 2)
    graph = to_nir(network, SHAPE)
    assert ("body_3", "head_0") in graph.edges
    assert ("input", "head_0") in graph.edges
    write_nir(tmp_path / "out.nir", network, SHAPE)
    again = nir_network(SHAPE, CLASSES, path=str(tmp_path / "out.nir"))
    spikes = run(network, events(steps=30))
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(run(again, events(steps=30)), spikes)


MEANS = {
    "method": lambda x: x.mean(0),
    "by name": lambda x: x.mean(dim=0),
    "kept": lambda x: x.mean(0, keepdim=True),
    "axes": lambda x: x.mean((0,)),
    "function": lambda x: torch.mean(x, 0),
}


class Ending(nn.Module):
    """A network with something behind it."""

    def __init__(self, end):
        super().__init__()
        self.body = spiking(layer.Flatten(), layer.Linear(CELLS, CLASSES), neuron.LIFNode(3.0, v_threshold=0.3))
        self.end = end

    def forward(self, x):
        return self.end(self.body(x))


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_over_time_at_the_end_is_left_to_the_reader(tmp_path, name):
    torch.manual_seed(0)
    network = Ending(MEANS[name])
    write_nir(tmp_path / "out.nir", network, SHAPE)
    again = nir_network(SHAPE, CLASSES, path=str(tmp_path / "out.nir"))
    spikes = run(again, events(steps=5))
    assert len(spikes) == 5
    assert torch.equal(spikes.mean(0), run(network, events(steps=5)).reshape(spikes.shape[1:]))


@pytest.mark.parametrize(
    "end",
    [
        lambda x: x.sum(0),
        lambda x: x.mean(1),
        lambda x: x.mean(),
        lambda x: x.mean(0, dtype=torch.float64),
        lambda x: x.mean(0, keepdim=True) + x,
    ],
    ids=["sum", "batch", "all", "type", "used on"],
)
def test_no_other_reduction_is(tmp_path, end):
    with pytest.raises(NIRError, match="over time nothing but a mean is taken, as the last operation"):
        write_nir(tmp_path / "out.nir", Ending(end), SHAPE)
    assert not [*tmp_path.iterdir()]


def test_what_is_written_passes_nirs_own_checks(tmp_path):
    network = spiking(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(), layer.Flatten(), layer.Linear(144, CLASSES))
    write_nir(tmp_path / "out.nir", network, SHAPE)
    assert set(nir.read(tmp_path / "out.nir").nodes) == {"input", "0", "1", "2", "3", "output"}


def test_a_layer_without_bias_is_written_as_one_that_every_simulator_reads(tmp_path):
    network = spiking(layer.Flatten(), layer.Linear(CELLS, CLASSES, bias=False))
    write_nir(tmp_path / "out.nir", network, SHAPE)
    node = nir.read(tmp_path / "out.nir").nodes["1"]
    assert isinstance(node, nir.Affine)
    assert node.bias.shape == (CLASSES,)
    assert not node.bias.any()
    assert nir_network(SHAPE, CLASSES, path=str(tmp_path / "out.nir")).get_submodule("1").bias is None


def test_zeros_survive(tmp_path):
    network = spiking(layer.Flatten(), layer.Linear(CELLS, CLASSES, bias=False))
    network[1].weight.data[:, ::2] = 0
    write_nir(tmp_path / "out.nir", network, SHAPE)
    assert not nir.read(tmp_path / "out.nir").nodes["1"].weight[:, ::2].any()


class Clever(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Doubling(nn.Module):
    def forward(self, x):
        return x + x


NOT_WRITTEN = {
    "max pool": (spiking(layer.MaxPool2d(2)), "layer '0' is a MaxPool2d, which NIR does not have"),
    "control flow": (Clever(), "forward pass is no fixed graph"),
    "sum with itself": (Doubling(), "adds a constant or a value twice"),
    "lonely norm": (spiking(neuron.IFNode(), layer.BatchNorm2d(2)), "the BatchNorm '1' does not follow a layer"),
    "neuron": (spiking(neuron.KLIFNode()), "layer '0' is a KLIFNode, which NIR does not have"),
    "rows": (spiking(layer.Linear(6, 6)), r"layer '0' \(Linear\): its inputs have the shape \(2, 6, 6\)"),
}


@pytest.mark.parametrize("name", NOT_WRITTEN)
def test_what_nir_cannot_say_is_refused_and_nothing_written(tmp_path, name):
    network, message = NOT_WRITTEN[name]
    with pytest.raises(NIRError, match=message):
        write_nir(tmp_path / "out.nir", network, SHAPE)
    assert not list(tmp_path.iterdir())


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compress_and_profile_take_and_give_nir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    shape = (2, 34, 34)
    dense = spiking(layer.Flatten(), layer.Linear(2312, 10, bias=False), neuron.LIFNode(v_threshold=0.2))
    write_nir(tmp_path / "dense.nir", dense, shape)

    def call(*words):
        return CliRunner().invoke(main, words)

    silent = nir.read("dense.nir")
    silent.nodes["2"].metadata = {}
    nir.write("open.nir", silent)
    data = ("--data", "digits_dvs", "--data-option", "timesteps=3")
    words = ("compress", *data, "--method", "magnitude", "--density", "0.25", "--calibration-samples", "10")
    done = call(*words, "--nir", "dense.nir", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert Path(summary["output"]).name == "dense-magnitude-0.25.nir"
    assert json.loads(Path("dense-magnitude-0.25.json").read_text()) == summary
    assert summary["reset"] == "value (as the file's metadata say)"
    assert json.loads(Path("dense-magnitude-0.25.map.json").read_text())["reset"] == summary["reset"]
    weight = nir.read("dense-magnitude-0.25.nir").nodes["1"].weight
    assert np.count_nonzero(weight) == summary["compression"]["layers"][0]["kept"] == 5780

    again = call("profile", *data, "--checkpoint", "open.nir", "--reset", "subtract")
    assert again.exit_code == 0, again.output
    assert "reset of the neurons: subtract (as asked for)" in again.output

    again = call("profile", *data, "--nir", summary["output"], "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["accuracy"] == pytest.approx(summary["compressed"]["accuracy"])

    for wrong, message in (
        ((), "give either --checkpoint"),
        (("--nir", "dense.nir", "--model", "mlp"), "give either --checkpoint"),
        (("--checkpoint", "dense.pt", "--nir-option", "reset=value"), "--reset and --nir-option need --nir"),
        (("--checkpoint", "dense.pt", "--reset", "value"), "--reset and --nir-option need --nir"),
        (("--nir", "dense.nir", "--reset", "value", "--nir-option", "reset=subtract"), "contradict"),
        (("--nir", "open.nir"), "open.nir: node '2' does not say how its neurons are reset"),
        (("--nir", "dense.nir", "--nir-option", "reset=half"), "reset is 'half'"),
        (("--nir", "missing.nir"), "no checkpoint at missing.nir"),
    ):
        refused = call(*words, *wrong)
        assert refused.exit_code == 2
        assert message in refused.output


# A network from elsewhere ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nmnist_cnn():
    """The N-MNIST network of the NIR paper's repository, trained by others."""
    path = REAL_DATA / "nir" / "nmnist_cnn.nir"
    if not path.is_file():
        pytest.skip(f"the trained network is not at {path}")
    return nir_network((2, 34, 34), 10, path=str(path)).eval()


def test_the_nir_papers_network_is_reset_by_subtraction_and_its_copy_does_not_pretend_otherwise(nmnist_cnn, tmp_path):
    assert stated_reset(nmnist_cnn) == "subtract (as no neuron in the file has a v_reset)"
    nir.write(tmp_path / "copy.nir", nir.read(REAL_DATA / "nir" / "nmnist_cnn.nir"))
    with pytest.raises(NIRError, match="copy.nir: node '1' does not say .* --reset subtract .* or --reset value"):
        nir_network((2, 34, 34), 10, path=str(tmp_path / "copy.nir"))
    copy = nir_network((2, 34, 34), 10, path=str(tmp_path / "copy.nir"), reset="subtract")
    x = (torch.rand(30, 2, 2, 34, 34) < 0.05).float()
    assert torch.equal(run(copy, x), run(nmnist_cnn, x))


def test_the_nir_papers_network_comes_back_to_the_bit(nmnist_cnn, tmp_path):
    write_nir(tmp_path / "out.nir", nmnist_cnn, (2, 34, 34))
    again = nir_network((2, 34, 34), 10, path=str(tmp_path / "out.nir"))
    x = (torch.rand(30, 2, 2, 34, 34) < 0.05).float()
    spikes = run(nmnist_cnn, x)
    assert spikes.any()
    assert torch.equal(run(again, x), spikes)
