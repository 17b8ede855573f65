"""Compiled neurons fire, and learn, to the bits of SpikingJelly's own."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron, surrogate

from benchmark.networks import classifier
from benchmark.networks.inference import firing
from benchmark.networks.zoo.conv import conv
from benchmark.networks.zoo.resnet import resnet19
from benchmark.networks.zoo.vgg import vgg9

NEURONS = 3 * firing.BLOCK // 2  # more than one block, and no whole number of them


def outcome(forward, node, x, start, weights):
    """Spikes, last potentials, and the gradients of a weighted sum of both."""
    functional.reset_net(node)
    if start is not None:
        node.v = start
    spikes = forward(node, x)
    potential = node.v
    total = (spikes * weights[0]).sum() + (potential * weights[1]).sum()
    inputs = [x] if start is None else [x, start]
    return [spikes.detach(), potential.detach(), *torch.autograd.grad(total, inputs)]


@settings(deadline=None, max_examples=60)
@given(
    tau=st.sampled_from([None, 4 / 3, 2.0, 10.0]),
    decay_input=st.booleans(),
    reset=st.sampled_from([0.0, None, -0.3]),
    alpha=st.sampled_from([2.0, 3.7]),
    threshold=st.sampled_from([1.0, 0.7]),
    started=st.booleans(),
    repeated=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_spikes_potentials_and_gradients_are_spikingjellys(
    tau, decay_input, reset, alpha, threshold, started, repeated, seed
):
    kind = neuron.IFNode if tau is None else neuron.LIFNode
    leak = {} if tau is None else {"tau": tau, "decay_input": decay_input}
    node = kind(
        **leak,
        v_threshold=threshold,
        v_reset=reset,
        surrogate_function=surrogate.ATan(alpha),
        detach_reset=True,
        step_mode="m",
    )
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: 5 * torch.randn(*shape, NEURONS, generator=generator)  # noqa: E731
    x = draw(1, 1).expand(5, 1, NEURONS) if repeated else draw(5, 1)
    x.requires_grad_()
    start = draw(1).requires_grad_() if started else None
    weights = draw(5, 1), draw(1)
    ours, theirs = (outcome(f, node, x, start, weights) for f in (firing.multi_step, kind.multi_step_forward))
    assert theirs[0].any()
    assert theirs[2].any()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_under_autocast_sixteen_bits_are_added_up_in_thirty_two():
    node = neuron.LIFNode(step_mode="m", surrogate_function=surrogate.ATan(), detach_reset=True)
    x = (2 * torch.randn(20, 3, NEURONS)).bfloat16().requires_grad_()
    weights = torch.randn(20, 3, NEURONS).bfloat16(), torch.randn(3, NEURONS)
    with torch.autocast("cpu", torch.bfloat16):
        ours = outcome(firing.multi_step, node, x, None, weights)
    wide = [weight.float() for weight in weights]
    theirs = outcome(neuron.LIFNode.multi_step_forward, node, x.detach().float().requires_grad_(), None, wide)
    assert ours[0].dtype == ours[2].dtype == torch.bfloat16
    assert torch.equal(ours[0].float(), theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[2], theirs[2].bfloat16())


def test_without_autocast_sixteen_bits_are_the_classs_own():
    node = neuron.LIFNode(step_mode="m", surrogate_function=surrogate.ATan(), detach_reset=True)
    x = torch.randn(4, 3, 50).bfloat16()
    ours, ours_v = firing.multi_step(node, x), node.v
    functional.reset_net(node)
    theirs, theirs_v = neuron.LIFNode.multi_step_forward(node, x), node.v
    assert torch.equal(ours, theirs)
    assert torch.equal(ours_v, theirs_v)


@pytest.mark.parametrize(
    "options",
    [
        {"surrogate_function": surrogate.Sigmoid(), "detach_reset": True},
        {"surrogate_function": surrogate.ATan(), "detach_reset": False},
        {"surrogate_function": surrogate.ATan(), "detach_reset": True, "store_v_seq": True},
    ],
)
def test_what_the_loop_does_not_know_is_left_to_the_class(options):
    node = neuron.LIFNode(step_mode="m", **options)
    x = torch.randn(4, 3, 50, requires_grad=True)
    weights = torch.randn(4, 3, 50), torch.randn(3, 50)
    ours, theirs = (outcome(f, node, x, None, weights) for f in (firing.multi_step, neuron.LIFNode.multi_step_forward))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert (node.v_seq is not None) == node.store_v_seq


def test_a_gradient_of_the_gradient_is_refused_rather_than_wrong():
    node = neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
    x = torch.randn(4, 10, requires_grad=True)
    (gradient,) = torch.autograd.grad(firing.multi_step(node, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (conv, (2, 34, 34)),
        (lambda shape, classes: vgg9(shape, classes, width=16), (3, 32, 32)),
        (lambda shape, classes: resnet19(shape, classes, width=48), (3, 16, 16)),
    ],
)
def test_a_network_trained_with_the_loops_has_the_bits_of_one_trained_without(make, shape, threads, monkeypatch):
    def weights(without):
        torch.manual_seed(0)
        network = make(shape, 5)
        module = classifier.SNNClassifier(network, classes=5, timesteps=4)
        x = torch.rand(6, *shape) if shape[0] == 3 else (torch.rand(6, 4, *shape) < 0.1).float()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        with monkeypatch.context() as patch:
            if without:
                patch.setattr(classifier, "compiled", lambda network: nullcontext())
            for _ in range(2):
                optimizer.zero_grad()
                module.loss(classifier.outputs(network, x, 5, 4), torch.arange(6) % 5, 0.0).backward()
                optimizer.step()
        return [parameter.detach().clone() for parameter in module.parameters()]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, plain = weights(without=False), weights(without=True)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))
