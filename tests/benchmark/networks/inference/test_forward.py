"""Shorter forward passes give the same bits, leave the same state, and are seen by whoever watches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.inference import forward
from benchmark.networks.inference.forward import compiled, each_image_once
from benchmark.networks.zoo.resnet import resnet20, sew_resnet18
from benchmark.networks.zoo.transformers import spikformer
from benchmark.networks.zoo.vgg import vgg16
from compressors.network.layers import find_layers, hooks
from hardware.trace import Tracer

T = 4
SHAPE = (3, 32, 32)
NETWORKS = {
    "vgg16": lambda: vgg16(SHAPE, 5, width=8),
    "sew_resnet18": lambda: sew_resnet18(SHAPE, 5, width=8),
    "resnet20": lambda: resnet20(SHAPE, 5, width=8),
    "spikformer": lambda: spikformer(SHAPE, 5, width=32, depth=1, heads=2),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A network whose neurons fire down to the last layer."""
    torch.manual_seed(0)
    made = NETWORKS[request.param]()
    for norm in made.modules():
        if isinstance(norm, _BatchNorm):
            norm.momentum = None
    with torch.no_grad():
        made.train()
        made(torch.rand(T, 8, *SHAPE))
    functional.reset_net(made)
    return made.eval()


def every_step(network, images):
    """Scores, and each neuron's spikes and last potential, with nothing saved."""
    neurons = [module for module in network.modules() if isinstance(module, neuron.BaseNode)]
    spikes = []
    handles = [node.register_forward_hook(lambda node, args, out: spikes.append(out.clone())) for node in neurons]
    functional.reset_net(network)
    scores = network(images.repeat(T, 1, 1, 1, 1)).mean(0)
    for handle in handles:
        handle.remove()
    return scores, spikes, [node.v.clone() for node in neurons]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_scores_spikes_and_potentials_are_those_of_the_whole_pass(network, mode):
    images = torch.rand(3, *SHAPE)
    module = SNNClassifier(network, classes=5, timesteps=T).eval()
    neurons = [part for part in network.modules() if isinstance(part, neuron.BaseNode)]
    with mode():
        scores, spikes, potentials = every_step(network, images)
        seen = []
        for node in neurons:
            node.register_forward_hook(lambda node, args, out: seen.append(out.clone()))
        mine = module(images)
    assert any(spike.any() for spike in spikes[-3:])
    assert len(seen) == len(spikes)
    assert all(torch.equal(one, other) for one, other in zip(seen, spikes, strict=True))
    assert all(torch.equal(node.v, v) for node, v in zip(neurons, potentials, strict=True))
    assert torch.equal(mine, scores)


def test_gradients_are_those_of_the_whole_pass(network):
    images = torch.rand(2, *SHAPE)
    module = SNNClassifier(network, classes=5, timesteps=T).eval()
    weights = list(network.parameters())

    def gradients(scores):
        return torch.autograd.grad(scores.square().sum(), weights)

    whole = gradients(every_step(network, images)[0])
    short = gradients(module(images))
    assert all(gradient.any() for gradient in whole[-2:])
    for one, other in zip(short, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_first_layer_sees_an_image_once_and_the_second_every_step(network):
    module = SNNClassifier(network, classes=5, timesteps=T).eval()
    images, seen = torch.rand(2, *SHAPE), []
    layers = find_layers(module, lambda: module(images))
    with hooks([entry.module for entry in layers], lambda layer, x: seen.append(len(x[0])), before=True):
        module(images)
    assert seen[0] == 1
    assert set(seen[1:]) == {T}
    assert {entry.timesteps for entry in layers} == {T}  # statistics take the one step for all that repeat it
    assert layers[0].neuron is not None
    assert layers[0].norm is not None


def test_what_is_seen_once_is_counted_once_and_every_spike_is_counted(network):
    images = torch.rand(2, *SHAPE)
    module = SNNClassifier(network, classes=5, timesteps=T).eval()
    tracer = Tracer(network)
    tracer.attach()
    with torch.no_grad(), tracer.batch(2):
        module(images)
    tracer.detach()
    with torch.no_grad():
        _, spikes, _ = every_step(network, images)
    first = next(iter(tracer.tally.layers.values()))
    assert first.input_entries == images.numel()
    counted = [tally.spikes for tally in tracer.tally.neurons.values()]
    assert counted == [int(fired.sum()) for fired in spikes]


def test_nothing_is_left_behind(network):
    def state():
        return [(len(m._forward_hooks), len(m._forward_pre_hooks), set(vars(m))) for m in network.modules()]

    before = state()
    module = SNNClassifier(network, classes=5, timesteps=T).eval()
    with pytest.raises((RuntimeError, ValueError)):
        module(torch.rand(2, 1, 7, 7))  # not an image of this network
    module(torch.rand(2, *SHAPE))
    functional.reset_net(network)
    assert state() == before


thresholds = st.floats(0.05, 2)
resets = st.sampled_from([0.0, None, -0.25, 0.1])
steps = st.sampled_from([surrogate.ATan, surrogate.Sigmoid])


@given(
    st.floats(1.05, 50), st.booleans(), thresholds, resets, steps, st.integers(0, 2**16), st.sampled_from([1, 33, 9000])
)
@settings(max_examples=60, deadline=None)
def test_lif_neurons_compute_what_spikingjelly_computes(tau, decay_input, threshold, reset, step, seed, size):
    node = neuron.LIFNode(tau, decay_input, threshold, reset, step(), step_mode="m")
    assert_same_bits(node, seed, size)


@given(thresholds, resets, st.integers(0, 2**16), st.sampled_from([1, 33, 9000]))
@settings(max_examples=30, deadline=None)
def test_if_neurons_compute_what_spikingjelly_computes(threshold, reset, seed, size):
    assert_same_bits(neuron.IFNode(threshold, reset, step_mode="m"), seed, size)


def assert_same_bits(node, seed, size):
    """Two inputs after each other, the potential carried over, with infinite and undefined values among them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(T, 2, size, generator=generator) * 2 for _ in range(2)]
    inputs[1][1, 0, 0], inputs[1][2, 1, 0] = torch.inf, torch.nan
    net = nn.Sequential(node)
    with torch.no_grad():
        functional.reset_net(net)
        expected = [(net(x), node.v) for x in inputs]
        functional.reset_net(net)
        with compiled(net):
            found = [(net(x), node.v) for x in inputs]
    for (spikes, v), (spikes_found, v_found) in zip(expected, found, strict=True):
        assert torch.equal(spikes, spikes_found)
        torch.testing.assert_close(v_found, v, rtol=0, atol=0, equal_nan=True)
    assert expected[0][0].shape == (T, 2, size)


def spies():
    """Neurons and inputs that the compiled loop must leave to SpikingJelly."""
    x = torch.randn(T, 2, 3, 5)
    yield "stored", neuron.LIFNode(step_mode="m", store_v_seq=True), x
    yield "smooth", neuron.LIFNode(step_mode="m", surrogate_function=surrogate.ATan(spiking=False)), x
    yield "double", neuron.LIFNode(step_mode="m"), x.double()
    yield "half", neuron.IFNode(step_mode="m"), x.bfloat16()
    yield "parametric", neuron.ParametricLIFNode(step_mode="m"), x
    yield "transposed", neuron.LIFNode(step_mode="m"), x.transpose(2, 3)
    yield "single step", neuron.LIFNode(step_mode="s"), x


@pytest.mark.parametrize(("node", "x"), [pytest.param(node, x, id=name) for name, node, x in spies()])
def test_other_neurons_are_left_to_spikingjelly(node, x):
    net = nn.Sequential(node)
    with torch.no_grad():
        expected = net(x), node.v, node.v_seq
        functional.reset_net(net)
        with compiled(net):
            found = net(x), node.v, node.v_seq
    for one, other in zip(found, expected, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@given(st.data(), st.tuples(st.integers(3, 20), st.integers(3, 20)), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_maxima_are_those_of_torch(data, size, seed):
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = data.draw(st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    padding = data.draw(st.tuples(*(st.integers(0, side // 2) for side in kernel)))
    x = torch.randn(T, 2, 3, *size, generator=torch.Generator().manual_seed(seed))
    x[0, 0, 0, 1, 1], x[1, 1, 1, 2, 0], x[2, 0, 2] = torch.nan, torch.inf, -torch.inf
    net = nn.Sequential(layer.MaxPool2d(kernel, stride, padding, step_mode="m"))
    with torch.no_grad():
        expected = net(x)
        with compiled(net):
            found = net(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


OTHER_POOLS = {
    "dilated": (layer.MaxPool2d(2, dilation=2, step_mode="m"), torch.rand(T, 2, 3, 8, 8)),
    "rounded up": (layer.MaxPool2d(3, 2, ceil_mode=True, step_mode="m"), torch.rand(T, 2, 3, 8, 8)),
    "double": (layer.MaxPool2d(2, step_mode="m"), torch.rand(T, 2, 3, 8, 8).double()),
    "transposed": (layer.MaxPool2d(2, step_mode="m"), torch.rand(T, 2, 3, 8, 8).transpose(3, 4)),
    "single step": (layer.MaxPool2d(2, step_mode="s"), torch.rand(2, 3, 8, 8)),
}


@pytest.mark.parametrize("kind", OTHER_POOLS)
def test_other_pools_are_left_to_torch(kind):
    pool, x = OTHER_POOLS[kind]
    net = nn.Sequential(pool)
    with torch.no_grad(), compiled(net):
        found = net(x)
    assert torch.equal(found, net(x))


def test_a_pool_larger_than_its_input_is_refused_as_torch_does():
    net = nn.Sequential(layer.MaxPool2d(3, step_mode="m"))
    with torch.no_grad(), compiled(net), pytest.raises(RuntimeError, match="too small"):
        net(torch.rand(T, 2, 3, 2, 2))


def test_who_watches_functions_sees_pooling_and_all_is_compiled_all_the_same(monkeypatch):
    class Watch(TorchFunctionMode):
        seen = ()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen += (func.__name__,)
            return func(*args, **(kwargs or {}))

    net = nn.Sequential(layer.MaxPool2d(2, step_mode="m"), neuron.LIFNode(step_mode="m"))
    net[1].single_step_forward = None  # what SpikingJelly would call at every step
    pooled, maxima = [], forward._maxima
    monkeypatch.setattr(forward, "_maxima", lambda *args: pooled.append(args) or maxima(*args))
    with torch.no_grad(), compiled(net), Watch() as watch:
        net(torch.rand(T, 2, 3, 4, 4))
    assert watch.seen.count("max_pool2d") == len(pooled) == 1


def test_layers_that_follow_time_are_not_cut():
    net = nn.Sequential(layer.Linear(3, 4, step_mode="m"), neuron.LIFNode(step_mode="m"), layer.Linear(4, 2))
    shared = nn.Sequential(net[0], net[1], nn.Linear(4, 3), net[0])  # its first layer a second time, on what changes
    seen = []
    net[0].register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    x = torch.rand(2, 3).expand(T, 2, 3)
    with torch.no_grad():
        expected = shared(x)
        functional.reset_net(shared)
        seen.clear()
        with each_image_once(shared):
            found = shared(x)
    torch.testing.assert_close(found, expected)
    assert seen == [1, T]
