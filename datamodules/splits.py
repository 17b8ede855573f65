"""Splits that never change: decided by a hash of each sample's name, not by a random number generator."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

VALIDATION_SHARE = 0.1
"""Share of the training samples that is set aside, for early stopping."""


@dataclass(frozen=True)
class Parts:
    """Which samples belong to which part, as indices into the list of all samples.

    Calibration samples are drawn from `calibration_pool`: the training part, or a part of its own where a set
    has one.
    """

    train: Indices
    validation: Indices
    calibration_pool: Indices
    test: Indices


def stratified_draw(keys: Sequence[str], labels: NDArray[np.int64], count: int, salt: str) -> Indices:
    """Draw `count` samples so that each class has its share of them, the same ones on every machine.

    Each class gets ``count * class size / all`` samples, the fractions going to the largest remainders. Inside
    a class, the samples with the smallest hash of ``salt`` and name are taken, so that neither their order nor
    the version of a library matters.

    Args:
        keys: name of each sample, unique, independent of where the data lie.
        labels: class of each sample, shape [n].
        count: number of samples to draw.
        salt: names this draw; another salt gives another draw.

    Returns:
        Indices into `keys` in order of the hash, so that classes are mixed, shape [count].

    Raises:
        ValueError: count is not between 1 and n.
    """
    if not 0 < count <= len(keys):
        raise ValueError(f"cannot draw {count} of {len(keys)} samples ({salt}); ask for 1 to {len(keys)}")
    classes, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    share, remainder = np.divmod(count * sizes, len(keys))
    by_remainder = np.lexsort((_hashes(classes.tolist(), salt), -remainder))
    share[by_remainder[: count - share.sum()]] += 1

    hashes = _hashes(keys, salt)
    by_class = np.lexsort((hashes, class_of))
    first_of_class = np.cumsum(sizes) - sizes
    rank_in_class = np.arange(len(keys)) - np.repeat(first_of_class, sizes)
    drawn = by_class[rank_in_class < np.repeat(share, sizes)]
    return drawn[np.argsort(hashes[drawn], kind="stable")]


def hold_out_validation(keys: Sequence[str], labels: NDArray[np.int64], test: Indices, salt: str) -> Parts:
    """Parts for a given test part: a tenth of the rest, by class, for validation; the others for training."""
    rest = np.setdiff1d(np.arange(len(keys)), test)
    count = max(1, round(len(rest) * VALIDATION_SHARE))
    validation = np.sort(rest[stratified_draw([keys[index] for index in rest], labels[rest], count, salt)])
    train = np.setdiff1d(rest, validation)
    return Parts(train, validation, calibration_pool=train, test=test)


def _hashes(keys: Sequence[object], salt: str) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(f"{salt}:{key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8")
