"""NIR files in and out: exact where SpikingJelly can be exact, refused by name where it cannot."""

import json
from itertools import pairwise
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.cli import main
from benchmark.models.nir_export import to_nir, write_nir
from benchmark.models.nir_import import NIRError, nir_network
from tests.conftest import REAL_DATA

RNG = np.random.default_rng(0)
SHAPE, CLASSES, T = (2, 6, 6), 3, 5
CELLS = 2 * 6 * 6


def weights(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32)


def full(value, size=CLASSES):
    return np.full(size, value)


def graph_of(*nodes, edges=None, **metadata):
    """A chain of nodes named 1, 2, ... between input and output, with further edges."""
    named = {"input": nir.Input(np.array(SHAPE))}
    named |= {str(i): node for i, node in enumerate(nodes, 1)} | {"output": nir.Output(np.array([CLASSES]))}
    names = list(named)
    chain = list(pairwise(names))
    return nir.NIRGraph(named, chain + (edges or []), metadata, type_check=False)


def neuron_graph(node, weight=None, **metadata):
    """Flatten, a linear layer, one node of neurons."""
    flatten = nir.Flatten(np.array(SHAPE), 0, -1)
    return graph_of(flatten, nir.Linear(weights(CLASSES, CELLS) if weight is None else weight), node, **metadata)


@pytest.fixture
def load(tmp_path):
    def load(graph, **options):
        path = tmp_path / "graph.nir"
        nir.write(path, graph)
        return nir_network(SHAPE, CLASSES, path=str(path), **options).eval()

    return load


def run(network, x):
    functional.reset_net(network)
    with torch.no_grad():
        return network(x)


def events(seed=0, steps=T, batch=2):
    return (torch.rand(steps, batch, *SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


IF = nir.IF(r=full(1.0), v_threshold=full(1.5), v_reset=full(0.0))
LIF = nir.LIF(tau=full(4.0), r=full(1.0), v_leak=full(0.0), v_threshold=full(0.5), v_reset=full(0.0))
CUBA = nir.CubaLIF(
    tau_syn=full(2.0), tau_mem=full(3.0), r=full(1.7), v_leak=full(0.0), v_threshold=full(0.6), w_in=full(0.9)
)


def simulated(node, currents, step, reset):
    """NIR's equations by forward Euler, neuron by neuron: ``currents [T, N] -> spikes [T, N]``."""
    current = np.zeros(currents.shape[1])
    potential = np.zeros(currents.shape[1]) + node.v_reset
    spikes = []
    for x in currents:
        match node:
            case nir.IF():
                potential = potential + step * node.r * x
            case nir.LIF():
                potential = potential + step / node.tau * (node.v_leak - potential + node.r * x)
            case nir.CubaLIF():
                current = current + step / node.tau_syn * (node.w_in * x - current)
                potential = potential + step / node.tau_mem * (node.v_leak - potential + node.r * current)
        fired = potential >= node.v_threshold
        after = potential - node.v_threshold if reset == "subtract" else node.v_reset
        potential = np.where(fired, after, potential)
        spikes.append(fired)
    return np.array(spikes, dtype=float)


positive = st.floats(0.1, 4.0)


@st.composite
def neurons(draw):
    kind = draw(st.sampled_from(["IF", "LIF", "LIF as charge", "CubaLIF"]))
    threshold, r, tau = draw(positive), draw(positive), 1.1 + draw(positive)
    common = {"v_threshold": full(threshold)}
    if kind == "IF":
        return nir.IF(r=full(r), **common)
    if kind == "LIF":
        return nir.LIF(tau=full(tau), r=full(r), v_leak=full(0.0), **common)
    if kind == "LIF as charge":
        return nir.LIF(tau=full(tau), r=full(tau), v_leak=full(0.0), **common)
    common |= {"w_in": full(draw(positive)), "v_leak": full(0.0)}
    return nir.CubaLIF(tau_syn=full(1.1 + draw(positive)), tau_mem=full(tau), r=full(r), **common)


@settings(max_examples=15, deadline=None)
@given(node=neurons(), reset=st.sampled_from(["value", "subtract"]), seed=st.integers(0, 1000))
def test_neurons_follow_their_equations(tmp_path_factory, node, reset, seed):
    path = tmp_path_factory.mktemp("nir") / "graph.nir"
    weight = np.random.default_rng(seed).normal(0.05, 0.3, (CLASSES, CELLS)).astype(np.float32)
    nir.write(path, neuron_graph(node, weight))
    network = nir_network(SHAPE, CLASSES, path=str(path), reset=reset, timestep=1.0)
    x = events(seed, steps=20, batch=1)
    currents = x.flatten(1).double().numpy() @ weight.T.astype(np.float64)
    expected = simulated(node, currents, 1.0, reset)
    measured = run(network, x)[:, 0].numpy()
    # Potentials within rounding of the threshold may fall on either side, and all that follows with them.
    assert (measured == expected).all(axis=0).sum() >= CLASSES - 1


def test_time_constants_count_in_steps(load):
    weight = weights(CLASSES, CELLS)
    in_steps = load(neuron_graph(LIF, weight))
    seconds = nir.LIF(tau=full(4e-3), r=full(1.0), v_leak=full(0.0), v_threshold=full(0.5), v_reset=full(0.0))
    in_seconds = load(neuron_graph(seconds, weight), timestep=1e-3)
    assert torch.equal(run(in_steps, events()), run(in_seconds, events()))
    told = load(neuron_graph(seconds, weight, timestep=1e-3))
    assert torch.equal(run(in_steps, events()), run(told, events()))


def strip_resets(path: Path) -> None:
    """As files were before neurons had a reset potential."""
    with h5py.File(path, "a") as file:
        for group in file["node/nodes"].values():
            if "v_reset" in group:
                del group["v_reset"]


def test_reset_is_the_options_then_the_metadatas_then_the_files(tmp_path):
    path = tmp_path / "graph.nir"

    def reset_of(**options):
        return nir_network(SHAPE, CLASSES, path=str(path), **options).get_submodule("3").v_reset

    nir.write(path, neuron_graph(IF))
    assert reset_of() == 0.0
    assert reset_of(reset="subtract") is None
    strip_resets(path)
    assert reset_of() is None
    assert reset_of(reset="value") == 0.0
    told = nir.IF(r=full(1.0), v_threshold=full(1.5), metadata={"reset": "subtract"})
    nir.write(path, neuron_graph(told))
    assert reset_of() is None


# The layers -----------------------------------------------------------------------------------------------------------


def convolution(groups=1, **changed):
    settings = {"stride": 1, "padding": 1, "dilation": 1} | changed
    return nir.Conv2d((6, 6), weights(4, 2 // groups, 3, 3), **settings, groups=groups, bias=weights(4))


ENDS = (nir.Flatten(np.array([4, 6, 6]), 0, -1), nir.Affine(weights(CLASSES, 144), weights(CLASSES)))


def as_torch(node):
    """The same layer by torch's own functions, on ``[N, ...]``."""
    f = nn.functional
    tensor = {k: torch.from_numpy(v) for k, v in vars(node).items() if isinstance(v, np.ndarray)}
    match node:
        case nir.Conv2d():
            same = {k: getattr(node, k) for k in ("stride", "padding", "dilation", "groups")}
            return lambda x: f.conv2d(x, tensor["weight"], tensor["bias"], **same)
        case nir.SumPool2d():
            return lambda x: f.avg_pool2d(x, 2, 2) * 4
        case nir.AvgPool2d():
            return lambda x: f.avg_pool2d(x, 3, 1, 1)
        case nir.Scale():
            return lambda x: x * tensor["scale"]
        case nir.Flatten():
            return lambda x: x.flatten(1)
        case nir.Affine() | nir.Linear():
            return lambda x: f.linear(x, tensor["weight"], tensor.get("bias"))


CHAINS = {
    "conv": [convolution(), *ENDS],
    "grouped": [convolution(groups=2), *ENDS],
    "same": [convolution(padding="same"), *ENDS],
    "dilated": [convolution(padding=2, dilation=2), *ENDS],
    "sum pool": [
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Flatten(np.array([2, 3, 3]), 0, -1),
        nir.Linear(weights(CLASSES, 18)),
    ],
    "average pool": [
        nir.AvgPool2d(np.array([3, 3]), np.array([1, 1]), np.array([1, 1])),
        nir.Flatten(np.array(SHAPE), 0, -1),
        nir.Linear(weights(CLASSES, CELLS)),
    ],
    "scale": [nir.Scale(weights(*SHAPE)), nir.Flatten(np.array(SHAPE), 0, -1), nir.Linear(weights(CLASSES, CELLS))],
}


@pytest.mark.parametrize("name", CHAINS)
def test_layers_compute_what_torch_computes(load, name):
    nodes = CHAINS[name]
    measured = run(load(graph_of(*nodes)), events())
    expected = events().flatten(0, 1)
    for node in nodes:
        expected = as_torch(node)(expected)
    torch.testing.assert_close(measured.flatten(0, 1), expected)


def test_meeting_edges_add_up(load):
    flatten, first, second = nir.Flatten(np.array(SHAPE), 0, -1), weights(CLASSES, CELLS), weights(CLASSES, CLASSES)
    graph = graph_of(flatten, nir.Linear(first), nir.Linear(second), edges=[("2", "output")])
    x = events()
    hidden = x.flatten(2) @ first.T
    torch.testing.assert_close(run(load(graph), x), hidden @ second.T + hidden)


# Out and in again -----------------------------------------------------------------------------------------------------


def spiking(*modules):
    net = nn.Sequential(*modules)
    functional.set_step_mode(net, "m")
    return net.eval()


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


def test_what_is_written_passes_nirs_own_checks(tmp_path):
    network = spiking(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(), layer.Flatten(), layer.Linear(144, CLASSES))
    write_nir(tmp_path / "out.nir", network, SHAPE)
    assert set(nir.read(tmp_path / "out.nir").nodes) == {"input", "0", "1", "2", "3", "output"}


def test_zeros_survive(tmp_path):
    network = spiking(layer.Flatten(), layer.Linear(CELLS, CLASSES, bias=False))
    network[1].weight.data[:, ::2] = 0
    write_nir(tmp_path / "out.nir", network, SHAPE)
    assert not nir.read(tmp_path / "out.nir").nodes["1"].weight[:, ::2].any()


# Refused --------------------------------------------------------------------------------------------------------------

MIXED = np.array([1.0, 1.0, 2.0])
REFUSED = {
    "threshold": (
        neuron_graph(nir.IF(r=full(1.0), v_threshold=MIXED)),
        r"node '3' \(IF\): its v_threshold differs between neurons \(1 to 2\)",
    ),
    "time constant": (
        neuron_graph(nir.LIF(full(1e-2), full(1.0), full(0.0), full(1.0))),
        "its tau of 0.01 is no longer than the time step of 1: give timestep",
    ),
    "unknown step": (neuron_graph(nir.IF(r=full(1e4), v_threshold=full(1.0))), "r is 10000.*give timestep.*0.0001"),
    "rest": (
        neuron_graph(nir.LIF(full(3.0), full(1.0), full(0.2), full(1.0))),
        "rest potential v_leak is 0.2, SpikingJelly's neuron would rest at 0",
    ),
    "not finite": (neuron_graph(nir.IF(r=full(np.nan), v_threshold=full(1.0))), "its r is empty or not finite"),
    "unknown node": (
        neuron_graph(nir.Delay(full(1.0))),
        "node '3' is a Delay, which cannot be imported",
    ),
    "cycle": (
        graph_of(*ENDS, nir.Linear(weights(CLASSES, CLASSES)), edges=[("3", "2")]),
        "form a cycle: only feed-forward graphs work",
    ),
    "dead end": (
        graph_of(*ENDS, edges=[]).nodes | {"lost": nir.Linear(weights(1, CELLS))},
        "node 'lost' has no edge to another node",
    ),
    "misfit": (graph_of(nir.Flatten(np.array(SHAPE), 0, -1), nir.Linear(weights(CLASSES, 7))), "do not fit each other"),
    "classes": (
        graph_of(nir.Flatten(np.array(SHAPE), 0, -1), nir.Linear(weights(9, CELLS))),
        r"outputs of shape \(9,\), the data set 3 classes",
    ),
    "same": (
        graph_of(convolution(padding="same", stride=2), *ENDS),
        "padding 'same' works with odd kernels and stride 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_by_name(load, name):
    graph, message = REFUSED[name]
    if isinstance(graph, dict):
        graph = nir.NIRGraph(graph, [("input", "1"), ("1", "2"), ("2", "output"), ("input", "lost")], type_check=False)
    with pytest.raises(NIRError, match=message):
        load(graph)


def test_a_reset_potential_is_not_left_out(load):
    with pytest.raises(NIRError, match="reset potential v_reset=-1, which reset 'subtract' would leave out"):
        load(neuron_graph(nir.IF(full(1.0), full(1.0), full(-1.0))), reset="subtract")


def test_wrong_options_and_files_are_refused(tmp_path, load):
    with pytest.raises(NIRError, match="reset is 'zero': give one of value, subtract"):
        load(neuron_graph(IF), reset="zero")
    with pytest.raises(NIRError, match="timestep is -1: give a number above 0"):
        load(neuron_graph(IF), timestep=-1.0)
    with pytest.raises(NIRError, match=r"inputs of shape \(2, 6, 6\), the data set has \(2, 7, 6\)"):
        nir_network((2, 7, 6), CLASSES, path=str(tmp_path / "graph.nir"))
    (tmp_path / "text.nir").write_text("no graph")
    for path in ("text.nir", "missing.nir"):
        with pytest.raises(NIRError, match=f"{path} is not a readable NIR file"):
            nir_network(SHAPE, CLASSES, path=str(tmp_path / path))


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

    data = ("--data", "digits_dvs", "--data-option", "timesteps=3")
    words = ("compress", *data, "--method", "magnitude", "--density", "0.25", "--calibration-samples", "10")
    done = call(*words, "--nir", "dense.nir", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert Path(summary["output"]).name == "dense-magnitude-0.25.nir"
    assert json.loads(Path("dense-magnitude-0.25.json").read_text()) == summary
    weight = nir.read("dense-magnitude-0.25.nir").nodes["1"].weight
    assert np.count_nonzero(weight) == summary["compression"]["layers"][0]["kept"] == 5780

    again = call("profile", *data, "--nir", summary["output"], "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["accuracy"] == pytest.approx(summary["compressed"]["accuracy"])

    for wrong, message in (
        ((), "give either --checkpoint"),
        (("--nir", "dense.nir", "--model", "mlp"), "give either --checkpoint"),
        (("--checkpoint", "dense.nir", "--nir-option", "reset=value"), "--nir-option needs --nir"),
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


def test_the_nir_papers_network_comes_back_to_the_bit(nmnist_cnn, tmp_path):
    write_nir(tmp_path / "out.nir", nmnist_cnn, (2, 34, 34))
    again = nir_network((2, 34, 34), 10, path=str(tmp_path / "out.nir"))
    x = (torch.rand(30, 2, 2, 34, 34) < 0.05).float()
    spikes = run(nmnist_cnn, x)
    assert spikes.any()
    assert torch.equal(run(again, x), spikes)
