"""How sure an accuracy is: what the choice of seeds and of test samples could change, and which rows are as good.

The test samples are the same for all rows of a table and all seeds, so that more seeds make an accuracy no surer with
regard to them. Two rows are told apart over both, as if the errors were independent; where they fall on the same
samples, that is too careful and calls some a tie that is none.
"""

from math import inf, sqrt

from scipy.stats import t

from benchmark.boards.standings import Row, Spread

CONFIDENCE = 0.95
Z = 1.96
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
    """Whether the accuracies of two rows of a table are no further apart than seeds and test samples could make it."""
    first, second = a.measured["accuracy"], b.measured["accuracy"]
    halves = [of_test_set(spread.mean, row.samples) for spread, row in ((first, a), (second, b))]
    halves += [half for half in map(of_seeds, (first, second)) if half is not None]
    return abs(first.mean - second.mean) <= sqrt(sum(half**2 for half in halves))
