"""A layer's least-squares problem, and the patterns its weights may be pruned in."""

from dataclasses import dataclass

from torch import Tensor

from compressors.second_order import obs


@dataclass(frozen=True)
class Problem:
    """A layer's least-squares problem.

    Args:
        weight: ``[rows, d]``, the weights whose output is to be kept, of the Hessian's dtype.
        hessian: ``[groups, d, d]``, damped.
        gain: ``[rows]``: the factor that BatchNorm puts on each row's output; losses of rows compare by its square.
    """

    weight: Tensor
    hessian: Tensor
    gain: Tensor

    @property
    def operations(self) -> float:
        """Floating-point operations of exact elimination: ``2 d^3 / 3`` a row."""
        rows, columns = self.weight.shape
        return 2 / 3 * rows * columns**3

    def loss(self, after: Tensor) -> float:
        """The layer's loss when its weight is ``after`` (without gains)."""
        return obs.layer_loss(self.weight, after, self.hessian)


@dataclass(frozen=True)
class Pattern:
    """Where weights may go: anywhere, ``kept`` of every ``of`` neighbouring ones, or in blocks of four."""

    name: str = "unstructured"

    def __post_init__(self) -> None:
        if self.name not in ("unstructured", "block4") and not self.groups:
            raise ValueError(f"unknown pattern {self.name!r}: give 'unstructured', 'block4' or N:M, such as '2:4'")

    @property
    def groups(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern."""
        kept, colon, of = self.name.partition(":")
        if not colon or not (kept.isdecimal() and of.isdecimal()) or not 0 < int(kept) < int(of):
            return None
        return int(kept), int(of)
