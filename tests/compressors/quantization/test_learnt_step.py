"""LSQ's quantiser against the published formulas, and against autograd through a straight-through rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.quantization.grids import fit_grid
from compressors.quantization.learnt_step import LearntStep, gradients

BITS = st.integers(2, 8)


def through_autograd(latent: torch.Tensor, step: torch.Tensor, bits: int) -> torch.Tensor:
    """The value with a rounding that gradients pass through; clamped first, as published."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    steps = (latent / step).clamp(low, high)
    return (steps + (steps.round() - steps).detach()) * step


@settings(max_examples=60, deadline=None)
@given(bits=BITS, per=st.sampled_from(["channel", "tensor"]), seed=st.integers(0, 999), spread=st.floats(0.2, 5))
def test_value_and_gradients_are_those_of_autograd(bits, per, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    rule = LearntStep.of(latent, bits, per, power_of_two=False)
    rule.step.data *= spread
    upstream = torch.randn(latent.shape, generator=generator, dtype=torch.float64)

    weight, step = latent.flatten(1).clone().requires_grad_(), rule.step.detach().clone().requires_grad_()
    value = through_autograd(weight, step, bits)
    (value * upstream.flatten(1)).sum().backward()
    torch.testing.assert_close(rule.value(latent).flatten(1), value.detach())
    torch.testing.assert_close(rule.backward(upstream, latent).flatten(1), weight.grad)
    shared = latent.numel() // len(step)
    torch.testing.assert_close(rule.step.grad, step.grad / (shared * (2 ** (bits - 1) - 1)) ** 0.5)


def test_the_steps_derivative_by_hand():
    """Three bits, step 1: levels -4 to 3. The published cases: between, at and beyond the outermost levels."""
    latent = torch.tensor([[0.3], [1.6], [2.9], [3.0], [7.0], [-4.0], [-9.0], [-3.8]])
    slopes = [-0.3, 0.4, 0.1, 3.0, 3.0, -4.0, -4.0, -0.2]
    passes = [1, 1, 1, 0, 0, 0, 0, 1]
    for weight, slope, passed in zip(latent, slopes, passes, strict=True):
        rule = LearntStep(3, nn.Parameter(torch.ones(1, 1)))
        through = rule.backward(torch.tensor([[2.0]]), weight[None])
        assert float(rule.step.grad) == pytest.approx(2 * slope / 3**0.5, abs=1e-6)
        assert float(through) == 2.0 * passed


def test_training_begins_at_the_published_step():
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert LearntStep.of(weight, 3, "channel", False).step.tolist() == [[pytest.approx(4 / 3**0.5)], [1.0]]
    assert LearntStep.of(weight, 3, "tensor", False).step.tolist() == [[pytest.approx(2 / 3**0.5)]]


@settings(max_examples=40, deadline=None)
@given(bits=BITS, seed=st.integers(0, 999))
def test_powers_of_two_are_the_nearest_and_levels_stay_whole_multiples(bits, seed):
    latent = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))
    rule = LearntStep.of(latent, bits, "channel", power_of_two=True)
    exponents = rule.scale.log2()
    assert torch.equal(exponents, exponents.round())
    assert (exponents - rule.step.detach().log2()).abs().max() <= 0.5 + 1e-6
    grid = rule.grid()
    assert torch.equal(grid.values(grid.codes(latent)), rule.value(latent))


@pytest.mark.parametrize("step", [0.0, -1.0])
def test_a_step_that_training_has_taken_below_zero_still_gives_finite_weights(step):
    rule = LearntStep(4, nn.Parameter(torch.full((2, 1), step)))
    latent = torch.randn(2, 3)
    assert torch.isfinite(rule.value(latent)).all()
    assert torch.isfinite(rule.backward(torch.ones(2, 3), latent)).all()
    assert torch.isfinite(rule.step.grad).all()


@pytest.mark.parametrize("scopes", ["channel", "tensor"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gradients_are_those_of_the_rounded_weight_with_rounding_passed_straight_through(scopes, symmetric):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(6, 5, 3, generator=generator)
    grid = fit_grid(latent.flatten(1) + 0.5, 2, per=scopes, symmetric=symmetric)
    along = torch.randn(latent.shape, generator=generator)
    weight, scale = latent.clone().requires_grad_(), grid.scale.clone().requires_grad_()
    steps = torch.minimum(torch.maximum(weight.flatten(1) / scale, -grid.zero), 3 - grid.zero)
    value = scale * (steps + (steps.round() - steps).detach())
    wanted = torch.autograd.grad((value * along.flatten(1)).sum(), [weight, scale])
    for found, expected in zip(gradients(grid, along, latent), wanted, strict=True):
        torch.testing.assert_close(found, expected)
