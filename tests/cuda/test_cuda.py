"""What a GPU computes is what the CPU computes: masks and counts are equal, scores and sums near."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.contract.subject import CLASSES, Method, RandomEvents, T, classifier, fit
from benchmark.networks.zoo.conv import conv
from benchmark.networks.zoo.resnet import resnet19
from benchmark.networks.zoo.vgg import vgg9
from benchmark.perf import cuda as performance
from compressors import SBC
from compressors.calibration.hessians import hessians
from compressors.network.layers import find_layers
from compressors.network.neurons import impulse_response
from compressors.registry import COMPRESSORS
from compressors.second_order import obs
from compressors.second_order.fixed_order import prune_fixed_order, prune_n_of_m
from hardware import profile

DEVICE = "cuda"
GPU = {"accelerator": "gpu", "devices": 1}

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU here"),
]


def problem(rows, columns, groups=1, seed=0):
    """Weights ``[rows, columns]``, and the damped Hessians of as many groups of rows, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(groups, 2 * columns, columns, generator=generator, dtype=torch.float64)
    return weight, obs.damped(inputs.mT @ inputs / columns, 0.01)


@pytest.mark.parametrize(("rows", "columns", "groups"), [(8, 16, 1), (32, 144, 2), (64, 512, 1)])
def test_exact_elimination_takes_the_same_weights_in_the_same_order(rows, columns, groups):
    weight, hessian = problem(rows, columns, groups)
    here, there = obs.eliminate(weight, hessian), obs.eliminate(weight.to(DEVICE), hessian.to(DEVICE))
    assert torch.equal(here.order, there.order.cpu())
    torch.testing.assert_close(here.losses, there.losses.cpu(), rtol=1e-7, atol=1e-10)
    steps = obs.steps_per_row(here.losses, rows * columns * 9 // 10)
    mask = obs.mask_after(here.order, steps)
    ours, theirs = (
        obs.least_squares(weight.to(d), hessian.to(d), mask.to(d)).cpu() for d in (torch.device("cpu"), DEVICE)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 24), columns=st.integers(4, 96), density=st.sampled_from([0.5, 0.1]))
def test_pruning_in_a_fixed_order_keeps_the_same_weights(rows, columns, density):
    weight, hessian = problem(rows, columns, seed=rows)
    keep = max(1, int(density * weight.numel()))
    (ours, mask), (theirs, other) = (prune_fixed_order(weight.to(d), hessian.to(d), keep) for d in ("cpu", DEVICE))
    assert torch.equal(mask, other.cpu())
    torch.testing.assert_close(ours, theirs.cpu(), rtol=1e-6, atol=1e-9)


def test_two_of_four_are_the_same():
    weight, hessian = problem(16, 64)
    (_, mask), (_, other) = (prune_n_of_m(weight.to(d), hessian.to(d), 2, 4) for d in ("cpu", DEVICE))
    assert torch.equal(mask, other.cpu())


@pytest.mark.parametrize("filtered", [False, True])
def test_hessians_are_the_same_sums(filtered):
    def sums(device):
        module, x = classifier().to(device), RandomEvents().x.to(device)
        layers = find_layers(module, lambda: module(x[:1]))
        response = {
            entry.name: impulse_response(entry.neuron, T).to(device) if filtered and entry.neuron else None
            for entry in layers
        }
        return hessians(module, layers, response, lambda: iter(x.split(4)))

    ours, theirs = sums("cpu"), sums(DEVICE)
    for name, total in ours.items():
        torch.testing.assert_close(total, theirs[name].cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_every_method_leaves_as_many_weights_and_without_gradients_the_same_ones(name):
    method = Method(COMPRESSORS[name].load())
    ours, theirs = fit(method.make()), fit(method.make(), **GPU)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (one != 0).sum() == (other != 0).sum()
        assert method.target.reconstructs or torch.equal(one != 0, other.cpu() != 0)


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_every_method_trains_on(name):
    module = fit(Method(COMPRESSORS[name].load()).make(), epochs=2, **GPU)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_what_is_left_learns_towards_the_dense_network():
    compressor = SBC(density=0.2, aftercare="reconstruct", reconstruction_steps=20)
    fit(compressor, **GPU)
    (told,) = (entry for name, entry in compressor.compression.aftercare.items() if name == "reconstruct")
    assert told


NETWORKS = [
    pytest.param(conv, (2, 16, 16), id="conv"),
    pytest.param(lambda shape, classes: vgg9(shape, classes, width=8), (3, 32, 32), id="vgg9"),
    pytest.param(lambda shape, classes: resnet19(shape, classes, width=8), (3, 16, 16), id="resnet19"),
]


@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_scores_are_near_and_counts_of_the_same_spikes_are_equal(make, shape):
    torch.manual_seed(0)
    network = make(shape, CLASSES).eval()
    x = (torch.rand(4, T, *shape) < 0.3).float()
    batches = [(x.transpose(0, 1).double(), torch.zeros(T))]
    ours, theirs = (profile(network.double().to(device), batches) for device in ("cpu", DEVICE))
    assert [entry.ac for entry in ours.layers] == [entry.ac for entry in theirs.layers]
    assert [entry.input_events for entry in ours.layers] == [entry.input_events for entry in theirs.layers]


@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_a_training_step_goes_where_it_goes_on_the_cpu(make, shape):
    def gradients(device):
        torch.manual_seed(0)
        network = make(shape, CLASSES).double().to(device)
        x = (torch.rand(4, T, *shape) < 0.3).double().to(device)
        network(x.transpose(0, 1)).mean(0).square().sum().backward()
        return [parameter.grad.cpu() for parameter in network.parameters()]

    for one, other in zip(gradients("cpu"), gradients(DEVICE), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", sorted(performance.PARTS))
def test_the_performance_table_has_its_rows(part):
    rows = performance.PARTS[part](DEVICE, small=True)
    assert rows
    assert all(value > 0 for row in rows for value in row.values() if isinstance(value, float))
