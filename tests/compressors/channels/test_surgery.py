"""A cut network computes what the whole one computes with the same channels silenced."""

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spiking_resnet, spiking_vgg
from torch import nn

from benchmark.catalog import MODELS
from compressors.budget import BudgetError
from compressors.channels.surgery import Cut, adopt_widths, cut, cut_to, removal_order, set_shapes
from compressors.channels.tracing import FIXED, Channels, find_channels
from compressors.network.layers import LayerError, evaluating
from tests.contract.test_models import TINY

T, BATCH = 3, 2


class Residual(nn.Module):
    """Two convolutions whose channels meet in a sum, a depthwise and a grouped one, a threshold for each channel."""

    def __init__(self):
        super().__init__()
        self.first = layer.Conv2d(2, 8, 3, padding=1, bias=True)
        self.norm = layer.BatchNorm2d(8)
        self.spike = neuron.IFNode()
        self.depthwise = layer.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = layer.Conv2d(8, 8, 1, bias=False)
        self.scale = PerChannel(8)
        self.grouped = layer.Conv2d(8, 12, 3, groups=4)
        self.pool = layer.AvgPool2d(2)
        self.head = layer.Linear(12 * 4, 3)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x = self.spike(self.norm(self.first(x)))
        x = self.scale(self.second(self.depthwise(x)) + x)
        return self.head(self.pool(self.grouped(x)).flatten(2)).mean(0)


class PerChannel(neuron.LIFNode):
    """A LIF neuron whose input gain is learned for each channel."""

    def __init__(self, channels):
        super().__init__(tau=2.0)
        self.gain = nn.Parameter(torch.linspace(0.5, 2.0, channels).view(-1, 1, 1))

    def multi_step_forward(self, x_seq):
        return super().multi_step_forward(x_seq * self.gain)


def sequential(widths=(6, 8, 7), classes=4, pool=layer.MaxPool2d):
    first, second, hidden = widths
    net = nn.Sequential(
        layer.Conv2d(2, first, 3, padding=1, bias=False),
        layer.BatchNorm2d(first),
        neuron.LIFNode(tau=2.0),
        layer.Conv2d(first, second, 3, stride=2),
        neuron.IFNode(),
        pool(2),
        layer.Flatten(),
        layer.Linear(second * 4, hidden),
        layer.BatchNorm1d(hidden),
        neuron.ParametricLIFNode(),
        layer.Dropout(0.5),
        layer.Linear(hidden, classes),
    )
    functional.set_step_mode(net, "m")
    return net


def zoo(name):
    built = {
        "sequential": (sequential, (2, 9, 9)),
        "average pool": (lambda: sequential(pool=layer.AvgPool2d), (2, 9, 9)),
        "residual": (Residual, (2, 6, 6)),
        "sew": (lambda: sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=3), (3, 32, 32)),
        "sew iand": (
            lambda: sew_resnet.sew_resnet18(cnf="IAND", spiking_neuron=neuron.IFNode, num_classes=3),
            (3, 32, 32),
        ),
        "resnet50": (lambda: spiking_resnet.spiking_resnet50(spiking_neuron=neuron.IFNode, num_classes=3), (3, 32, 32)),
        "resnext": (
            lambda: spiking_resnet.spiking_resnext50_32x4d(spiking_neuron=neuron.IFNode, num_classes=3),
            (3, 32, 32),
        ),
        "vgg": (lambda: spiking_vgg.spiking_vgg11_bn(spiking_neuron=neuron.IFNode, num_classes=3), (3, 32, 32)),
        "voting": (
            lambda: parametric_lif_net.DVSGestureNet(channels=8, spiking_neuron=neuron.LIFNode),
            (2, 128, 128),
        ),
    }
    if name in TINY:
        built[name] = (lambda: MODELS[name].load()(TINY[name].shape, 3, **TINY[name].options), TINY[name].shape)
    build, shape = built[name]
    torch.manual_seed(0)
    net = build().eval()
    functional.set_step_mode(net, "m")
    make_it_fire(net)
    return net, torch.rand(T, BATCH, *shape)


def make_it_fire(net):
    """Large weights, and BatchNorms with numbers of every kind, so that no channel is like another."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.01, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 3 / module.in_features**0.5)


def run(net, x):
    with evaluating(net):
        return net(x)


def find(net, x) -> Channels:
    return find_channels(net, lambda: net(x))


def silence(wanted: Cut):
    """Cut the wires instead of the channels: weights that read a channel that goes become zero."""
    for entry in wanted.channels.layers.values():
        gone = ~wanted.kept(entry.inputs)
        module = entry.module
        with torch.no_grad():
            if getattr(module, "groups", 1) == 1:
                module.weight[:, gone] = 0
            else:
                blocks = module.weight.view(module.groups, -1, *module.weight.shape[1:])  # [groups, out, in, ...]
                for group, lost in enumerate(gone.view(module.groups, -1)):
                    blocks[group][:, lost] = 0


def half(channels: Channels, seed=0) -> Cut:
    """Half of what can be cut, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    gone = set()
    for bundle in channels.bundles():
        shuffled = bundle.groups[torch.randperm(len(bundle.groups), generator=generator)]
        gone |= set(shuffled[: len(shuffled) // 2].tolist())
    return Cut(channels, frozenset(gone))


SMALL = ["sequential", "average pool", "residual"]
ATTENTION = ["spikformer", "qkformer", "spike_driven_transformer"]
LARGE = ["sew", "sew iand", "resnet50", "resnext", "vgg", "voting"]


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_cutting_gives_what_silencing_gives(name):
    net, x = zoo(name)
    whole, before = run(net, x), sum(p.numel() for p in net.parameters())
    wanted = half(find(net, x))
    silenced = copy.deepcopy(net)
    silence(half(find(silenced, x)))
    expected = run(silenced, x)
    cut(net, wanted)
    assert sum(p.numel() for p in net.parameters()) < 0.6 * before
    assert not torch.equal(expected, whole), "the channels that went did matter"
    torch.testing.assert_close(run(net, x), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(widths=st.tuples(*[st.integers(1, 9)] * 3), data=st.data())
def test_any_widths_and_any_channels(widths, data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    net = sequential(widths).eval()
    make_it_fire(net)
    x = torch.rand(T, BATCH, 2, 9, 9)
    channels = find(net, x)
    gone = set()
    for bundle in channels.bundles():
        groups = bundle.groups.tolist()
        gone |= data.draw(st.sets(st.sampled_from(groups), max_size=len(groups) - 1))
    wanted = Cut(channels, frozenset(gone))
    silenced = copy.deepcopy(net)
    silence(Cut(find(silenced, x), frozenset(gone)))
    expected = run(silenced, x)
    shapes = {name: wanted.shape(name) for name in channels.layers}
    cut(net, wanted)
    assert {name: tuple(entry.module.weight.shape) for name, entry in channels.layers.items()} == shapes
    torch.testing.assert_close(run(net, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_keeps_its_heads_and_what_is_left_to_cut_is_cut(name):
    net, x = zoo(name)
    channels = find(net, x)
    held = [name for name, reason in channels.reasons.items() if "split by reshape()" in reason]
    assert any("attn" in name for name in held)
    wanted, silenced = half(channels), copy.deepcopy(net)
    silence(half(find(silenced, x)))
    expected, before = run(silenced, x), sum(p.numel() for p in net.parameters())
    cut(net, wanted)
    assert sum(p.numel() for p in net.parameters()) < before
    torch.testing.assert_close(run(net, x), expected, rtol=1e-4, atol=1e-5)


def test_channels_that_meet_in_a_sum_go_together():
    net, x = zoo("residual")
    channels = find(net, x)
    (together,) = channels.bundles()  # the grouped convolution reads the sum in groups of two channels, and ties them
    assert set(together.layers) == {"first", "depthwise", "second", "grouped"}
    assert len(together.groups) == 4
    assert torch.equal(channels.layers["first"].outputs, channels.layers["second"].outputs)
    assert torch.equal(channels.layers["first"].outputs, channels.layers["depthwise"].inputs)


def test_groups_of_a_grouped_convolution_go_as_a_whole():
    net, x = zoo("residual")
    channels = find(net, x)
    cut(net, Cut(channels, frozenset(channels.layers["grouped"].outputs[:1].tolist())))
    assert (net.grouped.groups, net.grouped.in_channels, net.grouped.out_channels) == (3, 6, 9)
    assert (net.depthwise.groups, net.first.out_channels, net.norm.num_features) == (6, 6, 6)
    assert net.scale.gain.shape == (6, 1, 1)
    assert net.head.in_features == 9 * 4


def test_input_and_output_are_left_alone():
    net, x = zoo("sequential")
    channels = find(net, x)
    assert channels.layers["0"].inputs.tolist() == [FIXED, FIXED]
    assert channels.layers["11"].outputs.tolist() == [FIXED] * 4
    assert channels.why_fixed(["0"]) == ""
    assert channels.why_fixed(["0", "11"]) == "'11': it is the network's output"


class Mixing(nn.Module):
    """What is done to the output of a convolution is up to the caller."""

    def __init__(self, mix):
        super().__init__()
        self.conv = layer.Conv2d(2, 2, 3, padding=1, step_mode="m")
        self.gain = nn.Parameter(torch.rand(2, 1, 1))
        self.mix = mix
        self.head = layer.Linear(2 * 36, 3, step_mode="m")

    def forward(self, x):
        return self.head(self.mix(self, self.conv(x), x).flatten(2))


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        (lambda net, y, x: y.softmax(2), r"it reaches softmax\(\)"),
        (lambda net, y, x: y + x, "add.*tensor of another origin"),
        (lambda net, y, x: y * net.gain, r"mul.*tensor of another origin"),
        (lambda net, y, x: y.mean(2, keepdim=True).expand_as(y), r"mean\(\) together with other channels"),
        (lambda net, y, x: torch.cumsum(y, 0), r"it reaches cumsum\(\)"),
    ],
    ids=["softmax", "input", "gain", "mean", "cumsum"],
)
def test_what_mixes_channels_holds_them_and_says_so(mix, reason):
    net = Mixing(mix)
    channels = find(net, torch.rand(T, BATCH, 2, 6, 6))
    assert channels.bundles() == []
    assert re.match(f"'conv': .*{reason}", channels.why_fixed(["conv"]))


def test_channels_are_followed_wherever_reshapes_bring_them():
    torch.manual_seed(0)
    rolled = lambda net, y, x: torch.cat([y.transpose(2, 4)[..., 1:, :], y.transpose(2, 4)[..., :1, :]], 3)  # noqa: E731
    net = Mixing(rolled)
    x = torch.rand(T, BATCH, 2, 6, 6)
    channels = find(net, x)
    wanted = Cut(channels, frozenset(channels.layers["conv"].outputs[:1].tolist()))
    silenced = copy.deepcopy(net)
    silence(Cut(find(silenced, x), wanted.groups))
    expected = run(silenced, x)
    cut(net, wanted)
    assert net.head.in_features == 36
    torch.testing.assert_close(run(net, x), expected)


def test_a_layer_is_never_emptied_and_nothing_is_changed_then():
    net, x = zoo("sequential")
    channels = find(net, x)
    before = copy.deepcopy(net.state_dict())
    for groups, message in [
        (frozenset(channels.layers["3"].outputs.tolist()), "'3' would lose all of its 8 outputs"),
        (frozenset({FIXED}), "cannot be cut"),
    ]:
        with pytest.raises(LayerError, match=message):
            cut(net, Cut(channels, groups))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_optimizers_keep_hold_and_their_state_is_cut_alike(kind):
    net, x = zoo("sequential")
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(net.parameters(), lr=0.1, **options)
    net(x).square().sum().backward()
    optimizer.step()
    functional.reset_net(net)
    wanted = half(find(net, x))
    kept = wanted.kept(wanted.channels.layers["0"].outputs)
    parameters, name = list(net.parameters()), "momentum_buffer" if kind is torch.optim.SGD else "exp_avg"
    expected = optimizer.state[net[0].weight][name][kept].clone()
    cut(net, wanted, [optimizer])
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert torch.equal(optimizer.state[net[0].weight][name], expected)
    net(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", SMALL)
def test_the_state_of_a_cut_network_loads_into_a_whole_one(name):
    net, x = zoo(name)
    whole = copy.deepcopy(net)
    cut(net, half(find(net, x)))
    adopt_widths(whole, net.state_dict())
    whole.load_state_dict(net.state_dict())
    assert torch.equal(run(whole, x), run(net, x))
    assert str(whole) == str(net)


def test_shapes_can_be_set_back():
    net, x = zoo("residual")
    whole, shapes = str(net), {name: value.shape for name, value in net.state_dict().items()}
    state = copy.deepcopy(net.state_dict())
    expected = run(net, x)
    cut(net, half(find(net, x)))
    set_shapes(net, shapes)
    net.load_state_dict(state)
    assert str(net) == whole
    assert torch.equal(run(net, x), expected)


def test_adopting_widths_leaves_a_foreign_state_to_be_refused():
    net, _ = zoo("sequential")
    wider = {name: value.repeat_interleave(2, 0) if value.ndim else value for name, value in net.state_dict().items()}
    adopt_widths(net, wider)
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict(wider)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.3, 0.25])
def test_a_budget_of_weights_is_met_by_the_largest_network_of_the_order(share):
    net, x = zoo("residual")
    channels = find(net, x)
    total = sum(entry.module.weight.numel() for entry in channels.layers.values())
    order = removal_order(channels.bundles(), {g: g for bundle in channels.bundles() for g in bundle.groups.tolist()})
    found = cut_to(channels, order, channels.layers, share)
    cheapest = [n for n in range(len(order) + 1) if _weights(channels, order[:n]) <= share * total]
    assert found.groups == frozenset(order[: cheapest[0]])
    cut(net, found)
    assert sum(entry.module.weight.numel() for entry in channels.layers.values()) == _weights_of(found)


def _weights(channels, groups):
    return Cut(channels, frozenset(groups)).weights(channels.layers)


def _weights_of(found):
    return sum(entry.module.weight.numel() for entry in found.channels.layers.values())


def test_a_budget_below_one_channel_a_layer_is_refused():
    net, x = zoo("sequential")
    channels = find(net, x)
    order = removal_order(channels.bundles(), {g: g for bundle in channels.bundles() for g in bundle.groups.tolist()})
    with pytest.raises(
        BudgetError, match="density is 0.001: 4.42% of the weights .*narrowed .'11': it is the network's"
    ):
        cut_to(channels, order, channels.layers, 0.001)
    assert len(order) == 6 + 8 + 7 - 3


def test_neurons_forget_and_the_plan_names_what_is_left():
    net, x = zoo("sequential")
    wanted = half(find(net, x))
    plan = wanted.plan()
    net(x)  # neurons hold states of the old widths
    cut(net, wanted)
    assert run(net, x).shape == (T, BATCH, 4)
    assert len(plan["3"]["outputs"]) == net[3].out_channels
    assert len(plan["7"]["inputs"]) == net[7].in_features == 4 * net[3].out_channels
