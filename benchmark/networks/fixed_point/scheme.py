"""How wide the whole numbers of a fixed-point network are, and what its neurons do where they run out of them."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from compressors.quantization.widths import MAX_BITS, MIN_BITS

Overflow = Literal["saturate", "wrap"]
LeakKind = Literal["factor", "shift"]

NARROWEST, WIDEST = 8, 24  # potentials, bits
FRACTION_BITS = 12  # of a leak factor
EXACT_FLOAT32 = 2**24  # up to which a float32 holds every whole number
LARGEST_CURRENT = 2**30  # which leaves room for a potential in 32 bits


class FixedPointError(ValueError):
    """A network, an input or a width that has no form in whole numbers here; names what stands in the way."""

    exit_status = 2


@dataclass(frozen=True)
class FixedPoint:
    """Widths and rules of a fixed-point network. Whole numbers are signed, in two's complement.

    Args:
        weight_bits: of a weight, 2 to 8.
        potential_bits: of a membrane potential, a threshold and a bias, 8 to 24.
        overflow: a potential beyond its range stays at the range's end (``saturate``), or goes on at its other end
            (``wrap``).
        leak: what a potential keeps each step: a ``factor`` of 12 fractional bits, the product rounded towards zero;
            or all but itself shifted to the right (``shift``), the potential rounded towards minus infinity. A time
            constant that is no power of two becomes the nearest one with ``shift``.

    Raises:
        FixedPointError: a width out of range, or another word.
    """

    weight_bits: int = 8
    potential_bits: int = 16
    overflow: Overflow = "saturate"
    leak: LeakKind = "factor"

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.weight_bits <= MAX_BITS:
            raise FixedPointError(f"weights of {self.weight_bits} bits: give {MIN_BITS} to {MAX_BITS}")
        if not NARROWEST <= self.potential_bits <= WIDEST:
            raise FixedPointError(f"potentials of {self.potential_bits} bits: give {NARROWEST} to {WIDEST}")
        for what, word, words in (("overflow", self.overflow, Overflow), ("leak", self.leak, LeakKind)):
            if word not in get_args(words):
                raise FixedPointError(f"{what} is {word!r}: give one of {', '.join(get_args(words))}")

    @property
    def highest(self) -> int:
        """The largest potential."""
        return 2 ** (self.potential_bits - 1) - 1

    @property
    def lowest(self) -> int:
        """The least potential."""
        return -(2 ** (self.potential_bits - 1))

    def leak_of(self, tau: float | None) -> "Leak":
        """The leak of a neuron with a membrane time constant of ``tau`` steps, 1 or more; None: it does not leak."""
        if tau is None:
            return Leak("none", 0)
        if self.leak == "shift":
            return Leak("shift", round(math.log2(tau)))
        return Leak("factor", round((1 - 1 / tau) * 2**FRACTION_BITS))


@dataclass(frozen=True)
class Leak:
    """What a potential ``v`` becomes from step to step before it takes its input.

    ``none``: ``v``. ``shift``: ``v - (v >> amount)``. ``factor``: ``v * amount / 2^12``, rounded towards zero.
    """

    kind: Literal["none", "shift", "factor"]
    amount: int

    @property
    def kept(self) -> float:
        """The share of a potential that is left after a step, rounding aside."""
        return {"none": 1.0, "shift": 1 - 2.0**-self.amount, "factor": self.amount / 2**FRACTION_BITS}[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind, "amount": self.amount, "kept": self.kept}
