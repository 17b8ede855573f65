"""What a compressed network may cost: one value, for suites, the command line and the compressors alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from compressors.annotations import Number, WholeNumber
from compressors.quantization.widths import MAX_BITS, MIN_BITS


class OptionError(ValueError):
    """An option that its compressor, network or data set does not have, a value it refuses, or a contradiction."""

    exit_status = 2


class BudgetError(OptionError):
    """A budget that no compressor can meet, such as a density outside (0, 1], or one that this compressor cannot."""


KINDS = ("none", "density", "bits", "density+bits", "synops")
"""The kinds of budget: what is limited."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "density": {"density": 0.3},
    "bits": {"bits": 4},
    "density+bits": {"density": 0.5, "bits": 3},
    "synops": {"synops": 0.4},
    "none": {},
}
"""Kind of budget -> an example of it, as arguments of a compressor."""


@dataclass(frozen=True)
class Budget:
    """What a compressed network may cost; a budget that limits nothing is the dense network's.

    Args:
        density: share of the weights of the compressed layers to keep, in (0, 1].
        bits: width of a weight, 2 to 8; None leaves floats.
        synops: share of the dense network's synaptic operations in the compressed layers to keep, in (0, 1], at the
            activity of the dense network on the calibration data; it takes the place of the density.

    Raises:
        BudgetError: a number out of range, or a density beside ``synops``.
    """

    density: Number = 1.0
    bits: WholeNumber | None = None
    synops: Number | None = None

    def __post_init__(self) -> None:
        _check_fraction("density", self.density, "weights")
        if self.synops is not None:
            _check_fraction("synops", self.synops, "synaptic operations")
            if self.density != 1:
                raise BudgetError("density and synops are both limits on what is pruned: give one of them")
        if self.bits is not None and (not isinstance(self.bits, int) or not MIN_BITS <= self.bits <= MAX_BITS):
            raise BudgetError(f"bits is {self.bits!r}: give a whole number from {MIN_BITS} to {MAX_BITS}")

    @classmethod
    def names(cls) -> frozenset[str]:
        """What can be limited."""
        return frozenset(limit.name for limit in fields(cls))

    @property
    def limits(self) -> Mapping[str, Any]:
        """What is limited, by name: ``{"density": 0.1, "bits": 4}``."""
        return {limit.name: value for limit in fields(self) if (value := getattr(self, limit.name)) != limit.default}

    @property
    def kind(self) -> str:
        """What is limited, one of :data:`KINDS`."""
        return "+".join(self.limits) or "none"

    @property
    def rank(self) -> tuple[float, ...]:
        """Sorts budgets by kind, then from generous to tight."""
        return (self.synops is not None, self.bits is not None, -self.density, -(self.bits or 0), -(self.synops or 0.0))

    @property
    def short(self) -> str:
        """For tables: ``0.1``, ``4 bit``, ``0.25, 4 bit`` or ``0.3 of SynOps``; nothing where nothing is limited."""
        return ", ".join(_SHORT[name].format(value) for name, value in self.limits.items())

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self.limits.items())


_SHORT = {"density": "{:g}", "bits": "{} bit", "synops": "{:g} of SynOps"}


def _check_fraction(name: str, value: Any, of: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not 0 < value <= 1:
        raise BudgetError(f"{name} is {value!r}: give a number above 0 and at most 1 (the share of {of} kept)")
