"""Convolutions of spikes give the bits of torch's own without its zeros, and know what they must leave alone."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron
from torch import nn

from benchmark.networks.inference import spikes
from benchmark.networks.inference.forward import compiled
from hardware.trace import Tracer

ENTRIES = 2**16
three = st.integers(1, 3)


def spiking(*shape, density=0.1):
    return (torch.rand(*shape) < density).float()


@st.composite
def convolutions(draw):
    """An activation of spikes, weights, perhaps a bias, stride and padding."""
    inputs, outputs = draw(st.sampled_from([1, 7, 16, 33, 64])), draw(st.sampled_from([1, 16, 40, 64, 130]))
    kernel = draw(st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([3, 5])))
    size = draw(st.tuples(st.integers(5, 20), st.integers(5, 20)))
    padding = tuple(draw(st.integers(0, extent // 2)) for extent in kernel)
    torch.manual_seed(draw(st.integers(0, 2**16)))
    x = spiking(
        -(-ENTRIES // (inputs * size[0] * size[1])), inputs, *size, density=draw(st.sampled_from([0, 0.1, 0.9]))
    )
    bias = torch.randn(outputs) if draw(st.booleans()) else None
    return x, torch.randn(outputs, inputs, *kernel), bias, draw(st.tuples(three, three)), padding


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.sampled_from(spikes.ORDERS))
def test_sums_are_those_of_a_convolution_in_any_order(case, order):
    x, weight, bias, stride, padding = case
    found = spikes.convolve(spikes.encode(x, padding, order.channels), weight, bias, stride, order)
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), stride, padding)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_sums_are_the_bits_of_torch(case):
    x, weight, bias, stride, padding = case
    order = spikes.torchs_order()
    if order is None:
        pytest.skip("torch's convolution has an order of its own on this processor")
    found = spikes.convolve(spikes.encode(x, padding, order.channels), weight, bias, stride, order)
    assert torch.equal(found, F.conv2d(x, weight, bias, stride, padding))


@pytest.mark.parametrize(
    ("instructions", "implementation", "order"),
    [("AVX512_CORE", "jit:avx512_core", spikes.ORDERS[0]), ("AVX2", "jit:avx2", spikes.ORDERS[1])],
)
def test_the_order_is_found_for_what_the_processor_can_do(instructions, implementation, order):
    words = [
        sys.executable,
        "-c",
        "from benchmark.networks.inference.spikes import torchs_order; print(torchs_order())",
    ]
    told = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions, "ONEDNN_VERBOSE": "1"}
    done = subprocess.run(words, env=told, capture_output=True, text=True, check=True)
    *log, found = done.stdout.splitlines()
    (used,) = {line.split(",")[6] for line in log if ",exec,cpu,convolution," in line} or {"none of oneDNN's"}
    if used != implementation:
        pytest.skip(f"convolutions are {used} here")
    assert found == str(order)


def test_another_order_has_other_bits():
    """So that the example cannot take one for the other."""
    x, weight = spiking(16, 48, 11, 13, density=0.3), torch.randn(80, 48, 3, 3)
    one, other = (
        spikes.convolve(spikes.encode(x, (1, 1), order.channels), weight, None, (1, 1), order)
        for order in spikes.ORDERS
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("value", [2.0, 0.5, -1.0, float("nan"), float("inf"), 1.0000001, 1e-40])
def test_what_is_no_spike_is_found_wherever_it_is(value):
    x = spiking(3, 20, 6, 7)
    assert spikes.encode(x, (1, 1), 16) is not None
    x[2, 17, 5, 3] = value
    assert spikes.encode(x, (1, 1), 16) is None
    assert spikes.encode(x, (1, 1), 8) is None


def test_only_few_spikes_are_worth_it(monkeypatch):
    monkeypatch.setattr(spikes, "torchs_order", lambda: spikes.ORDERS[0])
    weight = torch.randn(64, 32, 3, 3)

    def taken(x, weight=weight):
        return spikes.conv2d(x, weight, None, (1, 1), (1, 1)) is not None

    assert taken(spiking(16, 32, 12, 12))
    assert not taken(spiking(16, 32, 12, 12, density=0.3))
    assert not taken(spiking(16, 32, 12, 12) * 2)
    assert not taken(spiking(2, 32, 12, 12)), "torch adds up small inputs in another order"
    assert not taken(spiking(16, 32, 12, 12), torch.randn(32, 32, 3, 3)), "few outputs"
    assert not taken(spiking(400, 32, 12, 2)), "a kernel wider than its input"
    assert not taken(spiking(16, 32, 12, 12).transpose(2, 3))
    assert not taken(spiking(32, 120, 12)), "one image without its batch"
    assert not taken(spiking(16, 31, 12, 12)), "torch tells of the channels"
    assert not taken(spiking(16, 32, 12, 12), weight.clone().index_fill_(0, torch.tensor(3), torch.inf))
    assert not taken(spiking(16, 32, 12, 12), weight.clone().index_fill_(0, torch.tensor(3), torch.nan))
    monkeypatch.setattr(spikes, "torchs_order", lambda: None)
    assert not taken(spiking(16, 32, 12, 12))


def network(*convolution, **options):
    """A convolution of what a neuron fires, for a neuron that fires often."""
    fires, fires_often = neuron.IFNode(step_mode="m"), neuron.LIFNode(v_threshold=0.02, step_mode="m")
    return nn.Sequential(fires, layer.Conv2d(*convolution, step_mode="m", **options), fires_often).eval()


def currents(*shape):
    """Of which a tenth makes a neuron fire in the first of two steps, and again a tenth in the second."""
    return torch.rand(2, *shape) * 0.8 + 0.3 * (torch.rand(2, *shape) < 0.12)


TAKEN = [{}, {"bias": False}, {"stride": 2}]
LEFT_ALONE = [{"dilation": 2}, {"groups": 2}, {"padding": "same"}, {"padding_mode": "circular"}]


@pytest.mark.parametrize("options", [*TAKEN, *LEFT_ALONE])
def test_networks_compute_what_they_did(options, monkeypatch):
    taken, conv2d = [], spikes.conv2d
    monkeypatch.setattr(spikes, "conv2d", lambda *args: taken.append(conv2d(*args)) or taken[-1])
    torch.manual_seed(0)
    net, x = network(32, 64, 3, **({"padding": 1} | options)), currents(16, 32, 12, 12)
    with torch.no_grad():
        expected = net(x)
        net[0].reset(), net[2].reset()
        with compiled(net):
            found = net(x)
    assert 0 < expected.mean() < 1
    assert torch.equal(found, expected)
    assert len(taken) == (options in TAKEN)
    assert all((sums is not None) == (spikes.torchs_order() is not None) for sums in taken)


@pytest.mark.parametrize(("value", "taken"), [("0", False), ("1", True), (None, True)])
def test_a_switch_turns_it_off(value, taken, monkeypatch):
    monkeypatch.setattr(spikes, "torchs_order", lambda: spikes.ORDERS[0])
    monkeypatch.delenv("SNNBENCH_SPIKE_CONVOLUTION", raising=False)
    if value is not None:
        monkeypatch.setenv("SNNBENCH_SPIKE_CONVOLUTION", value)
    x, weight = spiking(16, 32, 12, 12), torch.randn(64, 32, 3, 3)
    assert (spikes.conv2d(x, weight, None, (1, 1), (1, 1)) is not None) == taken


@pytest.mark.parametrize("learns", [True, False])
def test_zeros_are_left_out_in_a_network_and_gradients_are_torchs(monkeypatch, learns):
    taken = []
    convolve = spikes.conv2d
    monkeypatch.setattr(spikes, "conv2d", lambda *args: taken.append(args[0].mean()) or convolve(*args))
    net, x = network(32, 64, 3, padding=1), currents(16, 32, 12, 12)
    gradients = []
    with torch.set_grad_enabled(learns):
        for context in (compiled(net), compiled(nn.Identity())):
            with context:
                result = net(x)
            net[0].reset(), net[2].reset()
            gradients.append(torch.autograd.grad(result.sum(), list(net.parameters())) if learns else ())
    (density,) = taken
    assert 0 < density < 0.2
    assert all(gradient.any() for gradient in gradients[0])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert "_conv_forward" not in vars(net[1])


def test_who_counts_sees_the_convolution_and_it_is_compiled_all_the_same(monkeypatch):
    made = []
    convolve = spikes.convolve
    monkeypatch.setattr(spikes, "convolve", lambda *args: made.append(args) or convolve(*args))
    monkeypatch.setattr(spikes, "torchs_order", lambda: spikes.ORDERS[0])
    net, x = network(32, 64, 3, padding=1), currents(16, 32, 12, 12)
    layers = []
    for context in (compiled(net), compiled(nn.Identity())):
        tracer = Tracer(net)
        tracer.attach()
        with torch.no_grad(), context, tracer.batch(16):
            net(x)
        tracer.detach()
        net[0].reset(), net[2].reset()
        layers.append(tracer.tally.layers)
    assert len(made) == 1
    assert layers[0]["1"].input_events > 0
    assert layers[0] == layers[1]
