"""What is said of spikes: against spikes and potentials that SpikingJelly's own neurons give, counted one by one."""

import math
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.contract.subject import Method
from benchmark.networks.classifier import SNNClassifier
from benchmark.runs.run import ScoreError, compress_and_measure
from benchmark.runs.spikes import MOST_SAMPLES, SpikeStatistics, channels_left, spike_account
from compressors import SBC, Identity, Magnitude
from compressors.compression import Compression
from compressors.registry import COMPRESSORS
from tests.compressors.networks import RandomEvents, classifier

T, B, CLASSES = 6, 5, 3


def network(kind=neuron.LIFNode, step_mode="m", hidden=7, **options):
    torch.manual_seed(3)
    net = nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.Linear(8, hidden, step_mode="m"),
        kind(step_mode=step_mode, **options),
        layer.Linear(hidden, CLASSES, step_mode="m"),
        kind(step_mode=step_mode, **options),
    )
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(4)
    return net


def module_of(net, timesteps=T):
    return SNNClassifier(net, classes=CLASSES, timesteps=timesteps).eval()


def events(seed=0, samples=B):
    return 2 * torch.rand(samples, T, 2, 2, 2, generator=torch.Generator().manual_seed(seed))


def changed(net, seed=1):
    other = deepcopy(net)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return other


@torch.no_grad()
def slowly(net, x):
    """Spikes and charged potentials ``[T, B, n]`` of each neuron layer, step by step."""
    net = deepcopy(net)
    functional.set_step_mode(net, "s")
    spikes, potentials = {"network.2": [], "network.4": []}, {"network.2": [], "network.4": []}
    for step in x.transpose(0, 1):
        for index, module in enumerate(net):
            name = f"network.{index}"
            if name in spikes:
                before = deepcopy(module)
                before.v_threshold = 1e9
                before(step)
                potentials[name].append(before.v)
            step = module(step)
            if name in spikes:
                spikes[name].append(step.detach())
    return [{name: torch.stack(steps) for name, steps in kept.items()} for kept in (spikes, potentials)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (neuron.IFNode, {}),
        (neuron.LIFNode, {"tau": 3.0, "decay_input": False}),
        (neuron.LIFNode, {"v_reset": None}),
    ],
)
def test_shares_distances_and_ranges_are_those_of_spikes_counted_one_by_one(kind, options):
    net = network(kind, **options)
    other, x = changed(net), events()
    account = spike_account(module_of(net), module_of(other), x.split(2))
    assert account.samples == B
    (dense, _), (own, potentials) = slowly(net, x), slowly(other, x)
    for found in account.layers:
        a, b = dense[found.name], own[found.name]
        assert found.neurons == a.shape[-1]
        assert found.mismatch == pytest.approx(float((a != b).sum() / ((a + b) > 0).sum()))
        assert found.dead == int((b.sum((0, 1)) == 0).sum())
        assert found.saturated == int((b.mean((0, 1)) == 1).sum())
        rates = [torch.sort(spikes.mean((0, 1))).values for spikes in (a, b)]
        assert found.earth_mover == pytest.approx(float((rates[0] - rates[1]).abs().mean()), abs=1e-6)
        assert found.lowest_potential == pytest.approx(float(potentials[found.name].min()), rel=1e-5)
        assert found.highest_potential == pytest.approx(float(potentials[found.name].max()), rel=1e-5)


def test_the_van_rossum_distance_is_that_of_what_the_membrane_makes_of_spikes():
    """With a leak of 1/tau, a spike in step s is worth ``(1 - 1/tau)^(t - s) / tau`` in step t."""
    net = network(neuron.LIFNode, tau=2.0)
    other, x = changed(net), events()
    found = spike_account(module_of(net), module_of(other), [x]).layers[0]
    (dense, _), (own, _) = slowly(net, x), slowly(other, x)

    def filtered(spikes):
        trace, total = torch.zeros_like(spikes[0]), 0.0
        for step in spikes:
            trace = trace / 2 + step / 2
            total += float(trace.square().sum())
        return total

    assert found.van_rossum == pytest.approx(
        filtered(own["network.2"] - dense["network.2"]) / filtered(dense["network.2"]), rel=1e-5
    )


def test_a_network_beside_itself_differs_in_nothing():
    module = module_of(network())
    for found in spike_account(module, deepcopy(module), [events()]).layers:
        assert (found.mismatch, found.van_rossum, found.earth_mover) == (0, 0, 0)


def test_neurons_that_run_step_by_step_are_told_the_same_but_for_their_potentials():
    class Loop(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = deepcopy(net)
            functional.set_step_mode(self.net, "s")

        def forward(self, x):
            return torch.stack([self.net(step) for step in x])

    net = network()
    other = changed(net)
    expected = spike_account(module_of(net), module_of(other), [events()])
    found = spike_account(module_of(Loop(net)), module_of(Loop(other)), [events()])
    for one, same in zip(found.layers, expected.layers, strict=True):
        nothing = {"name": "", "lowest_potential": None, "highest_potential": None}
        assert one.model_copy(update=nothing) == same.model_copy(update=nothing)
        assert one.highest_potential is None


def test_where_neurons_or_steps_are_gone_rates_alone_are_compared():
    net = network()
    fewer = network(hidden=4)
    narrow = spike_account(module_of(net), module_of(fewer), [events()]).layers[0]
    assert (narrow.mismatch, narrow.van_rossum, narrow.neurons) == (None, None, 4)
    early = spike_account(module_of(net), module_of(net, timesteps=3), [events()])
    assert all(found.mismatch is None and found.earth_mover >= 0 for found in early.layers)
    assert early.summary().keys() == {"earth_mover", "dead_neurons", "saturated_neurons"}


def test_channels_that_are_left_are_compared_with_themselves():
    """A network without some channels beside one in which the same channels cannot be seen."""
    module = classifier()
    blind = deepcopy(module)
    method = Method(COMPRESSORS["spatiotemporal"].load()).make(0.5)
    done = compress_and_measure(deepcopy(module), RandomEvents(), method, 0, reference=blind)
    (narrow, *_) = done.compression.layers
    assert 0 < len(narrow.outputs) < narrow.before[0]
    x = torch.cat([batch[0] for batch in RandomEvents().test_dataloader()])[:1]
    left = channels_left(done.module, done.compression, x)
    assert torch.equal(left["network.2"], narrow.outputs)
    found = {layer.name: layer for layer in done.spikes.layers}["network.2"]
    assert found.mismatch is not None
    with torch.no_grad():  # the dense network's lost channels never fire
        gone = [channel for channel in range(narrow.before[0]) if channel not in narrow.outputs]
        blind.network[1].weight[gone] = 0
        blind.network[1].bias[gone] = -1e3
    batches = [batch[0] for batch in RandomEvents().test_dataloader()]
    first = spike_account(module, done.module, batches, left).layers[0]
    assert first == spike_account(blind, done.module, batches, left).layers[0]


def test_a_network_that_is_broken_is_told_by_its_scores():
    module, dense = classifier(), classifier()
    with torch.no_grad():
        module.network[1].bias.fill_(math.inf)
    with pytest.raises(ScoreError, match="not finite"):
        compress_and_measure(module, RandomEvents(), Identity(), 0, reference=dense)


def test_neurons_that_the_dense_network_does_not_have_are_left_out():
    net = network()
    more = nn.Sequential(*net, neuron.IFNode(step_mode="m"))
    account = spike_account(module_of(net), module_of(more), [events()])
    assert [layer.name for layer in account.layers] == ["network.2", "network.4"]


def test_silent_and_saturated_neurons_are_told():
    net = network()
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(100.0)
    silent = deepcopy(net)
    silent[2].v_threshold = 1e9
    account = spike_account(module_of(net), module_of(silent), [events()])
    assert account.layers[0].dead == 7
    assert account.layers[0].mismatch == 1
    assert spike_account(module_of(net), module_of(net), [events()]).layers[0].saturated == 7
    assert spike_account(module_of(silent), module_of(net), [events()]).layers[0].van_rossum is None


@pytest.mark.parametrize("method", [lambda: Identity(), lambda: SBC(0.3), lambda: Magnitude(0.3)])
def test_the_test_of_a_network_is_the_same_with_and_without(method):
    """Counts too: both networks run once more, and nobody counts that."""
    module = classifier()
    plain = compress_and_measure(deepcopy(module), RandomEvents(), method(), 0)
    watched = compress_and_measure(deepcopy(module), RandomEvents(), method(), 0, reference=deepcopy(module))
    assert plain.spikes is None
    assert watched.spikes is not None
    assert {found.name for found in watched.spikes.layers} == {one.name for one in watched.cost.neurons}
    assert watched.cost == plain.cost
    assert watched.metrics == plain.metrics


@pytest.mark.parametrize(
    ("batches", "size", "taken"), [(3, 64, 6), (3, 5, 3), (10_000, 64, 2 * 127), (300, 1, 150), (math.inf, 64, 256)]
)
def test_samples_are_from_all_over_the_test_part_and_few(batches, size, taken):
    statistics = SpikeStatistics(module_of(network()), Compression(()))

    trainer = SimpleNamespace(num_test_batches=[batches])
    x = torch.zeros(size, 1)
    for index in range(min(batches, 10_000)):
        statistics.on_test_batch_end(trainer, None, None, (x, None), index)
    assert sum(len(part) for part in statistics._taken) == taken <= MOST_SAMPLES
    held = sum(part.untyped_storage().nbytes() // part.itemsize for part in statistics._taken)
    assert held == taken, "of the batches nothing else stays in memory"


def test_a_network_whose_potentials_overflow_has_no_range_and_is_scored_as_without():
    module = classifier()
    dense = deepcopy(module)
    with torch.no_grad():
        next(module.network.parameters()).mul_(1e38)
    watched = compress_and_measure(deepcopy(module), RandomEvents(), Identity(), 0, reference=dense)
    first = watched.spikes.layers[0]
    assert (first.lowest_potential, first.highest_potential) == (None, None)
    assert watched.metrics == compress_and_measure(module, RandomEvents(), Identity(), 0).metrics
