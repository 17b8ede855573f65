"""Weight memory in bits, in the formats hardware really uses.

With N weights of which n are kept, b bits each, in R rows (output channels) of C columns:

- dense    N b
- bitmask  N + n b
- csr8     n (b + 8) + (R + 1) ceil(log2(n + 1))      a row longer than 2**8 columns cannot use it
- csr16    n (b + 16) + (R + 1) ceil(log2(n + 1))
- csr      the same with the least index, ceil(log2 C) bits
- bound    N H(n / N) + n b: the entropy bound, which no format beats on random masks (not a format)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2


@dataclass(frozen=True)
class WeightCoding:
    """How the weights of one layer are stored.

    Args:
        bits: bits of one weight.
        scales: number of scale factors (and zero points or code book entries) kept beside the weights.
        scale_bits: bits of one scale factor.
    """

    bits: int = 32
    scales: int = 0
    scale_bits: int = 32

    def __post_init__(self) -> None:
        if self.bits < 1 or self.scales < 0 or self.scale_bits < 0:
            raise ValueError(f"{self}: bits must be at least 1, scales and scale_bits at least 0")

    @property
    def side_bits(self) -> int:
        """Bits of what is kept beside the weights."""
        return self.scales * self.scale_bits


def index_bits(values: int) -> int:
    """Bits that tell `values` different values apart: ceil(log2 values)."""
    return max(0, values - 1).bit_length()


def entropy_bound_bits(weights: int, kept: int, bits: int) -> float:
    """N H(n/N) + n b: the fewest bits, on average, for a random mask and arbitrary values."""
    if kept in (0, weights):
        return float(kept * bits)
    density = kept / weights
    entropy = -density * log2(density) - (1 - density) * log2(1 - density)
    return weights * entropy + kept * bits


def _csr_bits(kept: int, rows: int, bits: int, column_bits: int) -> int:
    return kept * (bits + column_bits) + (rows + 1) * index_bits(kept + 1)


def format_bits(rows: int, columns: int, kept: int, bits: int) -> dict[str, int]:
    """Bits of a [rows, columns] weight matrix with `kept` nonzero entries, per format that can hold it."""
    weights = rows * columns
    sizes = {
        "dense": weights * bits,
        "bitmask": weights + kept * bits,
        "csr": _csr_bits(kept, rows, bits, index_bits(columns)),
    }
    for width in (8, 16):
        if columns <= 2**width:
            sizes[f"csr{width}"] = _csr_bits(kept, rows, bits, width)
    return sizes


def best_format(sizes: Mapping[str, int]) -> str:
    """The name of the smallest format; of equals, the first."""
    return min(sizes, key=lambda name: sizes[name])
