"""How sure an accuracy is: what the choice of seeds and of test samples could change, and which rows are as good.

The test samples are the same for all rows of a table and all seeds, so that more seeds make an accuracy no surer with
regard to them. Where records keep which samples were right, two rows are compared sample by sample and seed by seed;
elsewhere as if their errors were independent, which calls some a tie that is none, and none a difference that is not.
"""

from collections.abc import Sequence
from math import inf, sqrt
from statistics import NormalDist, fmean

import numpy as np
from scipy.stats import t

from benchmark.boards.standings import Row, Spread

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard errors on each side of a mean at :data:`CONFIDENCE`."""


def of_test_set(accuracy: float, samples: int) -> float:
    """Half of the interval of an accuracy over the choice of test samples: Wilson's, whose ends stay within 0 and 1.

    Returns:
        The larger half, as a share.
    """
    if samples < 1:
        return inf
    centre = (accuracy + Z**2 / (2 * samples)) / (1 + Z**2 / samples)
    half = Z / (1 + Z**2 / samples) * sqrt(accuracy * (1 - accuracy) / samples + Z**2 / (4 * samples**2))
    return max(centre + half - accuracy, accuracy - (centre - half))


def of_seeds(spread: Spread) -> float | None:
    """Half of the interval of a mean over the choice of seeds, by Student's t; None for a single seed."""
    if spread.std is None:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, spread.n - 1)) * spread.std / sqrt(spread.n)


def tied(a: Row, b: Row) -> bool:
    """Whether seeds and test samples could make the difference of two rows of a table, in accuracy."""
    seeds = [seed for seed in a.answers if seed in b.answers]
    if seeds and a.samples == b.samples and {*a.runs} == {*b.runs} == {*seeds}:
        return _tied_by_sample(a, b, seeds)
    first, second = a.measured["accuracy"], b.measured["accuracy"]
    halves = [of_test_set(spread.mean, row.samples) for spread, row in ((first, a), (second, b))]
    return _within(first.mean - second.mean, [*halves, of_seeds(first), of_seeds(second)])


def sampling_error(a: Row, b: Row, seeds: Sequence[int]) -> float:
    """Standard error, over the choice of test samples, of the difference of two accuracies, as a share.

    Sample by sample where both rows know their answers to these seeds, elsewhere as if their errors were independent.
    """
    if a.samples == b.samples and all(seed in a.answers and seed in b.answers for seed in seeds):
        return _over_samples(_changes(a, b, seeds))
    means = [(fmean(row.values[seed]["accuracy"] for seed in seeds), row.samples) for row in (a, b)]
    return sqrt(sum(mean * (1 - mean) / samples for mean, samples in means))


def _tied_by_sample(a: Row, b: Row, seeds: list[int]) -> bool:
    """The same, paired: the difference in each sample, of which most are zero, and in each seed."""
    changes = _changes(a, b, seeds)
    over_seeds = of_seeds(Spread.of(changes.mean(1).tolist()))
    return _within(float(changes.mean()), [Z * _over_samples(changes), over_seeds])


def _changes(a: Row, b: Row, seeds: Sequence[int]) -> np.ndarray:
    """1.0 where only ``a`` is right, -1.0 where only ``b`` is, else 0.0 ``[seeds, samples]``."""
    return np.stack([_right(a.answers[seed], a.samples) - _right(b.answers[seed], b.samples) for seed in seeds])


def _over_samples(changes: np.ndarray) -> float:
    return float(changes.mean(0).std()) / sqrt(changes.shape[1])


def _right(answers: int, samples: int) -> np.ndarray:
    """Whether each sample is classified right, 0.0 or 1.0 ``[samples]``."""
    bits = np.frombuffer(answers.to_bytes(-(-samples // 8), "big"), dtype=np.uint8)
    return np.unpackbits(bits)[-samples:].astype(float)


def _within(difference: float, halves: list[float | None]) -> bool:
    return abs(difference) <= sqrt(sum(half**2 for half in halves if half is not None))
