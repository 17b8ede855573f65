"""Calibration batches shared between processes, and sums over all of them."""

from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share(batches: Iterable[Tensor]) -> Iterable[Tensor]:
    """This process's batches: every world-size-th."""
    if not _distributed():
        yield from batches
        return
    for number, batch in enumerate(batches):
        if number % dist.get_world_size() == dist.get_rank():
            yield batch


def reduced(total: Tensor) -> Tensor:
    """The sum over all processes."""
    if _distributed():
        dist.all_reduce(total)
    return total
