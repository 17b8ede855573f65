"""Synaptic operations: the exact number of (nonzero input entry, nonzero weight) pairs.

A pair is one operation, because the event reaches the synapse and the synapse is there. All counts are
integers. They are computed in float32 only where every partial sum stays below 2**24, where float32
represents each integer, and by multiply-and-sum rather than by a matrix product, so that no reduced precision
mode (TF32, bfloat16) of a device can touch them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT_FLOAT32 = 2**24


def count_pairs(indicator: Tensor, fan_out: Tensor) -> Tensor:
    """Sum the fan-out of the entries that are there, exactly.

    Args:
        indicator: float32 [rows, entries] of zeros and ones.
        fan_out: float32 [entries], integers >= 0.

    Returns:
        int64 [rows].
    """
    widest = int(fan_out.max()) if fan_out.numel() else 0
    span = max(1, _EXACT_FLOAT32 // max(1, widest))
    counts = torch.zeros(len(indicator), dtype=torch.int64, device=indicator.device)
    for present, reach in zip(indicator.split(span, dim=1), fan_out.split(span), strict=True):
        counts += (present * reach).sum(1).to(torch.int64)
    return counts


def count_products(left: Tensor, right: Tensor) -> Tensor:
    """Pairs of nonzero entries that meet in a matrix product.

    Entry (n, k) of the left factor meets the row k of the right one, so sum_k (sum_n l_nk) (sum_m r_km)
    counts them without a product of the matrices.

    Args:
        left: zeros and ones [..., n, k].
        right: zeros and ones [..., k, m].

    Returns:
        int64 [...], one count per matrix.
    """
    columns, rows = left.sum(-2, dtype=torch.int64), right.sum(-1, dtype=torch.int64)
    return (columns * rows).sum(-1)


@dataclass(frozen=True)
class ValueRange:
    """What is known of the values a layer has received; decides between accumulate and multiply-accumulate.

    Args:
        smallest: smallest magnitude of a nonzero value (infinity before the first).
        largest: largest magnitude.
        negative: whether a value below zero was seen.
        integer: whether all values were integers.
    """

    smallest: float = float("inf")
    largest: float = 0.0
    negative: bool = False
    integer: bool = True

    def __or__(self, other: "ValueRange") -> "ValueRange":
        return ValueRange(
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            self.negative or other.negative,
            self.integer and other.integer,
        )

    @property
    def kind(self) -> str:
        """One of silent, spikes (0, 1), ternary (-1, 0, 1), graded (integers), scaled ({0, theta}), real.

        The range covers the whole test set, so that the kind does not depend on how samples are batched: a
        layer that once receives a real value needs a multiplier.
        """
        if self.largest == 0.0:
            return "silent"
        if self.integer and self.largest == 1.0:
            return "ternary" if self.negative else "spikes"
        if self.smallest == self.largest:
            return "scaled"
        return "graded" if self.integer else "real"

    @property
    def bits(self) -> int:
        """Bits of one entry in a buffer: 1 for an event, more for signs and grades, 32 for a real value."""
        kind = self.kind
        if kind == "real":
            return 32
        return max(1, int(self.largest).bit_length() if kind == "graded" else 1) + self.negative


def examine(values: Tensor) -> tuple[Tensor, ValueRange]:
    """Return where `values` are not zero (float32, same shape) and what values they take."""
    values = values if values.is_floating_point() else values.float()
    if torch.equal(values.sign(), values):  # only -1, 0 and 1: nothing more to compute, the usual case
        lowest, highest = (float(v) for v in torch.aminmax(values))
        indicator = (values.abs() if lowest < 0 else values).float()
        there = max(-lowest, highest)
        return indicator, ValueRange(1.0 if there else float("inf"), there, lowest < 0)
    magnitude = values.abs()
    present = values != 0
    smallest = float(magnitude.masked_fill(~present, float("inf")).min())
    return present.float(), ValueRange(
        smallest, float(magnitude.max()), bool((values < 0).any()), torch.equal(values.trunc(), values)
    )
