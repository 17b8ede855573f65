"""Calibration under ``torch.distributed``: each rank takes a part of the batches, and sums are taken over all ranks."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

Batches = Callable[[], Iterable[Tensor]]
"""The calibration batches ``x [B, ...]``, from the first one on at every call; the same ones on every rank."""

Batch = TypeVar("Batch")


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def batches_of_rank(batches: Iterable[Batch]) -> Iterable[Batch]:
    """The batches that this rank works on: r, r + n, r + 2n, ... of rank r of n; all of them in a single process."""
    if not _distributed():
        yield from batches
        return
    for number, batch in enumerate(batches):
        if number % dist.get_world_size() == dist.get_rank():
            yield batch


def summed_over_ranks(total: Tensor) -> Tensor:
    """The sum of every rank's ``total``, which is overwritten; ``total`` itself, of a single process.

    Every rank has to call it, in the same order: one that got no batch too.
    """
    if _distributed():
        dist.all_reduce(total)
    return total
