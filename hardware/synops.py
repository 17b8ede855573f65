"""Synaptic operations: the exact number of (nonzero input entry, nonzero weight) pairs.

A pair is one operation, because the event reaches the synapse and the synapse is there. All counts are
integers. They are computed in float32 only where every partial sum stays below 2**24, where float32
represents each integer, whatever the order of the sum. Accelerators multiply and sum rather than take a matrix
product, so that none of their reduced precision modes (TF32, bfloat16) can touch the counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf, isfinite
from operator import add

import torch
from torch import Tensor

_EXACT_FLOAT32, _EXACT_FLOAT64 = 2**24, 2**53
_IN_CACHE = 2**18  # entries: 1 MiB of float32, and as much again for an intermediate result


@dataclass(frozen=True)
class ValueRange:
    """What is known of the values a layer has received; decides between accumulate and multiply-accumulate.

    Args:
        smallest: no nonzero value has a smaller magnitude (infinity before the first); equal to `largest` only if
            all magnitudes are.
        largest: largest magnitude.
        negative: whether a value below zero was seen.
        integer: whether all values were integers, of at most 2**24: above, float32 holds nothing else.
    """

    smallest: float = inf
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
    def is_binary(self) -> bool:
        """Whether all values were 0 or 1."""
        return self.integer and self.largest <= 1 and not self.negative

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
    """What an activation holds: number of entries that are not zero, and range of the values."""

    events: int
    values: ValueRange


def examine(activation: Tensor) -> Examined:
    """Look at an activation in as few passes as its values allow: zeros and ones are the usual case."""
    if not activation.is_floating_point():
        activation = activation.float()
    pieces = _pieces(activation)
    if all(map(_is_binary, pieces)):
        return of_spikes(activation)
    events = sum(int(indicator(piece).sum()) for piece in pieces)
    lowest, largest = (float(v) for v in torch.aminmax(activation))
    negative, largest = lowest < 0, max(largest, -lowest)
    if not isfinite(largest):  # also of NaN
        return Examined(events, ValueRange(0.0, inf, negative, integer=False))
    # One counter-example settles either question, and is usually found in the first piece.
    integer = largest <= _EXACT_FLOAT32 and not any(_any(piece.frac()) for piece in pieces)
    uniform = not any(_any(torch.add(piece.abs(), indicator(piece), alpha=-largest)) for piece in pieces)
    return Examined(events, ValueRange(largest if uniform else 0.0, largest, negative, integer))


def of_spikes(activation: Tensor) -> Examined:
    """What an activation holds that is known to be zeros and ones."""
    events = sum(int(part.sum(dtype=torch.float32)) for part in activation.reshape(-1).split(_EXACT_FLOAT32))
    return Examined(events, ValueRange(1.0, 1.0) if events else ValueRange())


def indicator(activation: Tensor) -> Tensor:
    """A float32 one wherever the activation is not zero."""
    # Written as float32 at once: a comparison that makes booleans takes ten times as long on the CPU.
    return torch.ne(activation, 0, out=torch.empty_like(activation, dtype=torch.float32))


def _is_binary(values: Tensor) -> bool:
    """Whether all values are 0 or 1: only these equal their square, also as rounded in floating point."""
    return not _any(torch.addcmul(values, values, values, value=-1))


def _any(values: Tensor) -> bool:
    """Whether any value is not zero (infinities and NaN are not); overwrites the values."""
    # A sum of magnitudes is zero only if all are, and takes a tenth of the time of torch.any and torch.equal.
    return bool(values.abs_().sum())


def _pieces(values: Tensor) -> Sequence[Tensor]:
    """Flat pieces, small enough for float32 to count their entries."""
    return values.reshape(-1).split(_piece_size(values))


def _piece_size(values: Tensor) -> int:
    """Entries of a piece: on the CPU so few that intermediate results stay in its cache."""
    return _IN_CACHE if values.device.type == "cpu" else _EXACT_FLOAT32


def count_pairs(rows: Tensor, fan_out: Tensor, largest: int, values: ValueRange) -> Tensor:
    """Sum the fan-out of the entries that are not zero, exactly.

    Args:
        rows: [rows, entries], an activation.
        fan_out: float32 [entries], integers >= 0.
        largest: no fan-out is larger.
        values: range of the activation.

    Returns:
        int64 [rows].
    """
    if values.is_binary:
        return _weighted_sums(rows, fan_out, largest)
    blocks = rows.split(max(1, _piece_size(rows) // rows.shape[1]))
    return torch.cat([_weighted_sums(indicator(block), fan_out, largest) for block in blocks])


def count_by_value(rows: Tensor, fan_out: Tensor, largest: int, values: ValueRange) -> int:
    """Sum the fan-out of integer entries, each as often as its magnitude says; arguments as of `count_pairs`."""
    weights = rows.abs() if values.negative else rows
    return int(_weighted_sums(weights, fan_out, largest * int(values.largest)).sum())


def _weighted_sums(weights: Tensor, fan_out: Tensor, bound: int) -> Tensor:
    """Sum weights [rows, entries] times fan_out [entries], none above the bound, over the entries: int64 [rows]."""
    exact, dtype = (_EXACT_FLOAT32, torch.float32) if bound <= _EXACT_FLOAT32 else (_EXACT_FLOAT64, torch.float64)
    weights, fan_out = weights.to(dtype), fan_out.to(dtype)
    span = exact // max(1, bound)
    if len(fan_out) <= span:
        return _matrix_vector(weights, fan_out)
    parts = zip(weights.split(span, dim=1), fan_out.split(span), strict=True)
    return reduce(add, (_matrix_vector(*part) for part in parts))


def _matrix_vector(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector if matrix.device.type == "cpu" else (matrix * vector).sum(1)).long()


def count_products(left: Tensor, right: Tensor) -> Tensor:
    """Pairs of nonzero entries that meet in a matrix product.

    Entry (n, k) of the left factor meets the row k of the right one, so sum_k (sum_n l_nk) (sum_m r_km)
    over their indicators l and r counts them without a product of the matrices.

    Args:
        left: activation [..., n, k].
        right: activation [..., k, m].

    Returns:
        int64 [...], one count per matrix.
    """
    columns, rows = indicator(left).sum(-2, dtype=torch.int64), indicator(right).sum(-1, dtype=torch.int64)
    return (columns * rows).sum(-1)


def count_row_products(left: Tensor, right: Tensor) -> Tensor:
    """As :func:`count_products`, by row of the left factor: int64 [..., n]."""
    reached = indicator(right).sum(-1, dtype=torch.int64)
    return (indicator(left) * reached[..., None, :]).sum(-1, dtype=torch.int64)


def count_meetings(left: Tensor, right: Tensor) -> int:
    """Number of entries where neither of two activations of one shape is zero."""
    pieces = zip(_pieces(left), _pieces(right), strict=True)
    return sum(int((indicator(one) * indicator(other)).sum()) for one, other in pieces)
