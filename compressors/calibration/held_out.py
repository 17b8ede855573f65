"""A part of the calibration samples takes no part in what is fitted: choices are judged on it."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from compressors.calibration.hessians import CalibrationError

HELD_OUT = 5
"""One in so many calibration samples is held out."""


def split(batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch ``[B, ...]`` the samples to fit to and those held out, every fifth one of all batches together."""
    seen = 0
    for x in batches:
        held = torch.arange(seen, seen + len(x)) % HELD_OUT == HELD_OUT - 1
        seen += len(x)
        yield x[~held], x[held]


def fitted(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Batches of the samples to fit to."""
    return (x for x, _ in split(batches) if len(x))


def held_out(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Batches of the samples that are held out.

    Raises:
        CalibrationError: there are none.
    """
    held = 0
    for _, x in split(batches):
        held += len(x)
        if len(x):
            yield x
    if not held:
        raise CalibrationError(f"every {HELD_OUT}th calibration sample is held out: ask for {HELD_OUT} at least")
