"""Every neuron that SpikingJelly has: counter, compressors and NIR take it for the same thing, or say its name."""

import inspect
from math import prod

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from benchmark.networks.nir.reading import NIRError
from benchmark.networks.nir.writing import CONVERTERS, to_nir
from compressors.channels.tracing import find_channels
from compressors.network.layers import LayerError, find_layers
from compressors.network.neurons import impulse_response
from hardware import profile
from hardware.neurons import is_neuron, is_unknown_neuron

T, B, N = 4, 3, 6
CLASSES = {
    name: kind for name, kind in vars(neuron).items() if inspect.isclass(kind) and issubclass(kind, nn.Module)
}  # whatever the installed version has


def few_spikes(steps=T):
    return neuron.FewSpikeTable([1.0] * steps, [0.5] * steps, [1.0] * steps)


def noisy(kind, **arguments):
    """Its noise is drawn before, for a number of samples."""
    node = kind(T=T, **arguments)
    node.reset_noise(B)
    return node


def leaky(x, v):
    v = 0.5 * v + x
    return (v >= 1).float(), v


# What cannot be made without arguments, and which: sizes of the network and its time, a table, a rule.
MAKE = {
    "SimpleLIFNode": lambda kind: kind(tau=2.0, decay_input=True),
    "LIAFNode": lambda kind: kind(act=torch.relu, threshold_related=False),
    "STBIFNode": lambda kind: kind(q_threshold=1.0, level=8),
    "FlexSN": lambda kind: kind(core=leaky, num_states=1),
    "PSN": lambda kind: kind(T=T),
    "MaskedPSN": lambda kind: kind(k=2, T=T, lambda_init=1.0),  # without which single steps are refused
    "SlidingPSN": lambda kind: kind(k=2),
    "GatedLIFNode": lambda kind: kind(T=T, inplane=N),  # parameters of each channel: needs images
    "FewSpikeNode": lambda kind: kind(few_spikes()),
    "HGNode": lambda kind: kind([few_spikes(), few_spikes()], [0.5]),
    "OutlierAwareThresholdNode": lambda kind: kind(few_spikes(), few_spikes(), 1.0),
    **dict.fromkeys(("DSRIFNode", "DSRLIFNode"), lambda kind: kind(T=T)),
    **dict.fromkeys(("MPBNBaseNode", "MPBNLIFNode"), lambda kind: kind(out_features=N)),
    **dict.fromkeys(
        ("ILCBaseNode", "ILCIFNode", "ILCLIFNode", "ILCCUBALIFNode"), lambda kind: kind(act_dim=2, dec_pop_dim=N // 2)
    ),
    **dict.fromkeys(
        ("NoisyILCBaseNode", "NoisyILCCUBALIFNode"), lambda kind: noisy(kind, act_dim=2, dec_pop_dim=N // 2)
    ),
    **dict.fromkeys(
        ("NoisyBaseNode", "NoisyCUBALIFNode", "NoisyNonSpikingBaseNode", "NoisyNonSpikingIFNode"),
        lambda kind: noisy(kind, num_node=N),
    ),
}

STATES = {"IzhikevichNode": 2, "RAFNode": 2, "ComplementaryLIFNode": 2, "CUBALIFNode": 2, "GatedLIFNode": 2}  # else one
HIDDEN_STATE = {"DSRIFNode", "DSRLIFNode"}  # computes all steps at once
ABSTRACT = {
    *("BaseNode", "SimpleBaseNode", "AdaptBaseNode", "NonSpikingBaseNode", "ILCBaseNode"),
    *("NoisyBaseNode", "NoisyILCBaseNode", "NoisyNonSpikingBaseNode", "MPBNBaseNode"),
}
BROKEN = {  # SpikingJelly's own forward pass fails, though the class claims the step mode
    ("OTTTLIFNode", "m"),
    *(("DSRIFNode", "s"), ("DSRLIFNode", "s"), ("GatedLIFNode", "s")),
}


class Net(nn.Module):
    """A layer, a neuron, and a layer: x [B, T, N] or [B, T, N, 1, 1]."""

    def __init__(self, name, step_mode):
        super().__init__()
        torch.manual_seed(0)
        self.shape = (N, 1, 1) if name == "GatedLIFNode" else (N,)
        make = layer.Linear if len(self.shape) == 1 else lambda *sizes, **options: layer.Conv2d(*sizes, 1, **options)
        self.first, self.last = make(N, N, step_mode=step_mode), make(N, N, step_mode=step_mode)
        self.node = MAKE.get(name, lambda kind: kind())(CLASSES[name])
        self.node.step_mode, self.step_mode, self.sent = step_mode, step_mode, []
        with torch.no_grad():
            self.first.weight.mul_(8)
        self.eval()

    def forward(self, x):
        steps = [x.transpose(0, 1)] if self.step_mode == "m" else x.unbind(1)
        self.sent = [self.node(self.first(step)) for step in steps]
        return [self.last(sent) for sent in self.sent if isinstance(sent, torch.Tensor)]

    def inputs(self):
        return torch.rand(B, T, *self.shape, generator=torch.Generator().manual_seed(0))


def cases(skip=()):
    for name, kind in CLASSES.items():
        for mode in MAKE.get(name, lambda kind: kind())(kind).supported_step_mode():
            if name not in skip and (name, mode) not in skip:
                yield pytest.param(name, mode, id=f"{name}-{mode}")


WORKING = list(cases({*ABSTRACT, *BROKEN}))
MULTI_STEP = [case for case in WORKING if case.values[1] == "m"]


def test_those_left_out_do_not_run():
    for name, mode in [*((name, "m") for name in ABSTRACT), *BROKEN]:
        net = Net(name, mode)
        with pytest.raises((NotImplementedError, ValueError)), torch.no_grad():
            net(net.inputs())


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_a_neuron_of_one_kind(name):
    node = Net(name, "m").node
    assert is_neuron(node) != is_unknown_neuron(node)


@pytest.mark.parametrize(
    "name", ["IFNode", "LIFNode", "ParametricLIFNode", "CUBALIFNode", "SimpleIFNode", "SimpleLIFNode", "DSRIFNode"]
)
def test_the_usual_neurons_are_known(name):
    assert is_neuron(Net(name, "m").node)


@pytest.mark.parametrize(("name", "mode"), WORKING)
def test_neurons_state_and_spikes_are_counted_or_the_neuron_is_named(name, mode):
    net = Net(name, mode)
    report = profile(net, [(net.inputs(), torch.zeros(B))])
    if not is_neuron(net.node):
        assert report.neurons == ()
        assert f"node: neuron {name}" in report.uncounted
        return
    (cost,) = report.neurons
    sent = torch.stack(net.sent)
    assert (cost.name, cost.kind, cost.neurons) == ("node", name, prod(net.shape))
    assert (cost.updates, cost.spikes) == (B * T * prod(net.shape), int((sent != 0).sum()))
    assert cost.spikes > 0 or name in HIDDEN_STATE  # whose thresholds depend on all steps
    hidden = (f"node: state of {name}",)
    assert (cost.states, report.uncounted) == ((0, hidden) if name in HIDDEN_STATE else (STATES.get(name, 1), ()))


@pytest.mark.parametrize(("name", "mode"), MULTI_STEP)
def test_compressors_find_the_neurons_that_are_counted(name, mode):
    net = Net(name, mode)
    first = find_layers(net, lambda: net(net.inputs()))[0]
    assert (first.name, first.neuron) == ("first", net.node if is_neuron(net.node) else None)
    channels = find_channels(net, lambda: net(net.inputs()))
    if is_neuron(net.node):
        assert channels.why_fixed(["first"]) == ""


@pytest.mark.parametrize(("name", "mode"), MULTI_STEP)
def test_a_response_is_measured_or_the_neuron_is_refused_by_name(name, mode):
    node = Net(name, mode).node
    names = ("v_threshold", "step_mode", "store_v_seq")
    before = [str(getattr(node, name, None)) for name in names]
    response, refusal = None, ""
    try:
        response = impulse_response(node, T)
    except LayerError as error:
        refusal = str(error)
    assert name in refusal if response is None else response.shape == (T,)
    assert [str(getattr(node, name, None)) for name in names] == before


@pytest.mark.parametrize(("name", "mode"), MULTI_STEP)
def test_a_neuron_is_written_to_nir_or_refused_by_name(name, mode):
    node = Net(name, mode).node
    net = nn.Sequential(layer.Linear(N, N, step_mode="m"), node)
    if type(node) in CONVERTERS:
        assert set(to_nir(net, (N,)).nodes) == {"input", "0", "1", "output"}
    else:
        with pytest.raises(NIRError, match=f"layer '1' is a {name}, which NIR does not have"):
            to_nir(net, (N,))


class Reset(nn.Module):
    """A neuron of an origin of its own: no memory of SpikingJelly's, but a threshold."""

    def __init__(self):
        super().__init__()
        self.v_threshold, self.v = 1.0, 0.0

    def forward(self, x):
        self.v = self.v + x
        fired = (self.v >= self.v_threshold).float()
        self.v = self.v - fired * self.v_threshold
        return fired


def test_neurons_of_other_origin_are_named_and_networks_with_thresholds_are_not():
    net = nn.Sequential(nn.Linear(N, N), Reset())
    assert "1: neuron Reset" in profile(net, [(torch.rand(B, N), torch.zeros(B))]).uncounted
    net = nn.Sequential(nn.Linear(N, N), neuron.IFNode())
    net.v_threshold, net.step = 1.0, neuron.IFNode().surrogate_function
    assert not is_unknown_neuron(net)
