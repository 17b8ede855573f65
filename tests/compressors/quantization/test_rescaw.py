"""ReScaW against the paper's formula worked by hand, and its gradient against autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.quantization.rescaw import GAMMAS, ReScaW
from compressors.weights.latent import LatentWeights

BITS = st.integers(2, 8)


def formula(weight, gamma, bits):
    """The paper's formula, in float64."""
    top = 2**bits - 1
    clamped = (weight.double() / gamma.double()).clamp(-1, 1)
    return gamma.double() * (2 / top * torch.round(top / 2 * (clamped + 1)) - 1)


@settings(max_examples=60, deadline=None)
@given(
    bits=BITS,
    seed=st.integers(0, 999),
    gamma=st.sampled_from(sorted(GAMMAS)),
    per=st.sampled_from(["channel", "tensor"]),
)
def test_rounding_is_the_papers_formula(bits, seed, gamma, per):
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    quantizer = ReScaW(bits, gamma, per)
    scale = quantizer.scale(weight)
    rows = weight.flatten(1)
    torch.testing.assert_close(quantizer.grid(weight).nearest(rows), formula(rows, scale, bits))


@settings(max_examples=40, deadline=None)
@given(bits=BITS, seed=st.integers(0, 999))
def test_codes_rebuild_the_rounded_weight_to_the_bit(bits, seed):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))
    grid = ReScaW(bits).grid(weight)
    codes = grid.codes(weight)
    assert int(codes.max()) < 2**bits
    assert torch.equal(grid.values(codes), grid.nearest(weight))
    assert torch.equal(grid.nearest(grid.values(codes)), grid.values(codes)), "rounding twice is rounding once"


def test_two_bits_have_the_levels_of_a_third_and_one_and_no_zero():
    weight = torch.tensor([[0.0, 0.1, 0.9, 2.0, -0.1, -0.9, -2.0, 2.0]])
    gamma = weight.abs().mean()
    levels = ReScaW(2).grid(weight).nearest(weight).unique() / gamma
    torch.testing.assert_close(levels, torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))
    assert not ReScaW(2).grid(weight).coding().has_zero


def test_gammas_by_hand():
    rows = torch.tensor([[1.0, -3.0, 2.0, -2.0], [0.0, 0.0, 0.0, 4.0]])
    assert ReScaW(4, "mean").scale(rows).flatten().tolist() == [2.0, 1.0]
    assert ReScaW(4, "max").scale(rows).flatten().tolist() == [3.0, 4.0]
    assert ReScaW(4, "none").scale(rows).flatten().tolist() == [1.0, 1.0]
    assert ReScaW(4, "mean", "tensor").scale(rows).tolist() == [[1.5]]
    uniform = torch.linspace(-2, 1, 3001)[None]
    torch.testing.assert_close(ReScaW(4, "percentile").scale(uniform), torch.tensor([[1.97]]))


def test_rescaling_a_layer_rescales_its_rounded_weights():
    """What the plain quantiser lacks: small weights use all codes."""
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 0.05
    for gamma, used in [("mean", 16), ("none", 5)]:
        assert len(ReScaW(4, gamma, "tensor").grid(weight).codes(weight).unique()) <= used
    assert len(ReScaW(4, "mean", "tensor").grid(weight).codes(weight).unique()) == 16
    for factor in (0.5, 8.0):
        scaled = ReScaW(4).grid(weight * factor).nearest(weight * factor)
        assert torch.equal(scaled, factor * ReScaW(4).grid(weight).nearest(weight))


def test_share_of_saturated_weights_of_a_gaussian_layer():
    weight = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    beyond = (weight.abs() > ReScaW(4).scale(weight)).double().mean()
    assert float(beyond) == pytest.approx(math.erfc(math.sqrt(1 / math.pi)), abs=0.005)  # 0.425


def test_a_row_of_zeros_stays_as_good_as_zero():
    weight = torch.zeros(2, 3)
    weight[1] = 1.0
    rounded = ReScaW(4).grid(weight).nearest(weight)
    assert rounded[0].abs().max() < 1e-30
    assert torch.isfinite(rounded).all()


class STE(torch.autograd.Function):
    """The straight-through estimator as autograd would have it: rounding forward, a clamp's slope backward."""

    @staticmethod
    def forward(context, weight, gamma, bits):
        context.save_for_backward(weight, gamma)
        return formula(weight, gamma, bits)

    @staticmethod
    def backward(context, gradient):
        weight, gamma = context.saved_tensors
        return gradient * (weight.abs() <= gamma), None, None


@pytest.mark.parametrize("gradient", ["masked", "scaled"])
def test_gradients_reach_the_weights_behind_as_through_autograd(gradient):
    torch.manual_seed(0)
    linear = nn.Linear(6, 4, bias=False, dtype=torch.float64)
    module, x = nn.Sequential(linear), torch.rand(5, 6, dtype=torch.float64)
    quantizer = ReScaW(3, gradient=gradient)
    behind = linear.weight.detach().clone().requires_grad_()
    gamma = quantizer.scale(behind).detach()
    if gradient == "masked":
        rounded = STE.apply(behind, gamma, 3)
    else:
        rounded = formula(behind, gamma, 3).detach() + (behind / gamma - (behind / gamma).detach())
    (x @ rounded.T).square().sum().backward()

    layers = LatentWeights({"0": quantizer})
    layers.put(module)
    module(x).square().sum().backward()
    layers.take(module)
    assert torch.equal(linear.weight, behind)
    torch.testing.assert_close(linear.weight.grad, behind.grad)
