"""The interval of a difference of accuracies on the same samples: what it covers, and what it says of itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial, norm

from benchmark.single_network.paired import PairedChange, upper_end

Z = norm.ppf(0.975)


@given(st.integers(1, 60), st.data())
def test_the_estimate_lies_in_the_interval_and_roles_can_be_swapped(samples, data):
    gained = data.draw(st.integers(0, samples))
    lost = data.draw(st.integers(0, samples - gained))
    change, mirrored = PairedChange(samples, gained, lost), PairedChange(samples, lost, gained)
    assert -1 <= change.low <= change.change <= change.high <= 1
    assert (mirrored.low, mirrored.high) == (-change.high, -change.low)


@pytest.mark.parametrize("samples", [1, 10, 1000])
def test_without_a_changed_sample_the_end_has_a_closed_form(samples):
    change = PairedChange(samples, 0, 0)
    assert change.high == pytest.approx(Z**2 / (samples + Z**2), abs=1e-9)
    assert change.low == -change.high


def test_of_many_samples_it_is_the_normal_interval():
    change = PairedChange(100_000, 3_000, 4_000)
    half = Z * np.sqrt((0.07 - 0.01**2) / 100_000)
    assert change.low == pytest.approx(-0.01 - half, rel=2e-3)
    assert change.high == pytest.approx(-0.01 + half, rel=5e-3)


@pytest.mark.parametrize("samples", [40, 120])
@pytest.mark.parametrize(("gain", "loss"), [(0.01, 0.02), (0.02, 0.05), (0.05, 0.05), (0.01, 0.15), (0.1, 0.2)])
def test_it_covers_the_truth_as_often_as_it_says(samples, gain, loss):
    """The exact coverage, over all outcomes that are not too unlikely to matter."""
    most = int(samples * 0.7)
    covered = total = 0.0
    for gained in range(most):
        for lost in range(most - gained):
            weight = multinomial.pmf([gained, lost, samples - gained - lost], samples, [gain, loss, 1 - gain - loss])
            if weight < 1e-6:
                continue
            change = PairedChange(samples, gained, lost)
            total += weight
            covered += weight * (change.low <= gain - loss <= change.high)
    assert total > 0.999
    assert 0.93 < covered < (0.99 if samples * loss > 1 else 1.0)


def test_a_simulated_pair_of_networks_is_covered():
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(2000, 700, generator=generator) < 0.9
    flips = torch.rand(2000, 700, generator=generator)
    after = torch.where(before, flips > 0.03, flips < 0.1)
    truth = 0.1 * 0.1 - 0.9 * 0.03
    changes = {(int((a & ~b).sum()), int((b & ~a).sum())) for b, a in zip(before, after, strict=True)}
    ends = {pair: PairedChange(700, *pair) for pair in changes}
    seen = [PairedChange.of(b, a) for b, a in zip(before, after, strict=True)]
    hit = [ends[change.gained, change.lost].low <= truth <= ends[change.gained, change.lost].high for change in seen]
    assert np.mean(hit) == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


def test_the_interval_is_where_the_score_test_ends():
    """By brute force: where the likelihood is largest on a fine grid, the statistic is z at the end."""
    samples, gained, lost = 30, 3, 5
    end = upper_end(samples, gained, lost)
    losses = np.linspace(1e-6, (1 - end) / 2, 400_001)
    rest = 1 - 2 * losses - end
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = lost * np.log(losses) + gained * np.log(losses + end) + (samples - gained - lost) * np.log(rest)
    best = losses[np.nanargmax(likelihood)]
    statistic = (gained - lost - samples * end) / np.sqrt(samples * (2 * best + end - end**2))
    assert statistic == pytest.approx(-Z, abs=1e-3)


def test_what_the_samples_decide():
    before, after = torch.tensor([1, 1, 1, 0, 0]).bool(), torch.tensor([1, 1, 0, 1, 0]).bool()
    assert PairedChange.of(before, after) == PairedChange(5, gained=1, lost=1)
    assert PairedChange(5, 1, 1).verdict(0.01) == "undecided"
    assert PairedChange(10_000, 50, 60).verdict(0.01) == "yes"
    assert PairedChange(1_000, 0, 100).verdict(0.01) == "no"
    assert str(PairedChange(1000, 5, 11)) == "−0.60 points, 95% between −1.52 and +0.21"
    assert PairedChange(1000, 5, 11).to_dict()["lost"] == 11
