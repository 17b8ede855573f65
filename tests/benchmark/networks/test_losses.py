"""Losses against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from benchmark.networks.losses import LOSSES, cross_entropy, rate_mse, temporal_efficient_training

T, B, K = 3, 4, 5


@pytest.fixture
def outputs():
    return torch.randn(T, B, K, generator=torch.Generator().manual_seed(0), requires_grad=True)


CLASSES = torch.tensor([0, 4, 2, 2])


def test_rate_mse_is_summed_over_classes_and_takes_shares():
    rates = torch.tensor([[[0.5, 0.25], [1.0, 0.0]]])
    assert rate_mse(rates, torch.tensor([0, 1])) == pytest.approx((0.25 + 0.0625 + 1 + 1) / 2)
    assert rate_mse(rates, torch.tensor([[0.5, 0.25], [0.5, 0.5]])) == pytest.approx(0.25)
    assert rate_mse(rates, torch.tensor([0, 1]), 0.5) == pytest.approx((0.0625 + 0 + 0.5625 + 0.5625) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_the_mean_over_time(outputs, smoothing):
    ours = cross_entropy(outputs, CLASSES, smoothing)
    wanted = torch.full((B, K), smoothing / K).scatter_(1, CLASSES[:, None], 1 - smoothing + smoothing / K)
    by_hand = -(wanted * outputs.mean(0).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ours, by_hand)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_tet_is_the_mean_of_each_steps_loss(outputs, smoothing):
    ours = temporal_efficient_training(outputs, CLASSES, smoothing)
    steps = [
        0.95 * F.cross_entropy(step, CLASSES, label_smoothing=smoothing) + 0.05 * F.mse_loss(step, torch.ones(B, K))
        for step in outputs
    ]
    torch.testing.assert_close(ours, torch.stack(steps).mean())


@pytest.mark.parametrize("name", LOSSES)
def test_classes_are_shares_of_one(outputs, name):
    shares = F.one_hot(CLASSES, K).float()
    torch.testing.assert_close(LOSSES[name](outputs, shares, 0.2), LOSSES[name](outputs, CLASSES, 0.2))


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_along_the_gradient_makes_it_smaller(outputs, name):
    loss = LOSSES[name](outputs, CLASSES, 0.0)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert LOSSES[name](outputs - 0.1 * gradient, CLASSES, 0.0) < loss
