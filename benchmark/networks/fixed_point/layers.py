"""Layers that compute with whole numbers in floating point, exactly, and what stands before and behind them.

A float32 holds every whole number up to 2^24, a float64 up to 2^53: while no sum of products can become larger, sums
are exact in whatever order they are taken. What is left to see to is that sums are what the library computes:
Winograd's convolution and Fourier transforms divide, and some accelerators round factors to fewer bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numba import prange
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from benchmark.networks.fixed_point.scheme import FixedPointError
from compressors.threads import parallel_loop


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Convolutions and matrix products inside add up products in the precision of their factors."""
    precision = torch.get_float32_matmul_precision()
    library = torch.backends.cudnn if device.type == "cuda" else torch.backends.nnpack
    torch.set_float32_matmul_precision("highest")
    try:
        with library.flags(enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


class _Exact:
    """What the layers below have in common."""

    def forward(self, x: Tensor) -> Tensor:
        """The sums."""
        with exact(x.device):
            return super().forward(x)  # type: ignore[misc]


class ExactLinear(_Exact, layer.Linear):
    """A linear layer whose sums are exact."""


class ExactConv1d(_Exact, layer.Conv1d):
    """A convolution whose sums are exact."""


class ExactConv2d(_Exact, layer.Conv2d):
    """A convolution whose sums are exact."""


EXACT = {nn.Linear: ExactLinear, nn.Conv1d: ExactConv1d, nn.Conv2d: ExactConv2d}


def make_exact(module: Any) -> None:
    """Give a layer the class whose sums are exact; it stays the very same module."""
    module.__class__ = next(exact_kind for kind, exact_kind in EXACT.items() if isinstance(module, kind))
    module.step_mode = "m"


class WholeNumbers(nn.Module):
    """Hands on an input of whole numbers, and refuses any other.

    Args:
        largest: magnitude up to which all sums behind it are exact.
    """

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, x: Tensor) -> Tensor:
        """The input ``[T, B, ...]``.

        Raises:
            FixedPointError: it holds fractions, or too large numbers.
        """
        fractions, largest = _looked_at((x[:1] if x.stride(0) == 0 else x).detach())
        if fractions:
            raise FixedPointError("the input is not of whole numbers, as numbers of events are: give such data")
        if largest > self.largest:
            raise FixedPointError(
                f"the input has {largest:g} events in one place, and sums are exact up to {self.largest}: give more "
                "time steps, or fewer weight bits"
            )
        return x


class Unit(nn.Module):
    """Turns whole numbers into what they stand for.

    Args:
        unit: of one of them.
    """

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """The product, float32."""
        return (x.double() * self.unit).float()


def _looked_at(x: Tensor) -> tuple[bool, float]:
    """Whether there are fractions, and the largest magnitude."""
    if x.device.type != "cpu":
        return bool((x != x.round()).any()), float(x.abs().amax())
    rows = x if x.is_contiguous() else x.transpose(0, 1)  # as samples lie in memory, so that nothing is copied
    fractions, largest = _look_at(rows.contiguous().flatten(1).numpy())
    return bool(fractions), float(largest)


@parallel_loop
def _look_at(x):  # type: ignore[no-untyped-def]
    """The same of ``x [n, m]``, in one pass."""
    fractions, largest = 0, np.float64(0)
    for row in prange(len(x)):
        most, broken = x[row, 0] * 0, 0
        for value in x[row]:
            broken += value != np.floor(value)
            most = max(most, abs(value))
        fractions += broken
        largest = max(largest, np.float64(most))
    return fractions, largest
