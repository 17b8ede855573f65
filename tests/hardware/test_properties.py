"""What must not change a count, and what may only lower it."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware import profile
from tests.hardware.networks import Spiking, loader, sparsify, spikes

SEEDS = st.integers(0, 2**31)


def network_and_input(seed, samples=4, steps=3):
    torch.manual_seed(seed)
    return sparsify(Spiking()), spikes(samples, steps, 2, 8, 8)


def counts(report):
    return [(layer.ac, layer.mac, layer.input_events, layer.dense) for layer in report.layers]


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_splitting_a_batch_changes_nothing(seed, batch_size):
    net, x = network_and_input(seed)
    split, whole = profile(net, loader(x, batch_size)), profile(net, loader(x))
    layers = zip(split.layers, whole.layers, strict=True)
    same_calls = tuple(replace(one, calls=all_at_once.calls) for one, all_at_once in layers)
    assert replace(split, layers=same_calls) == whole


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_step_by_step_counts_as_all_steps_at_once(seed):
    net, x = network_and_input(seed)
    single = Spiking(multi_step=False)
    single.load_state_dict(net.state_dict())
    together, stepwise = profile(net, loader(x)), profile(single, loader(x))
    assert counts(stepwise) == counts(together)
    for one, all_steps in zip(stepwise.layers, together.layers, strict=True):
        assert one.synops_per_step == all_steps.synops_per_step
        assert (one.sample_std, one.sample_max) == (all_steps.sample_std, all_steps.sample_max)
        assert (one.calls, all_steps.calls) == (3, 1)
    assert [n.spikes for n in stepwise.neurons] == [n.spikes for n in together.neurons]
    assert [n.neurons for n in stepwise.neurons] == [n.neurons for n in together.neurons]


@given(SEEDS, st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_silent_steps_before_the_input_add_nothing(seed, silent):
    net, x = network_and_input(seed)
    with torch.no_grad():
        net.body[2].bias.zero_()  # else the bias alone makes neurons fire
    padded = torch.cat([torch.zeros(len(x), silent, 2, 8, 8), x], dim=1)
    plain, longer = profile(net, loader(x)), profile(net, loader(padded))
    assert [layer.synops for layer in longer.layers] == [layer.synops for layer in plain.layers]
    assert longer.steps_used <= longer.timesteps - silent
    for layer in longer.layers:
        assert layer.synops_per_step[:silent] == (0,) * silent


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_permuting_channels_changes_nothing(seed):
    net, x = network_and_input(seed)
    plain = profile(net, loader(x))
    order = torch.randperm(2)
    with torch.no_grad():
        net.body[0].weight.copy_(net.body[0].weight[:, order])
    assert counts(profile(net, loader(x[:, :, order]))) == counts(plain)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_pruned_weight_never_raises_its_layers_count(seed):
    net, x = network_and_input(seed)
    before = profile(net, loader(x)).layers[0]
    weight = net.body[0].weight
    kept = weight.nonzero()
    victim = tuple(kept[torch.randint(len(kept), ())]) if len(kept) else (0, 0, 0, 0)
    with torch.no_grad():
        weight[victim] = 0
    after = profile(net, loader(x)).layers[0]
    assert after.ac <= before.ac
    assert after.nonzero == before.nonzero - bool(len(kept))
    assert after.dense == before.dense
