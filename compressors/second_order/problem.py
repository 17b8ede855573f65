"""A layer's least-squares problem, and the patterns its weights may be pruned in."""

from dataclasses import dataclass

from torch import Tensor

from compressors.second_order import obs


class PatternError(ValueError):
    """A sparsity pattern that is unknown, or that a solver cannot prune in."""

    exit_status = 2


@dataclass(frozen=True)
class Problem:
    """A layer's least-squares problem.

    Args:
        weight: ``[rows, d]``, the weights whose output is to be kept, of the Hessian's dtype.
        hessian: ``[groups, d, d]``, damped.
        batchnorm_factor: ``[rows]``: the factor that BatchNorm puts on each row's output; ones without it, or where
            all rows are to count alike.
    """

    weight: Tensor
    hessian: Tensor
    batchnorm_factor: Tensor

    @property
    def operations(self) -> float:
        """Floating-point operations of exact elimination: ``2 d^3 / 3`` a row."""
        rows, columns = self.weight.shape
        return 2 / 3 * rows * columns**3

    def loss(self, after: Tensor) -> float:
        """The layer's loss when its weight is ``after``; BatchNorm's factors play no part in it."""
        return obs.layer_loss(self.weight, after, self.hessian)

    def after_batchnorm(self, losses: Tensor) -> Tensor:
        """Losses (or saliencies) ``[rows, n]`` of each row, as squared errors behind BatchNorm: of the same shape.

        In these units, rows can be compared with each other.
        """
        return losses * self.batchnorm_factor.square()[:, None]


@dataclass(frozen=True)
class Pattern:
    """Which weights may be pruned: any (``unstructured``), all but N of every M neighbours, or whole blocks of four.

    Args:
        name: ``unstructured``, N:M such as ``2:4`` (two of four neighbouring weights of a row are kept), or ``block4``.

    Raises:
        PatternError: another name.
    """

    name: str = "unstructured"

    def __post_init__(self) -> None:
        if self.name not in ("unstructured", "block4") and not self.groups:
            raise PatternError(f"unknown pattern {self.name!r}: give 'unstructured', 'block4' or N:M, such as '2:4'")

    @property
    def groups(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern, ``0 < N < M``; None of another pattern."""
        kept, colon, of = self.name.partition(":")
        if not colon or not (kept.isdecimal() and of.isdecimal()) or not 0 < int(kept) < int(of):
            return None
        return int(kept), int(of)
