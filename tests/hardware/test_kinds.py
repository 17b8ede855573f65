"""Accumulate or multiply-accumulate: what the layer received decides."""

import inspect
import json
import math
import operator

import pytest
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from hardware import CostReport, profile
from hardware.synops import ValueRange, examine
from tests.hardware import brute_force
from tests.hardware.networks import Alone, cost_of, loader, sparsify, spikes


def linear():
    return sparsify(nn.Linear(20, 6))


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (spikes(8, 20), "spikes"),
        (spikes(8, 20) - spikes(8, 20), "ternary"),
        (torch.randint(0, 5, (8, 20)).float(), "graded"),
        (torch.randint(-4, 5, (8, 20)).float(), "graded"),
        (0.7 * spikes(8, 20), "scaled"),
        (0.7 * (spikes(8, 20) - spikes(8, 20)), "scaled"),
        (3.0 * spikes(8, 20), "scaled"),
        (torch.rand(8, 20), "real"),
        (torch.zeros(8, 20), "silent"),
        (spikes(8, 20) * 1e-30, "scaled"),
        (spikes(8, 20) * (1 - 2**-24), "scaled"),
        (spikes(8, 20, rate=0.9) * (1 + 2**-23 * spikes(8, 20)), "real"),
        (spikes(8, 20, rate=0.9) * (1 + 1e30 * spikes(8, 20)), "real"),
        (spikes(8, 20, rate=0.9) / (1 - spikes(8, 20)), "real"),  # with infinities and NaN
    ],
)
def test_kind_and_count(x, kind):
    module = linear()
    cost = cost_of(module, x)
    pairs = brute_force.count_linear(x.numpy(), module.weight.detach().numpy()).sum()
    assert cost.inputs == kind
    assert (cost.ac, cost.mac) == ((0, pairs) if kind == "real" else (pairs, 0))
    assert cost.input_events == int((x != 0).sum())


def test_graded_events_are_counted_by_event_and_by_value():
    module, x = linear(), torch.randint(-3, 4, (8, 20)).float()
    cost = cost_of(module, x)
    present = (module.weight != 0).float()
    assert cost.ac_by_value == int((x.abs() @ present.t()).sum())
    assert cost.ac == int(((x != 0).float() @ present.t()).sum())


def test_the_kind_belongs_to_the_whole_test_set():
    module, x = linear(), torch.cat([spikes(4, 20), torch.rand(4, 20)])
    report = profile(Alone(module), loader(x, 4))
    assert report.layers[0].inputs == "real"
    assert report.ac == 0


def test_average_pooling_and_batch_norm_make_multiplications():
    conv = sparsify(nn.Conv2d(2, 3, 3))
    x = spikes(4, 2, 8, 8)
    for between in (nn.AvgPool2d(2), nn.BatchNorm2d(2)):
        if isinstance(between, nn.BatchNorm2d):
            between.running_mean.fill_(0.3)
        cost = profile(nn.Sequential(between, conv), loader(x)).layers[0]
        assert (cost.inputs, cost.ac) == ("real", 0)
        assert cost.mac > 0
    assert profile(nn.Sequential(nn.MaxPool2d(2), conv), loader(x)).layers[0].inputs == "spikes"


def test_sums_of_residual_blocks_are_graded_events_not_silence():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = linear()

        def forward(self, x):
            return self.conv(x + x.flip(0))

    x, block = spikes(8, 20, rate=0.6), Block()
    report = profile(block, loader(x))
    both = x + x.flip(0)
    assert report.layers[0].inputs == "graded"
    pairs = brute_force.count_linear(both.numpy(), block.conv.weight.detach().numpy())
    assert report.ac == pairs.sum()
    assert report.layers[0].input_events == int((both != 0).sum())
    (addition,) = report.others
    assert (addition.kind, addition.operations) == ("addition", int((x * x.flip(0)).sum()))


def test_spike_times_spike_attention_is_accumulation():
    class Attention(nn.Module):
        def forward(self, x):  # [B, heads, N, d]
            return x @ x.transpose(-2, -1) @ x

    x = spikes(3, 2, 4, 5)
    scores = x @ x.transpose(-2, -1)
    report = profile(Attention(), loader(x))
    first, second = report.layers
    assert first.ac == int(torch.einsum("bhnd,bhmd->", x, x))
    assert second.ac == int(torch.einsum("bhnm,bhmd->", (scores != 0).float(), x))
    assert first.sample_max == int(torch.einsum("bhnd,bhmd->b", x, x).max())
    assert (report.mac, first.weights, report.weight_bits) == (0, 0, 0)
    assert first.dense == 3 * 2 * 4 * 4 * 5


def test_attention_of_real_values_is_multiplication_unless_one_side_spikes():
    class Meeting(nn.Module):
        def __init__(self, right):
            super().__init__()
            self.right = right

        def forward(self, x):
            return torch.bmm(x, self.right)

    x, real = spikes(3, 4, 5), torch.rand(3, 5, 2)
    assert profile(Meeting(real), loader(x)).layers[0].inputs == "spikes"
    assert profile(Meeting(real), loader(x)).ac == int(x.sum()) * 2
    both = profile(Meeting(real), loader(torch.rand(3, 4, 5)))
    assert (both.ac, both.mac) == (0, 3 * 4 * 5 * 2)


def test_what_cannot_be_counted_is_named():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x):
            return self.memory(x)[0]

    assert profile(Recurrent(), loader(spikes(2, 5, 4))).uncounted == ("memory: lstm",)


def test_values_merge_like_one_stream():
    a, b = torch.randint(-2, 3, (2, 9)).float(), torch.rand(2, 9)
    for one, other in [(a, b), (a, a.abs()), (a.clamp(0, 1), a.clamp(0, 1) * 0.5)]:
        merged, whole = examine(one).values | examine(other).values, examine(torch.cat([one, other])).values
        assert (merged.kind, merged.largest, merged.bits) == (whole.kind, whole.largest, whole.bits)
    assert ValueRange() | examine(a).values == examine(a).values
    assert (ValueRange().kind, ValueRange().smallest) == ("silent", math.inf)


def test_neurons_and_their_state():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = neuron.LIFNode(v_threshold=0.5, step_mode="m")

        def forward(self, x):
            return self.lif(x.transpose(0, 1))

    x = torch.rand(4, 6, 3, 2)  # [B, T, ...]
    (cost,) = profile(Net(), loader(x), state_bits=16).neurons
    lif = neuron.LIFNode(v_threshold=0.5, step_mode="m")
    with torch.inference_mode():
        fired = lif(x.transpose(0, 1))
    assert (cost.neurons, cost.states, cost.state_bits) == (6, 1, 96)
    assert (cost.updates, cost.spikes) == (4 * 6 * 6, int(fired.sum()))
    assert cost.firing_rate == pytest.approx(float(fired.mean()))


def test_additions_inside_a_neuron_are_its_update():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = neuron.LIFNode()

        def forward(self, x):
            return self.lif(x)

    assert profile(Net(), loader(torch.rand(4, 6))).others == ()


def test_batch_norm_folds_into_the_layer_before_it():
    body = nn.Sequential(layer.Conv2d(2, 3, 3, bias=False), layer.BatchNorm2d(3))
    folded = profile(body, loader(spikes(2, 2, 6, 6)))
    assert folded.layers[0].bias_bits == 3 * 32
    assert folded.others[0].parameter_bits == 0
    alone = profile(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, bias=False)), loader(spikes(2, 2, 6, 6)))
    assert alone.others[0].parameter_bits == 2 * 2 * 32
    assert alone.stored_bits == alone.layers[0].stored_bits + 128


def test_report_survives_json():
    report = profile(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.AvgPool2d(2)), loader(spikes(2, 2, 6, 6)))
    again = CostReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert isinstance(again.layers[0].ac, int)
    with pytest.raises(ValueError, match="schema"):
        CostReport.from_dict({**report.to_dict(), "schema": 99})


CHANGES = {
    "mul_": lambda spikes, ramp: spikes.mul_(ramp),
    "*=": operator.imul,
    "out": lambda spikes, ramp: torch.mul(spikes, ramp, out=spikes),
    "[...] =": lambda spikes, ramp: operator.setitem(spikes, slice(None), ramp.expand_as(spikes)),
    "data": lambda spikes, ramp: setattr(spikes, "data", spikes * ramp),
    "inplace": lambda spikes, _ramp: nn.functional.silu(spikes, inplace=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_spikes_changed_in_place_are_looked_at_again(change):
    """What a neuron sent out is known to be spikes, until somebody writes where they lie."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = neuron.IFNode(step_mode="m")
            self.layer = nn.Linear(4, 3, bias=False)

        def forward(self, x):
            spikes = self.neuron(x.transpose(0, 1))
            CHANGES[change](spikes, torch.arange(4.0) + 0.25)
            return self.layer(spikes).mean(0)

    net = Scaled()
    report = profile(net, [(2 * torch.ones(2, 5, 4), torch.zeros(2))])
    assert report.neurons[0].spikes == 2 * 5 * 4
    assert report.layers[0].inputs == ("scaled" if change == "inplace" else "real")
    assert report.ac + report.mac == 2 * 5 * 4 * 3


class Feeding(nn.Module):
    """A neuron that feeds a linear layer of full weights: x [B, T, 5]."""

    def __init__(self, node, step_mode="m"):
        super().__init__()
        self.neuron, self.layer, self.sent = node, nn.Linear(5, 3, bias=False), []
        node.step_mode = step_mode

    def forward(self, x):
        steps = [x.transpose(0, 1)] if self.neuron.step_mode == "m" else x.unbind(1)
        self.sent = [self.neuron(step) for step in steps]
        return sum(self.layer(one) for one in self.sent)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize(
    "name",
    ["IFNode", "LIFNode", "ParametricLIFNode", "KLIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "CUBALIFNode",
     "ILIFNode", "TernaryIFNode", "TernaryLIFNode"],
)  # fmt: skip
def test_what_neurons_send_is_counted_whatever_it_is(name, step_mode):
    net = Feeding(getattr(neuron, name)(), step_mode)
    report = profile(net, [(3 * torch.randn(4, 6, 5), torch.zeros(4))])
    sent = torch.stack(net.sent)
    events = int((sent != 0).sum())
    assert events > 0
    assert (report.neurons[0].spikes, report.ac) == (events, 3 * events)
    assert report.layers[0].ac_by_value == 3 * int(sent.abs().sum())
    assert report.layers[0].inputs == examine(sent).values.kind


STEPS = [step for step in vars(surrogate).values() if isinstance(step, type) and issubclass(step, nn.Module)]
NO_STEPS = (surrogate.SurrogateFunctionBase, surrogate.PoissonPass)  # abstract; takes probabilities, not potentials


@pytest.mark.parametrize("step", [step for step in STEPS if step not in NO_STEPS], ids=lambda step: step.__name__)
@pytest.mark.parametrize("node", [neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode])
def test_a_neuron_is_counted_right_with_every_step_function(node, step):
    arguments = {"max_spike_count": 4} if "max_spike_count" in inspect.signature(step).parameters else {}
    net = Feeding(node(surrogate_function=step(**arguments)))
    report = profile(net, [(3 * torch.randn(4, 6, 5), torch.zeros(4))])
    assert report.neurons[0].spikes == int((net.sent[0] != 0).sum()) > 0
    assert report.layers[0].inputs == examine(net.sent[0]).values.kind


@pytest.mark.parametrize("first", [True, False], ids=["hooked before", "hooked while counting"])
def test_a_hook_that_changes_spikes_is_seen(first):
    net = Feeding(neuron.IFNode())
    halve = lambda _module, _inputs, output: output * 0.5 * torch.arange(1.0, 6.0)  # noqa: E731
    if first:
        net.neuron.register_forward_hook(halve)
    else:
        net.register_forward_pre_hook(lambda module, _inputs: module.neuron.register_forward_hook(halve) and None)
    report = profile(net, [(torch.ones(2, 4, 5), torch.zeros(2))])
    assert (report.layers[0].inputs, report.mac) == ("real", 2 * 4 * 5 * 3)


def test_a_step_shown_again_is_not_taken_for_all_steps():
    """The first of three steps, repeated, starts where all three start and has as many entries."""

    class Repeating(Feeding):
        def forward(self, x):
            sent = self.neuron(x.transpose(0, 1))
            return self.layer(sent[:1].expand(3, -1, -1))

    net = Repeating(neuron.IFNode())
    x = torch.zeros(1, 3, 5)
    x[:, 1:] = 2  # silent at first
    report = profile(net, [(x, torch.zeros(1))])
    assert (report.neurons[0].spikes, report.ac, report.layers[0].inputs) == (10, 0, "silent")
