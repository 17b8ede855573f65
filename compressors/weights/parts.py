"""One layer's part in a compression: what it may keep, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from compressors.quantization.grids import Grid


@dataclass(frozen=True)
class LayerBudget:
    """A layer's part of the budget: how many weights it keeps, and their width (None: floats)."""

    keep: int
    bits: int | None = None


@dataclass(frozen=True)
class LayerResult:
    """A compressed layer before it is written back.

    Args:
        weight: ``[rows, d]``.
        mask: bool ``[rows, d]``, True is kept.
        loss: the method's own estimate of the harm, where it has one.
        grid: of a quantised weight.
        extra: what else stands in the record (JSON-able).
    """

    weight: Tensor
    mask: Tensor
    loss: float | None = None
    grid: Grid | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
