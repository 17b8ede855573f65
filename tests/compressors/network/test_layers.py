"""Layers and what follows them are found by the computation, not by names."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from compressors.network.layers import LayerError, find_layers, left_alone, select


class Branched(nn.Module):
    """Layers declared out of order, a residual sum, a pooled convolution and a layer nobody calls."""

    def __init__(self):
        super().__init__()
        self.head = layer.Linear(4 * 2 * 2, 3, bias=False)
        self.unused = layer.Linear(5, 5)
        self.second = layer.Conv2d(4, 4, 3, padding=1, bias=False)
        self.first = layer.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = layer.BatchNorm2d(4)
        self.spike = neuron.IFNode()
        self.drop = layer.Dropout(0.5)
        self.pool = layer.AvgPool2d(2)
        self.sum_spike = neuron.LIFNode()
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x = self.spike(self.drop(self.norm(self.first(x))))
        x = self.sum_spike(self.second(x) + x)
        return self.head(self.pool(x).flatten(2))


@pytest.fixture
def found():
    net = Branched()
    return net, find_layers(net, lambda: net(torch.rand(3, 1, 2, 4, 4)))


def test_order_is_that_of_execution(found):
    assert [entry.name for entry in found[1]] == ["first", "second", "head"]


def test_batchnorm_and_neuron_are_followed_through_dropout(found):
    net, layers = found
    assert layers[0].norm is net.norm
    assert layers[0].neuron is net.spike


def test_a_neuron_is_found_behind_a_sum_and_none_at_the_end(found):
    net, layers = found
    assert layers[1].neuron is net.sum_spike
    assert layers[2].neuron is None


def only(net, x):
    functional.set_step_mode(net, "m")
    return find_layers(net, lambda: net(x))


class Membrane(nn.Module):
    """A shortcut in front of the neuron, taken by another convolution first, as in MS-ResNet."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = layer.Conv2d(2, 2, 3, padding=1), layer.BatchNorm2d(2)
        self.branch, self.branch_norm = layer.Conv2d(2, 2, 1), layer.BatchNorm2d(2)
        self.last, self.spike = layer.Conv2d(2, 2, 1), neuron.LIFNode()

    def forward(self, x):
        x = self.norm(self.conv(x)) + x
        shortcut = self.branch_norm(self.branch(x))
        out = self.last(self.spike(x))
        out += shortcut
        return out


def test_the_neuron_is_found_past_a_branch_that_leads_elsewhere():
    net = Membrane()
    conv, branch, last = only(net, torch.rand(2, 1, 2, 4, 4))
    assert (conv.name, conv.norm, conv.neuron) == ("conv", net.norm, net.spike)
    assert (branch.name, branch.norm, branch.neuron) == ("branch", net.branch_norm, None)
    assert (last.name, last.neuron) == ("last", None)


class Attention(nn.Module):
    """Queries and keys by one convolution over tokens, reordered before their neuron; then pooled, scaled, gated."""

    def __init__(self):
        super().__init__()
        self.qk, self.norm, self.spike = layer.Conv1d(4, 8, 1), layer.BatchNorm1d(8), neuron.LIFNode()
        self.pooled, self.pool, self.pool_spike = layer.Conv1d(4, 4, 1), nn.MaxPool1d(2), neuron.IFNode()
        self.scaled, self.scale_spike = layer.Conv1d(4, 4, 1), neuron.IFNode()
        self.gated, self.gate_spike = layer.Conv1d(4, 4, 1), neuron.IFNode()

    def forward(self, x):
        q, _ = self.spike(self.norm(self.qk(x)).transpose(2, 3).contiguous().transpose(2, 3).flatten(3)).chunk(2, 2)
        x = self.pool_spike(self.pool(self.pooled(q).flatten(0, 1)).unflatten(0, (len(x), -1)))
        x = self.scale_spike(-0.5 * self.scaled(x) / 2)
        return self.gate_spike(self.gated(x) * x.mean())


def test_changes_of_shape_and_numbers_as_factors_are_followed_pooling_and_products_are_not():
    net = Attention()
    qk, pooled, scaled, gated = only(net, torch.rand(2, 1, 4, 6))
    assert (qk.norm, qk.neuron) == (net.norm, net.spike)
    assert pooled.neuron is gated.neuron is None
    assert scaled.neuron is net.scale_spike
    assert (pooled.pooled_neuron, pooled.channel_neuron) == (net.pool_spike, net.pool_spike)
    assert (qk.pooled_neuron, qk.channel_neuron) == (None, net.spike)
    assert gated.channel_neuron is None


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.first, self.second = layer.Linear(3, 3), neuron.LIFNode(), neuron.IFNode()

    def forward(self, x):
        return self.second(self.shared(self.first(self.shared(x))))


def test_a_layer_used_twice_stands_once_with_its_first_neuron():
    net = Twice()
    (entry,) = only(net, torch.rand(2, 1, 3))
    assert entry.neuron is net.first


class Learnt(nn.Module):
    """Sums inside a neuron must not lead to the next one."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(layer.Linear(3, 3), layer.MaxPool2d(1), neuron.ParametricLIFNode(), neuron.IFNode())

    def forward(self, x):
        return self.body(x)


def test_what_a_neuron_computes_inside_is_not_followed():
    (entry,) = only(Learnt(), torch.rand(2, 1, 1, 3, 3))
    assert entry.neuron is None


def test_time_steps_are_those_of_the_input(found):
    assert {entry.timesteps for entry in found[1]} == {3}


def test_batchnorm_gain(found):
    net, layers = found
    net.norm.running_var.copy_(torch.tensor([1.0, 4.0, 9.0, 16.0]))
    with torch.no_grad():
        net.norm.weight.copy_(torch.tensor([1.0, 1.0, 3.0, -4.0]))
    torch.testing.assert_close(layers[0].batchnorm_factor(), torch.tensor([1.0, 0.5, 1.0, -1.0]), rtol=1e-4, atol=0)
    assert torch.equal(layers[1].batchnorm_factor(), torch.ones(4))


def test_patterns_choose_layers(found):
    layers = found[1]
    assert [entry.name for entry in select(layers, ["*"], ["head"])] == ["first", "second"]
    assert [entry.name for entry in select(layers, ["f*", "h*"], [])] == ["first", "head"]
    with pytest.raises(LayerError, match=r"'conv\*' matches no layer.*first, second, head"):
        select(layers, ["conv*"], [])
    with pytest.raises(LayerError, match="no layer is left"):
        select(layers, ["*"], ["*"])


def test_weights_of_other_layers_are_named(found):
    net, layers = found
    net.up = nn.ConvTranspose2d(4, 2, 2)
    assert left_alone(net, layers) == ("unused (Linear)", "up (ConvTranspose2d)")
    assert left_alone(net, select(layers, ["*"], ["second"])) == (
        "unused (Linear)",
        "second (Conv2d)",
        "up (ConvTranspose2d)",
    )


def test_a_network_without_layers_is_refused():
    net = nn.Sequential(neuron.IFNode(step_mode="m"))
    with pytest.raises(LayerError, match="no linear or convolutional layer"):
        find_layers(net, lambda: net(torch.rand(2, 1, 3)))


def test_single_step_networks_are_refused_with_the_remedy():
    net = nn.Sequential(layer.Linear(3, 2, step_mode="s"), neuron.IFNode(step_mode="s"))
    with pytest.raises(LayerError, match="'0'.*step mode 'm'"):
        find_layers(net, lambda: net(torch.rand(1, 3)))


def test_hooks_go_even_when_the_forward_pass_fails(found):
    net = found[0]
    with pytest.raises(RuntimeError):
        find_layers(net, lambda: net(torch.rand(3, 1, 7, 4, 4)))
    assert not any(module._forward_hooks for module in net.modules())
