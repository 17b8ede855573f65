"""What channels are judged by, against formulas worked by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron

from compressors.channels.criteria import channel_means, mean_potential, numerical_rank, spike_map_rank
from compressors.network.layers import LayerError, find_layers
from compressors.network.neurons import charged
from tests.compressors.networks import RandomEvents, classifier


def test_numerical_ranks():
    outer = torch.outer(torch.arange(1.0, 5), torch.ones(5))
    assert numerical_rank(outer) == 1
    assert numerical_rank(torch.zeros(3, 4)) == 0
    assert numerical_rank(torch.eye(4)) == 4
    assert numerical_rank(torch.eye(4) * 1e-7) == 0
    assert numerical_rank(torch.eye(4) * 1e-7, None) == 4, "the library's tolerance is relative"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), permutation=st.permutations(range(3)))
def test_rank_of_spike_maps_is_that_of_numpy_and_follows_its_channel(seed, permutation):
    spikes = (torch.rand(4, 2, 3, 5, 6, generator=torch.Generator().manual_seed(seed)) < 0.3).float()
    ranks = spike_map_rank(None, spikes, spikes)
    expected = [[numpy_rank(spikes[:, b, c].double().mean(0).numpy()) for c in range(3)] for b in range(2)]
    assert ranks.tolist() == expected
    moved = spikes[:, :, list(permutation)]
    assert torch.equal(spike_map_rank(None, moved, moved), ranks[:, list(permutation)])
    assert torch.equal(spike_map_rank(None, spikes.flip(0), spikes.flip(0)), ranks), (
        "the order of steps does not matter"
    )


def numpy_rank(matrix):
    import numpy

    return float(numpy.linalg.matrix_rank(matrix, tol=1e-6))


def test_maps_without_positions_say_whether_the_neuron_fired():
    spikes = torch.zeros(3, 2, 4)
    spikes[1, 0, 2] = 1
    assert spike_map_rank(None, spikes, spikes).tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: neuron.LIFNode(tau=2.0),
        lambda: neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False),
        lambda: neuron.IFNode(v_reset=None),
        lambda: neuron.ParametricLIFNode(init_tau=2.5, v_reset=-0.1),
    ],
    ids=["hard", "soft", "if", "plif"],
)
def test_potentials_before_firing_are_those_of_the_neurons_equation(make):
    cell = make()
    functional.set_step_mode(cell, "m")
    cell.store_v_seq = True
    x = torch.rand(6, 2, 3) * 3
    spikes = cell(x)
    v = cell.v_seq
    charge = charged(cell, x)
    assert torch.equal((charge >= cell.v_threshold).float(), spikes)
    reset = cell.v_reset
    after = charge - spikes * cell.v_threshold if reset is None else torch.where(spikes > 0, reset, charge)
    torch.testing.assert_close(after, v)
    functional.reset_net(cell)
    assert torch.equal(cell(x), spikes)
    torch.testing.assert_close(mean_potential(cell, x, spikes), charge.abs().double().mean(0))


def test_neurons_with_more_states_are_refused():
    cell = neuron.IzhikevichNode(tau=2.0, v_c=0.8, a0=1.0, step_mode="m")
    cell.store_v_seq = True
    x = torch.rand(3, 1, 2)
    cell(x)
    with pytest.raises(LayerError, match="IzhikevichNode has states beside its potential"):
        charged(cell, x)


def test_scores_do_not_depend_on_how_samples_are_batched():
    module = classifier()
    x = RandomEvents().x
    layers = find_layers(module, lambda: module(x[:1]))
    for measure in (spike_map_rank, mean_potential):
        whole, parts = (channel_means(module, layers, measure, lambda n=n: x.split(n)) for n in (12, 5))
        assert set(whole) == {"network.0", "network.5"}
        for name in whole:
            torch.testing.assert_close(whole[name], parts[name], rtol=1e-6, atol=0)
    assert all(cell.store_v_seq is False for cell in module.modules() if isinstance(cell, neuron.BaseNode))
