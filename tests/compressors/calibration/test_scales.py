"""Channels are scaled so that their spikes come near to the dense network's, and only where they do."""

from copy import deepcopy

import pytest
import torch

from compressors import RTN, Magnitude
from compressors.calibration import scales
from compressors.calibration.held_out import held_out
from compressors.calibration.pairs import neuron_pairs, run
from compressors.calibration.scales import FACTORS, rescale
from compressors.network.layers import evaluating
from tests.compressors.calibration.test_reconstruction import opened
from tests.compressors.networks import RandomEvents, classifier, fit, weights

CARE = ("scales",)


def distances(network, accounts, dense, x):
    """Distance of each channel's spikes from the dense ones, layer by layer."""
    pairs = [*neuron_pairs(network, accounts, dense)]
    with evaluating(dense), evaluating(network.module):
        _, wanted = run(dense, x, [pair.dense for pair in pairs])
        _, found = run(network.module, x, [pair.own for pair in pairs])
    return [pair.energies(a - b) for pair, a, b in zip(pairs, found, wanted, strict=True)]


@pytest.mark.parametrize("layer", [0, 1], ids=["in BatchNorm", "in the weights"])
@pytest.mark.parametrize("factor", [FACTORS[1], FACTORS[-2]])
def test_channels_that_were_scaled_are_scaled_back(layer, factor):
    dense, events = classifier().eval(), RandomEvents(20)
    with torch.no_grad():
        dense.network[5].weight.abs_().mul_(0.4)  # so that it fires now and then
    moved = deepcopy(dense)
    name = ("network.1", "network.5")[layer]
    with torch.no_grad():
        for parameter in moved.get_submodule(name).parameters():
            parameter[1] /= factor
    network, accounts = opened(moved, events)
    assert distances(network, accounts, dense, events.x)[layer].any()
    changed = rescale(network, accounts, dense)
    assert changed == [("network.0", "network.5")[layer]]
    assert not distances(network, accounts, dense, events.x)[layer].any()


def test_a_network_that_is_as_it_was_stays_so_to_the_bit():
    dense, events = classifier().eval(), RandomEvents()
    same = deepcopy(dense)
    assert rescale(*opened(same, events), dense) == []
    for key, value in weights(dense).items():
        assert torch.equal(weights(same)[key], value)


def test_held_out_spikes_come_nearer_in_every_channel_of_the_first_layer_or_it_is_left():
    dense, events = classifier().eval(), RandomEvents(20)
    pruned = deepcopy(dense)
    with torch.no_grad():
        pruned.network[0].weight[:, :, 1:] = 0
    network, accounts = opened(pruned, events)
    held = torch.cat([*held_out(iter([events.x]))])
    before, gain = distances(network, accounts, dense, held)[0], pruned.network[1].weight.detach().clone()
    assert rescale(network, accounts, dense)
    after, moved = distances(network, accounts, dense, held)[0], pruned.network[1].weight.detach() != gain
    assert moved.any()
    assert (after[moved] < before[moved]).all()
    assert torch.equal(after[~moved], before[~moved])


def test_what_does_not_hold_on_other_samples_is_not_kept(monkeypatch):
    monkeypatch.setattr(scales, "split", lambda batches: ((x, torch.zeros_like(x)) for x in batches))
    dense, events = classifier().eval(), RandomEvents(20)
    pruned = deepcopy(dense)
    with torch.no_grad():
        pruned.network[0].weight[:, :, 1:] = 0
    before = weights(deepcopy(pruned))
    assert rescale(*opened(pruned, events), dense) == []
    for key, value in before.items():
        assert torch.equal(weights(pruned)[key], value)


def test_masks_hold_grids_hold_and_the_account_names_the_layers():
    compressor = Magnitude(0.3, aftercare=CARE)
    module = fit(compressor)
    names = compressor.compression.aftercare["scales"]
    assert names
    for layer in compressor.compression.layers:
        assert not module.get_parameter(f"{layer.name}.weight")[~layer.mask].any()

    quantised = RTN(bits=2, aftercare=CARE)
    module = fit(quantised)
    assert set(quantised.compression.aftercare["scales"]) <= {"network.0"}, "network.5 has no BatchNorm, and a grid"
    for layer in quantised.compression.layers:
        assert torch.equal(module.get_parameter(f"{layer.name}.weight").detach(), layer.weight())
