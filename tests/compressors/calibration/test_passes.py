"""What calibration sees of a layer: its own inputs, over all time steps, however the network hands them on."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.classifier import SNNClassifier
from compressors import OBC, QPSNN, SBC, RandomPruning, SpatioTemporal
from compressors.calibration.activity import activities
from compressors.calibration.hessians import drift, hessians
from compressors.network.layers import LayerError, find_layers
from tests.compressors.networks import BatchFirst, fit

T = 5


class Whole(nn.Module):
    """Two layers; ``scale`` and ``pool`` stand between the first and its neuron."""

    def __init__(self, scale=1.0, pool=None):
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.pool = scale, pool
        self.first = layer.Conv2d(2, 4, 3, padding=1, bias=False)
        self.fire = neuron.LIFNode(tau=2.0)
        self.second = layer.Linear(4 * (36 if pool is None else 9), 3, bias=False)
        self.fire_again = neuron.LIFNode(tau=4.0)
        functional.set_step_mode(self, "m")
        with torch.no_grad():
            self.first.weight.mul_(6)  # so that it fires

    def forward(self, x):
        x = self.first(x)
        if self.pool is not None:
            x = self.pool(x)
        return self.fire_again(self.second(self.fire(x * self.scale).flatten(2)))


class Looped(Whole):
    """The same network goes through time by itself, in steps of one."""

    def forward(self, x):
        return torch.cat([super(Looped, self).forward(step) for step in x.split(1)])


class InPlace(Whole):
    """The same network again writes into what its second layer took."""

    def forward(self, x):
        spikes = self.fire(self.first(x) * self.scale).flatten(2)
        y = self.second(spikes)
        spikes += 1
        return self.fire_again(y)


class HeadBehindMean(nn.Module):
    """A readout that takes the mean over time, ``[B, features]``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.fire = layer.Linear(6, 8), neuron.LIFNode(tau=2.0)
        self.head = layer.Linear(8, 3)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.head(self.fire(self.first(x)).mean(0)).unsqueeze(0)


class LastStep(HeadBehindMean):
    """A readout that takes the last step alone, ``[1, B, features]``."""

    def forward(self, x):
        return self.head(self.fire(self.first(x))[-1:])


class ShownByHand(HeadBehindMean):
    """The first layer computes one step, which the network repeats by itself."""

    def forward(self, x):
        return self.head(self.fire(self.first(x[:1]).repeat(T, 1, 1)))


def events(samples=5, seed=1):
    return (torch.rand(samples, T, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def sbc_hessians(net, x, batch=2, method=SBC):
    module = BatchFirst(net)
    layers = find_layers(module, lambda: module(x[:1]))
    responses = {found.name: method().response(found) for found in layers}
    return hessians(module, layers, responses, lambda: iter(x.split(batch))), layers


@pytest.mark.parametrize("net", [HeadBehindMean, LastStep], ids=["mean", "last step"])
def test_batches_of_one_sample_count_as_one(net):
    x = torch.rand(17, T, 6)
    uneven, layers = sbc_hessians(net(), x, batch=16)
    alone, _ = sbc_hessians(net(), x, batch=1)
    whole, _ = sbc_hessians(net(), x, batch=17)
    assert not any(found.repeated for found in layers)
    for name in whole:
        torch.testing.assert_close(uneven[name], whole[name])
        torch.testing.assert_close(alone[name], whole[name])


def test_an_image_that_the_network_repeats_by_itself_is_seen_at_every_step():
    x = torch.rand(4, 1, 6).expand(4, T, 6).contiguous()
    by_hand, layers = sbc_hessians(ShownByHand(), x)
    net = nn.Sequential(*(getattr(ShownByHand(), name) for name in ("first", "fire", "head")))
    expected, _ = sbc_hessians(net, x)
    assert [(found.name, found.repeated) for found in layers] == [("net.0.first", True), ("net.0.head", False)]
    torch.testing.assert_close(by_hand["net.0.first"], expected["net.0.0"])
    torch.testing.assert_close(by_hand["net.0.head"], expected["net.0.2"])


def test_a_network_that_loops_over_time_is_seen_as_one_that_does_not():
    x = events()
    (looped, layers), (whole, _) = sbc_hessians(Looped(), x), sbc_hessians(Whole(), x)
    assert {(found.calls, found.timesteps) for found in layers} == {(T, T)}
    for name in whole:
        torch.testing.assert_close(looped[name], whole[name])
    modules = [BatchFirst(net()) for net in (Looped, Whole)]
    first, second = (activities(m, find_layers(m, lambda m=m: m(x)), lambda: iter(x.split(2))) for m in modules)
    for name in first:
        for part in ("norm", "rms", "events"):
            torch.testing.assert_close(getattr(first[name], part), getattr(second[name], part))


def test_a_layer_that_runs_twice_a_step_of_a_loop_is_refused_by_name():
    class Twice(Looped):
        def forward(self, x):
            return torch.cat([self.fire_again(self.second(self.second(self.fire(s.flatten(2))))) for s in x.split(1)])

    net = Twice()
    net.second = layer.Linear(72, 72, step_mode="m")
    with pytest.raises(LayerError, match=r"'net.0.second' runs through 10 time steps of a network of 5"):
        sbc_hessians(net, events())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_network_writes_into_a_layers_input_afterwards_is_not_seen(dtype):
    x, found = events(), {}
    for net in (InPlace(), Whole()):
        module = BatchFirst(net)
        layers = find_layers(module, lambda module=module: module(x[:1]))
        dense = {"net.0.first.weight": 1.3 * net.first.weight.detach()}
        found[type(net)] = drift(
            module, layers[1], SBC().response(layers[1]), lambda: iter(x.split(2)), dense, dtype=dtype
        )
    torch.testing.assert_close(found[InPlace].seen, found[Whole].seen)
    torch.testing.assert_close(found[InPlace].change, found[Whole].change)
    assert found[Whole].change.abs().max() > 0


def test_drift_is_that_of_all_uses_of_a_layer():
    torch.manual_seed(0)
    shared = layer.Linear(6, 6, bias=False)
    net = nn.Sequential(shared, neuron.LIFNode(), shared, neuron.LIFNode())
    module = BatchFirst(net)
    x = (torch.rand(4, T, 6) < 0.5).float()
    (found,) = find_layers(module, lambda: module(x[:1]))
    dense = {"net.0.0.weight": 1.5 * shared.weight.detach()}
    seen = drift(module, found, None, lambda: iter(x.split(2)), dense).seen
    expected = hessians(module, [found], {found.name: None}, lambda: iter(x.split(2)))
    torch.testing.assert_close(seen, expected[found.name])


@pytest.mark.parametrize("make_pool", [lambda: layer.AvgPool2d(2), lambda: layer.MaxPool2d(2)], ids=["mean", "maximum"])
def test_the_membrane_behind_a_pool_or_a_constant_factor_filters_as_one_right_behind(make_pool):
    x = events()
    plain, _ = sbc_hessians(Whole(), x)
    scaled, _ = sbc_hessians(Whole(scale=0.25), x)
    pooled, _ = sbc_hessians(Whole(pool=make_pool()), x)
    current, _ = sbc_hessians(Whole(), x, method=OBC)
    for found in (scaled, pooled):
        torch.testing.assert_close(found["net.0.first"], plain["net.0.first"])
    assert not torch.allclose(plain["net.0.first"], current["net.0.first"])


def test_each_layers_account_names_its_hessian():
    compressor = SBC(0.5)
    fit(compressor)
    named = {entry.name: entry.to_dict()["hessian"] for entry in compressor.compression.layers}
    assert named == {
        "network.0": "membrane potential",
        "network.5": "membrane potential",
        "network.7": "input current",
    }


# Layers that share a weight ------------------------------------------------------------------------------------------


def tied():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(8, 8, bias=False), neuron.LIFNode(tau=2.0), layer.Linear(8, 8, bias=False), neuron.LIFNode(tau=2.0)
    )
    net[2].weight = net[0].weight
    return net


def test_one_weight_in_two_layers_is_one_layer_and_sees_the_inputs_of_both():
    x = (torch.rand(6, T, 8) < 0.5).float()
    found, layers = sbc_hessians(tied(), x, method=OBC)
    assert [(entry.name, len(entry.tied)) for entry in layers] == [("net.0.0", 1)]
    apart = tied()
    apart[2].weight = nn.Parameter(apart[2].weight.detach().clone())
    both, _ = sbc_hessians(apart, x, method=OBC)
    torch.testing.assert_close(found["net.0.0"], both["net.0.0"] + both["net.0.2"])


@pytest.mark.parametrize("method", [RandomPruning, OBC, SBC])
def test_as_many_weights_of_a_shared_one_are_left_as_is_said(method):
    first, second = (layer.Linear(72, 72, bias=False) for _ in range(2))
    second.weight = first.weight
    net = nn.Sequential(layer.Flatten(), first, neuron.LIFNode(), second, neuron.LIFNode())
    functional.set_step_mode(net, "m")
    compressor = method(0.3)
    fit(compressor, SNNClassifier(net, classes=72, timesteps=4))
    (entry,) = compressor.compression.layers
    assert entry.kept == round(0.3 * 72 * 72) == int(first.weight.count_nonzero())
    assert first.weight is second.weight
    assert not compressor.compression.left_alone


@pytest.mark.parametrize("method", [QPSNN, SpatioTemporal])
def test_channels_of_layers_that_share_a_weight_are_not_taken_out(method):
    first, second = (layer.Linear(72, 72, bias=False) for _ in range(2))
    second.weight = first.weight
    net = nn.Sequential(layer.Flatten(), first, neuron.LIFNode(), second, neuron.LIFNode(), layer.Linear(72, 3))
    functional.set_step_mode(net, "m")
    with pytest.raises(LayerError, match="'network.1' and 'network.3' share one weight"):
        fit(method(0.5), SNNClassifier(net, classes=3, timesteps=4))
