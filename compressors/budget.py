"""What a compressed network may cost."""

import math
from dataclasses import dataclass
from typing import Any

from compressors.quantization.grids import MAX_BITS, MIN_BITS


class BudgetError(ValueError):
    """A budget that no compressor can meet, such as a density outside (0, 1]."""

    exit_status = 2


KINDS = ("none", "density", "bits", "density+bits", "synops")
"""The kinds of budget: what is limited."""


@dataclass(frozen=True)
class Budget:
    """What a compressed network may cost.

    Args:
        density: share of the weights of the compressed layers to keep, in (0, 1].
        bits: width of a weight, 2 to 8; None leaves floats.
        synops: share of the dense network's synaptic operations in the compressed layers to keep, in (0, 1], at the
            activity of the dense network on the calibration data; it takes the place of the density.

    Raises:
        BudgetError: a number out of range, or a density beside ``synops``.
    """

    density: float = 1.0
    bits: int | None = None
    synops: float | None = None

    def __post_init__(self) -> None:
        _share("density", self.density, "weights")
        if self.synops is not None:
            _share("synops", self.synops, "synaptic operations")
            if self.density != 1:
                raise BudgetError("density and synops are both limits on what is pruned: give one of them")
        if self.bits is not None and (not isinstance(self.bits, int) or not MIN_BITS <= self.bits <= MAX_BITS):
            raise BudgetError(f"bits is {self.bits!r}: give a whole number from {MIN_BITS} to {MAX_BITS}")

    def __str__(self) -> str:
        named = {"density": self.density if self.density != 1 else None, "bits": self.bits, "synops": self.synops}
        return ", ".join(f"{name} {value:g}" for name, value in named.items() if value is not None)


def _share(name: str, value: Any, of: str) -> None:
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 < value <= 1:
        raise BudgetError(f"{name} is {value!r}: give a number above 0 and at most 1 (the share of {of} kept)")
