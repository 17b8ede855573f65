"""Synaptic operations: the exact number of (nonzero input entry, nonzero weight) pairs.

A pair is one operation, because the event reaches the synapse and the synapse is there. All counts are
integers. They are computed in float32 only where every partial sum stays below 2**24, where float32
represents each integer, whatever the order of the sum. Accelerators multiply and sum rather than take a matrix
product, so that none of their reduced precision modes (TF32, bfloat16) can touch the counts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT_FLOAT32, _EXACT_FLOAT64 = 2**24, 2**53


def count_pairs(values: Tensor, fan_out: Tensor, largest: float = 1.0) -> Tensor:
    """Sum the fan-out of the entries, each times its value, exactly.

    Args:
        values: float32 [rows, entries], integers from 0 to `largest`; zeros and ones to count events.
        fan_out: float32 [entries], integers >= 0.
        largest: bound of the values.

    Returns:
        int64 [rows].
    """
    bound = max(1, int(fan_out.max())) * max(1, int(largest))
    if bound > _EXACT_FLOAT32:
        values, fan_out = values.double(), fan_out.double()
    span = (_EXACT_FLOAT32 if bound <= _EXACT_FLOAT32 else _EXACT_FLOAT64) // bound
    counts = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    for part, reach in zip(values.split(span, dim=1), fan_out.split(span), strict=True):
        counts += (part @ reach if part.device.type == "cpu" else (part * reach).sum(1)).to(torch.int64)
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
        smallest: smallest magnitude of a nonzero value (infinity before the first); up to rounding, but equal
            to `largest` only if all magnitudes are.
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


@dataclass(frozen=True)
class Examined:
    """What an activation holds: magnitudes, a one wherever it is not zero (both float32), and its range."""

    magnitude: Tensor
    indicator: Tensor
    values: ValueRange


def spikes(activation: Tensor, events: int) -> Examined:
    """What an activation holds that is known to be zeros and ones (float32), `events` of them ones."""
    return Examined(activation, activation, ValueRange(1.0 if events else float("inf"), 1.0 if events else 0.0))


def examine(activation: Tensor) -> Examined:
    """Look at an activation in as few passes as its values allow: spikes are the usual case."""
    activation = activation.float()
    lowest, largest = (float(v) for v in torch.aminmax(activation))
    integer = torch.equal(activation.trunc(), activation)
    if integer and lowest >= 0 and largest <= 1:
        return spikes(activation, events=int(largest))
    sign, negative = activation.sign(), lowest < 0
    magnitude, indicator = (activation.abs(), sign.abs()) if negative else (activation, sign)
    largest = max(largest, -lowest)
    # Entries below the largest are below zero here, the zeros and the largest are zero.
    smallest = float(torch.add(magnitude, indicator, alpha=-largest).min()) + largest
    return Examined(magnitude, indicator, ValueRange(smallest, largest, negative, integer))


def events(indicator: Tensor) -> int:
    """Number of ones in zeros and ones [rows, ...], exact for rows below 2**24 entries."""
    return int(indicator.flatten(1).sum(1).sum(dtype=torch.float64))
