"""NIR files in: exact where SpikingJelly can be exact, refused by name where it cannot."""

from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.networks.nir import reading
from benchmark.networks.nir.reading import NIRError, nir_network
from benchmark.records import DenseNetwork
from tests.benchmark.networks.nir.nir_graphs import (
    CELLS,
    CHAINS,
    CLASSES,
    ENDS,
    SHAPE,
    as_torch,
    convolution,
    events,
    full,
    graph_of,
    neuron_graph,
    run,
    weights,
)

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


def reset_of(path, **options):
    return nir_network(SHAPE, CLASSES, path=str(path), **options).get_submodule("3").v_reset


def test_reset_is_the_options_then_the_metadatas_then_the_files(tmp_path):
    path = tmp_path / "graph.nir"
    nir.write(path, neuron_graph(IF))
    assert reset_of(path, reset="subtract") is None
    assert reset_of(path, reset="value") == 0.0
    strip_resets(path)
    assert reset_of(path) is None
    assert reset_of(path, reset="value") == 0.0
    for told, expected in (("subtract", None), ("value", 0.0)):
        nir.write(path, neuron_graph(nir.IF(r=full(1.0), v_threshold=full(1.5), metadata={"reset": told})))
        assert reset_of(path) == expected
    nir.write(path, neuron_graph(nir.IF(full(1.0), full(1.0), full(-1.0))))
    assert reset_of(path) == -1.0


def test_a_reset_that_nothing_tells_is_asked_for(tmp_path):
    path = tmp_path / "graph.nir"
    nir.write(path, neuron_graph(IF))
    with pytest.raises(NIRError, match="graph.nir: node '3' .* say --reset subtract .* or --reset value"):
        reset_of(path)
    strip_resets(path)
    nir.write(path, nir.read(path))  # which puts them there
    with pytest.raises(NIRError, match="say --reset subtract .* or --reset value"):
        reset_of(path)


def test_an_unknown_word_in_the_metadata_is_refused(tmp_path):
    path = tmp_path / "graph.nir"
    nir.write(path, neuron_graph(nir.IF(r=full(1.0), v_threshold=full(1.5), metadata={"reset": "soft"})))
    with pytest.raises(NIRError, match="graph.nir: node '3': its metadata say reset 'soft', which is none of"):
        reset_of(path)
    assert reset_of(path, reset="value") == 0.0


# The layers -----------------------------------------------------------------------------------------------------------


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


# Refused --------------------------------------------------------------------------------------------------------------

MIXED = np.array([1.0, 1.0, 2.0])


def with_output(*shape):
    graph = neuron_graph(IF)
    graph.nodes["output"] = nir.Output(np.array(shape))
    return graph


REFUSED = {
    "threshold": (
        neuron_graph(nir.IF(r=full(1.0), v_threshold=MIXED)),
        r"node '3' \(IF\): its v_threshold differs between neurons \(1 to 2\)",
    ),
    "no threshold": (
        neuron_graph(nir.IF(r=full(1.0), v_threshold=full(0.0))),
        r"node '3' \(IF\): its v_threshold is 0: a number above 0 and above v_reset \(0\) is expected",
    ),
    "negative threshold": (
        neuron_graph(nir.LIF(full(4.0), full(1.0), full(-2.0), full(-1.0), full(-2.0))),
        r"node '3' \(LIF\): its v_threshold is -1: a number above 0",
    ),
    "threshold below reset": (
        neuron_graph(nir.IF(full(1.0), full(1.0), full(1.5))),
        r"node '3' \(IF\): its v_threshold is 1: a number above 0 and above v_reset \(1.5\)",
    ),
    "output": (with_output(CLASSES + 1), r"node 'output' says that outputs have the shape \(4,\), they have \(3,\)"),
    "output of more dimensions": (with_output(1, CLASSES), r"the shape \(1, 3\), they have \(3,\)"),
    "time constant": (
        neuron_graph(nir.LIF(full(1e-2), full(1.0), full(0.0), full(1.0))),
        "its tau of 0.01 is no longer than the time step of 1: give timestep",
    ),
    "unknown step": (neuron_graph(nir.IF(r=full(1e4), v_threshold=full(1.0))), "r is 10000.*give timestep.*0.0001"),
    "rest": (
        neuron_graph(nir.LIF(full(3.0), full(1.0), full(0.2), full(1.0))),
        "rest potential v_leak is 0.2, SpikingJelly's neuron would rest at 0",
    ),
    "not finite": (
        neuron_graph(nir.IF(r=full(np.nan), v_threshold=full(1.0))),
        r"node '3' \(IF\): its r is not finite",
    ),
    "unknown node": (
        neuron_graph(nir.Delay(full(1.0))),
        "node '3' is a 'Delay', which cannot be imported",
    ),
    "weights": (neuron_graph(IF, weights(CLASSES, CELLS) * np.inf), r"node '2' \(Linear\): its weight is not finite"),
    "wide": (
        neuron_graph(IF, np.full((CLASSES, CELLS), 1e300)),
        r"node '2' \(Linear\): its weight is too large for 32 bits",
    ),
    "bias": (
        graph_of(ENDS[0], nir.Affine(weights(CLASSES, 144), weights(1))),
        r"node '2' \(Affine\): its bias has the shape \(1,\) instead of \(3,\)",
    ),
    "sizes": (
        graph_of(convolution(stride=np.array([1.5, 1.5])), *ENDS),
        r"node '1' \(Conv2d\): its stride is no whole number",
    ),
    "padding": (
        graph_of(convolution(padding=30_000), *ENDS),
        r"node '1' has [\d,]+ outputs a sample and step: more than",
    ),
    "time step": (neuron_graph(IF, timestep=-1.0), r"its metadata say timestep -1.0: a number above 0 is expected"),
    "cycle": (
        graph_of(*ENDS, nir.Linear(weights(CLASSES, CLASSES)), edges=[("3", "2")]),
        "form a cycle: only feed-forward graphs work",
    ),
    "dead end": (
        graph_of(*ENDS, edges=[]).nodes | {"lost": nir.IF(r=full(np.float64(3.0)), v_threshold=MIXED)},
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


def test_nodes_without_edges_are_found_before_any_is_made(tmp_path, monkeypatch):
    graph = neuron_graph(IF)
    graph.nodes |= {f"spare{number}": nir.Linear(weights(2, 2)) for number in range(20)}
    nir.write(tmp_path / "graph.nir", graph)
    monkeypatch.setattr(reading, "converted", lambda *node: pytest.fail("a module was made"))
    with pytest.raises(NIRError, match="node 'spare0' has no edge to another node"):
        nir_network(SHAPE, CLASSES, path=str(tmp_path / "graph.nir"), reset="value")


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
        with pytest.raises(NIRError, match=f"{path}: cannot be read"):
            nir_network(SHAPE, CLASSES, path=str(tmp_path / path))


def test_a_record_says_the_reset_of_a_nir_file_and_nothing_of_other_networks():
    origin = {"id": "0" * 12, "sha256": "0" * 64}
    said = DenseNetwork(**origin, reset="subtract (as asked for)").model_dump()
    assert said["reset"] == "subtract (as asked for)"
    assert DenseNetwork.model_validate(said).reset == said["reset"]
    assert "reset" not in DenseNetwork(**origin).model_dump()
