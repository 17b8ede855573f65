"""How long a call takes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Seconds(NamedTuple):
    """By the clock on the wall, and of processor time: the same for a GPU, on which nothing else runs."""

    wall: float
    busy: float


def seconds(call: Callable[[], Any], device: str = "cpu") -> Seconds:
    """Time one call, until a GPU has done what it was told."""
    finish(device)
    wall, busy = time.perf_counter(), time.process_time()
    call()
    finish(device)
    wall = time.perf_counter() - wall
    return Seconds(wall, wall if device != "cpu" else time.process_time() - busy)


def finish(device: str) -> None:
    """Wait until a GPU has nothing left to do."""
    if device != "cpu":
        torch.cuda.synchronize(device)
