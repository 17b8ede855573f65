"""The counts and prices for Loihi 1, held against SANA-FE: a simulator of the chip that is fitted to a board.

SANA-FE is no dependency; the tests are skipped where it is not installed.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from hardware import profile
from hardware.energy import energy
from hardware.latency import latency

sanafe = pytest.importorskip("sanafe")

T, INPUTS, HIDDEN, OUTPUTS, THRESHOLD = 20, 8, 12, 4, 6.0


def simulated(x, weights: Sequence[np.ndarray]) -> dict:
    """What SANA-FE says of two dense layers without zeros, on one core each, for ``x [T, inputs]``."""
    firing = {"threshold": THRESHOLD, "leak_decay": 1.0, "reset": 0.0, "reset_mode": "hard"}
    units = {"soma_hw_name": "loihi_lif", "default_synapse_hw_name": "loihi_dense_synapse"}
    architecture, network = sanafe.load_loihi(), sanafe.Network()
    groups = [network.create_neuron_group("in", INPUTS)]
    for name, size in (("hidden", HIDDEN), ("out", OUTPUTS)):
        groups.append(network.create_neuron_group(name, size, model_attributes=firing, **units))
    for before, after, weight in zip(groups, groups[1:], weights, strict=False):
        before.connect_neurons_dense(after, {"weight": weight.T.flatten().astype(float).tolist()})
    for place, source in enumerate(groups[0].neurons):
        spikes = x[:, place].astype(int).tolist()
        source.set_attributes(soma_hw_name=f"loihi_inputs[{place}]", model_attributes={"spikes": spikes})
    for core, group in zip(architecture.cores(), groups, strict=False):
        for one in group.neurons:
            one.map_to_core(core)
    chip = sanafe.SpikingChip(architecture)
    chip.load(network)
    return chip.sim(T + 2)  # a layer's spikes arrive in the step after


@pytest.fixture(scope="module")
def both():
    """SANA-FE's account of a small network, and ours."""
    generator = np.random.default_rng(0)
    x = generator.random((T, INPUTS)) < 0.3
    weights = [generator.choice([-2, -1, 1, 2, 3], size) for size in ((HIDDEN, INPUTS), (OUTPUTS, HIDDEN))]
    network = nn.Sequential(
        layer.Linear(INPUTS, HIDDEN, bias=False, step_mode="m"),
        neuron.IFNode(v_threshold=THRESHOLD + 0.5, step_mode="m"),  # it fires above its threshold, not at it
        layer.Linear(HIDDEN, OUTPUTS, bias=False, step_mode="m"),
        neuron.IFNode(v_threshold=THRESHOLD + 0.5, step_mode="m"),
    )
    for place, weight in zip((0, 2), weights, strict=True):
        network[place].weight.data = torch.from_numpy(weight).float()

    class BatchFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, events):
            return self.network(events.transpose(0, 1))

    report = profile(BatchFirst(), [(torch.from_numpy(x).float()[None], None)])
    return simulated(x, weights), report


def test_counts_are_the_same(both):
    theirs, ours = both
    assert theirs["spikes"] == ours.synops
    inputs, hidden = (layer_.input_events for layer_ in ours.layers)
    assert theirs["packets_sent"] == inputs + hidden
    assert theirs["neurons_fired"] == inputs + sum(neurons.spikes for neurons in ours.neurons)
    assert hidden > 0


def test_energy_is_within_a_tenth_term_by_term(both, capsys):
    """But for what a packet is to a neuron that receives it, the terms are theirs; the range takes in their total."""
    theirs, ours = both
    ours_by_term = energy(ours, "loihi1").joules_by("term")
    somas = sum(ours_by_term[name] for name in ("neuron_access", "neuron_update", "spike"))
    assert ours_by_term["synaptic_operation"] == pytest.approx(theirs["energy"]["synapse"], rel=1e-6)
    assert ours_by_term["packet"] == pytest.approx(theirs["energy"]["network"], rel=0.1)
    assert somas == pytest.approx(theirs["energy"]["soma"], rel=0.2)
    priced = energy(ours, "loihi1")
    with capsys.disabled():
        print(f" SANA-FE {theirs['energy']['total'] * 1e9:.1f} nJ, loihi1 {priced.joules * 1e9:.1f} nJ ", end="")
    assert priced.joules == pytest.approx(theirs["energy"]["total"], rel=0.1)
    low, high = priced.joules_range
    assert low <= theirs["energy"]["total"] <= high


def test_the_simulated_time_lies_in_the_range(both):
    theirs, ours = both
    least = latency(ours)
    assert least.low_s < theirs["sim_time"] < least.high_s
