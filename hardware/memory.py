"""Weight memory in bits, in the formats hardware really uses.

A format stores a number of slots of `bits` bits, and an overhead of index bits. With N weights in R rows
(output channels) of C columns, n of them kept, F input channels:

| format   | slots                             | overhead in bits                                          |
|----------|-----------------------------------|-----------------------------------------------------------|
| dense    | N                                 | 0                                                         |
| bitmask  | n                                 | N                                                         |
| csr      | n                                 | n ceil(log2 C) + (R + 1) ceil(log2(n + 1))                |
| csr8/16  | n                                 | n 8 (16) + (R + 1) ceil(log2(n + 1)); C <= 2^8 (2^16)     |
| relative | n + fillers                       | 4 a slot: zeros run-length coded, EIE (arXiv 1602.01528)  |
| p:M      | p per M consecutive weights       | log2 M a slot; p is the largest number kept in a group    |
| block4x4 | 16 per block that keeps a weight  | 1 per block                                               |
| narrowed | kept rows x kept channels x taps  | R + F, which rows and input channels are kept             |

A format with more slots than kept weights stores zeros, so the weight grid must have a zero. The entropy bound
N H(n / N) + n log2(2^b - 1) is not a format: no format beats it on average over random masks, as a weight that is
kept has one of the 2^b - 1 codes that are not zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

RUN_BITS = 4
GROUPS = (4, 8, 16)
BLOCK = 4
_CHUNK = 2**20


@dataclass(frozen=True)
class WeightCoding:
    """How the weights of one layer are stored.

    Args:
        bits: bits of one weight.
        scales: number of scale factors and code book entries kept beside the weights.
        scale_bits: bits of each of these.
        zero_points: number of zero points.
        zero_point_bits: bits of one zero point.
        bias_bits: bits of one bias, folded BatchNorm included.
        has_zero: whether the weight grid contains zero; without it a pruned weight needs a mask.
    """

    bits: int = 32
    scales: int = 0
    scale_bits: int = 32
    zero_points: int = 0
    zero_point_bits: int = 8
    bias_bits: int = 32
    has_zero: bool = True

    def __post_init__(self) -> None:
        sizes = (self.scales, self.scale_bits, self.zero_points, self.zero_point_bits, self.bias_bits)
        if self.bits < 1 or min(sizes) < 0:
            raise ValueError(f"{self}: bits must be at least 1, all other numbers at least 0")

    @property
    def side_bits(self) -> int:
        """Bits of scales, code book and zero points."""
        return self.scales * self.scale_bits + self.zero_points * self.zero_point_bits


@dataclass(frozen=True)
class Mask:
    """What the formats need to know of a layer's zeros.

    Args:
        rows: output channels.
        columns: weights per row.
        channels: input channels of a row.
        kept: nonzero weights.
        kept_rows: rows with a nonzero weight.
        kept_channels: input channels with a nonzero weight.
        fillers: slots that only bridge a run of 16 zeros in the relative format.
        peaks: the most weights kept in any M consecutive of a row, for each M of `GROUPS`.
        blocks: blocks of 4 x 4 weights, the last ones padded.
        kept_blocks: blocks with a nonzero weight.
    """

    rows: int
    columns: int
    channels: int
    kept: int
    kept_rows: int
    kept_channels: int
    fillers: int
    peaks: tuple[int, ...]
    blocks: int
    kept_blocks: int

    @classmethod
    def of(cls, present: NDArray[np.bool_]) -> "Mask":
        """Summarise which weights are there: bool [rows, channels, *taps]."""
        matrix = present.reshape(len(present), -1)
        blocks = in_blocks(matrix).any(axis=(1, 3))
        return cls(
            rows=matrix.shape[0],
            columns=matrix.shape[1],
            channels=present.shape[1],
            kept=int(np.count_nonzero(matrix)),
            kept_rows=int(matrix.any(1).sum()),
            kept_channels=int(present.any(axis=(0, *range(2, present.ndim))).sum()),
            fillers=_fillers(matrix.ravel()),
            peaks=tuple(int(in_groups(matrix, size).sum(-1, dtype=np.uint8).max()) for size in GROUPS),
            blocks=blocks.size,
            kept_blocks=int(blocks.sum()),
        )


def _fillers(present: NDArray[np.bool_]) -> int:
    """Runs of 16 zeros before a kept weight, in chunks: the indices of a large layer would fill the memory."""
    fillers, last = 0, -1
    for start in range(0, len(present), _CHUNK):
        places = np.flatnonzero(present[start : start + _CHUNK]) + start
        fillers += int(((np.diff(places, prepend=last) - 1) >> RUN_BITS).sum())
        last = int(places[-1]) if len(places) else last
    return fillers


def in_groups(matrix: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Cut rows into groups of `size` consecutive entries, zeros at the end: [rows, groups, size]."""
    return np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % size))).reshape(len(matrix), -1, size)


def in_blocks(matrix: NDArray[np.generic]) -> NDArray[np.generic]:
    """Cut a matrix into blocks, zeros at the ends: [block rows, BLOCK, block columns, BLOCK]."""
    padded = np.pad(matrix, [(0, -n % BLOCK) for n in matrix.shape])
    return padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)


def index_bits(values: int) -> int:
    """Bits that tell `values` different values apart: ceil(log2 values)."""
    return max(0, values - 1).bit_length()


def layouts(mask: Mask) -> dict[str, tuple[int, int]]:
    """Slots and overhead bits of every format that can hold a layer with these zeros."""
    weights, kept = mask.rows * mask.columns, mask.kept
    pointers = (mask.rows + 1) * index_bits(kept + 1)
    taps = mask.columns // mask.channels
    relative = kept + mask.fillers
    formats = {
        "dense": (weights, 0),
        "bitmask": (kept, weights),
        "csr": (kept, kept * index_bits(mask.columns) + pointers),
        "relative": (relative, relative * RUN_BITS),
        "block4x4": (mask.kept_blocks * BLOCK**2, mask.blocks),
        "narrowed": (mask.kept_rows * mask.kept_channels * taps, mask.rows + mask.channels),
    }
    for width in (8, 16):
        if mask.columns <= 2**width:
            formats[f"csr{width}"] = (kept, kept * width + pointers)
    for size, peak in zip(GROUPS, mask.peaks, strict=True):
        slots = mask.rows * -(-mask.columns // size) * peak
        formats[f"{peak}:{size}"] = (slots, slots * index_bits(size))
    return formats


def format_bits(mask: Mask, coding: WeightCoding) -> dict[str, int]:
    """Bits of a layer's weights in each format that can hold them, index included, scales excluded."""
    return {
        name: slots * coding.bits + overhead
        for name, (slots, overhead) in layouts(mask).items()
        if coding.has_zero or slots == mask.kept
    }


def best_format(sizes: Mapping[str, int]) -> str:
    """The name of the smallest format; of equals, the first."""
    return min(sizes, key=lambda name: sizes[name])


def entropy_bound_bits(weights: int, kept: int, bits: int) -> float:
    """N H(n / N) + n log2(2^b - 1): the fewest bits, on average, for a random mask and arbitrary nonzero codes."""
    values = kept * log2(2**bits - 1)
    if kept in (0, weights):
        return values
    density = kept / weights
    entropy = -density * log2(density) - (1 - density) * log2(1 - density)
    return weights * entropy + values
