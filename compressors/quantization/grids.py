"""Uniform grids for weights: where their levels lie, and which level a weight goes to.

A grid of ``b`` bits has the levels ``scale * (code - zero)`` for the codes 0 to ``2^b - 1``. The zero point is a whole
number in that range, so zero is a level of every grid and a pruned weight stays an exact zero.

Symmetric grids follow the reference code of OBC (Frantar, Singh, Alistarh, arXiv 2208.11580), GPTQ and SBC: zero
point ``2^(b-1)``, step ``2 max|w| / (2^b - 1)`` before any search. Their levels run from ``-2^(b-1)`` to
``2^(b-1) - 1`` steps (two bits: -2, -1, 0, 1), so the largest positive weights are clamped. Asymmetric grids span the
row's least and largest weight, stretched to take in zero, and put the zero point on the nearest code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.quantization.widths import MAX_BITS, MIN_BITS
from hardware.memory import WeightCoding
from hardware.storage import StoredWeights

SCOPES = ("channel", "tensor")
SHRINK_FACTORS = tuple(1 - i / 100 for i in range(80))  # 1.00, 0.99, ... 0.21 of the range: OBC's search
ERROR_NORM = 2.4  # OBC's: large errors weigh somewhat more than in the mean square


class GridError(ValueError):
    """A grid that does not exist (such as one outside 2 to 8 bits), or weights that no grid can hold (not finite)."""

    exit_status = 2


@dataclass(frozen=True, eq=False)
class Grid:
    """A uniform grid for a weight matrix ``[rows, d]``.

    Values lie on the grid to the bit. This survives a solver in float64 if the grid was fitted in the parameter's
    float32 and widened by :meth:`to`: a 24-bit scale times a whole number below 256 is exact there, so rounding it to
    float32 gives what float32 would have computed.

    Args:
        bits: width of a code, 2 to 8.
        scale: the step between two levels, above 0: ``[rows, 1]``, or ``[1, 1]`` for the whole matrix.
        zero: the code of the value zero, a whole number; shape and dtype of ``scale``.

    Raises:
        GridError: a width outside 2 to 8 bits.
    """

    bits: int
    scale: Tensor
    zero: Tensor

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise GridError(f"a grid of {self.bits!r} bits: give {MIN_BITS} to {MAX_BITS}")

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is the middle ``2^(bits-1)``, which hardware need not store."""
        return bool((self.zero == 2 ** (self.bits - 1)).all())

    def codes(self, weight: Tensor) -> Tensor:
        """The code of the nearest level, clamped to the grid: uint8 ``[rows, d]``.

        Raises:
            GridError: weights that are not finite, which no code stands for.
        """
        _check_finite(weight)
        return self._codes(weight).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """``scale * (codes - zero)`` in the scale's dtype: ``[rows, d]``."""
        return self.scale * (codes.to(self.scale.dtype) - self.zero)

    def nearest(self, weight: Tensor) -> Tensor:
        """The nearest level of each weight, ``values(codes(weight))`` to the bit; NaN stays NaN.

        A weight wider than the grid gives values of its own width: widen the grid first, see :meth:`to`.
        """
        return self._codes(weight).sub_(self.zero).mul_(self.scale)

    def to(self, like: Tensor | torch.dtype) -> "Grid":
        """The same grid in another dtype, or with the dtype and on the device of a tensor."""
        return Grid(self.bits, self.scale.to(like), self.zero.to(like))

    def coding(self) -> WeightCoding:
        """How hardware stores weights on this grid; codes, scales and the zero points of asymmetric grids."""
        return WeightCoding(
            bits=self.bits,
            scales=self.scale.numel(),
            scale_bits=8 * self.scale.element_size(),
            zero_points=0 if self.symmetric else self.zero.numel(),
            zero_point_bits=self.bits,
        )

    def stored(self) -> StoredWeights:
        """The same, with the levels themselves: what stands on a layer whose weights lie on this grid."""
        return StoredWeights(self.coding(), self.scale.detach().cpu(), self.zero.detach().cpu())

    def _codes(self, weight: Tensor) -> Tensor:
        return (weight / self.scale).round_().add_(self.zero).clamp_(0, 2**self.bits - 1)


def fit_grid(
    weight: Tensor,
    bits: int,
    *,
    per: str = "channel",
    symmetric: bool = True,
    search: bool = True,
    mask: Tensor | None = None,
) -> Grid:
    """A grid for the weights ``[rows, d]``, in their dtype and on their device.

    Rows of zeros, or whose step would fall below the smallest normal number, get step 1 and so become zeros. Rows of
    one sign use half of the codes of a symmetric grid, all of an asymmetric one.

    Args:
        weight: ``[rows, d]``, floating point.
        bits: 2 to 8.
        per: a grid for each ``channel`` (row), or one for the whole ``tensor``.
        symmetric: see the module's text.
        search: shrink the range by the factor of 1.00, 0.99, ... 0.21 that makes the sum of ``|error|^2.4`` least (the
            search of OBC's reference code), instead of taking it whole.
        mask: bool ``[rows, d]``: fit to the weights where it is True alone, the others being pruned.

    Raises:
        GridError: a width outside 2 to 8 bits, weights that are not finite, or another ``per``.
    """
    if per not in SCOPES:
        raise GridError(f"a grid per {per!r}: give one of {', '.join(SCOPES)}")
    _check_finite(weight)
    kept = weight if mask is None else weight.masked_fill(~mask, 0.0)
    rows = kept if per == "channel" else kept.reshape(1, -1)
    grid = _whole_range(rows, bits, symmetric)
    return _shrunk(rows, grid) if search else grid


def paper_grid(weight: Tensor, bits: int) -> Grid:
    """The grid of SBC's public code: one for each row, symmetric, over the whole range (arXiv 2506.03996).

    One oddity of that code is left out: it halves the step of rows without any negative weight, so that their weights
    from about half of the largest up are clamped.
    """
    return fit_grid(weight, bits, search=False)


def _check_finite(weight: Tensor) -> None:
    if not torch.isfinite(weight).all():
        row = int((~torch.isfinite(weight)).flatten(1).any(1).nonzero()[0])
        raise GridError(f"row {row} of the weight has NaN or infinite entries: they cannot be quantised")


def _whole_range(rows: Tensor, bits: int, symmetric: bool) -> Grid:
    top = 2**bits - 1
    high = rows.amax(1, keepdim=True).clamp_min(0.0)
    low = rows.amin(1, keepdim=True).clamp_max(0.0)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = high / top - low / top
    scale = torch.where(scale < torch.finfo(scale.dtype).tiny, 1.0, scale)
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else (low.abs() / scale).round()
    return Grid(bits, scale, zero)


def _shrunk(rows: Tensor, grid: Grid) -> Grid:
    """The grid shrunk about its zero by each row's best factor; errors are measured in steps of the whole range."""
    steps = rows / grid.scale
    least = torch.full_like(grid.scale, torch.inf)
    best = torch.ones_like(grid.scale)
    for factor in SHRINK_FACTORS:
        candidate = Grid(grid.bits, torch.full_like(grid.scale, factor), grid.zero)
        error = candidate.nearest(steps).sub_(steps).abs_().pow_(ERROR_NORM).sum(1, keepdim=True)
        best = torch.where(error < least, factor, best)
        least = torch.minimum(error, least)
    return Grid(grid.bits, grid.scale * best, grid.zero)
