"""A layer's least-squares problem, and the patterns its weights may be pruned in."""

from dataclasses import dataclass, replace
from math import prod

import torch
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
        dead: bool ``[groups, d]``: inputs without any curvature of their own
            (:func:`~compressors.second_order.obs.without_curvature`); the weights are zero there, and are to go.
    """

    weight: Tensor
    hessian: Tensor
    batchnorm_factor: Tensor
    dead: Tensor

    @classmethod
    def of(cls, weight: Tensor, hessian: Tensor, batchnorm_factor: Tensor, damping: float) -> "Problem":
        """The problem of a Hessian ``[groups, d, d]`` without damping.

        Raises:
            HessianError: the Hessian is not finite.
        """
        dead = obs.without_curvature(hessian, damping)
        problem = cls(weight, obs.damped(hessian, damping), batchnorm_factor, dead)
        return replace(problem, weight=weight.masked_fill(problem.dead_weights, 0.0))

    @property
    def dead_weights(self) -> Tensor:
        """The weights of dead inputs: bool ``[rows, d]``."""
        return self.dead.repeat_interleave(len(self.weight) // len(self.dead), dim=0)

    def reordered(self, columns: Tensor) -> "Problem":
        """The same problem with its inputs in another order: ``columns [d]`` int64."""
        hessian = self.hessian[:, columns[:, None], columns]
        return replace(self, weight=self.weight[:, columns], hessian=hessian, dead=self.dead[:, columns])

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

    Neighbours in a convolution's weight are neighbouring input channels at one tap of the kernel, as in the published
    code of OBC and in hardware for 2:4 sparsity; behind the last channel of a tap comes the first of the next.

    Args:
        name: ``unstructured``, N:M such as ``2:4`` (two of four neighbouring weights of a row are kept), or ``block4``.

    Raises:
        PatternError: another name.
    """

    name: str = "unstructured"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or (self.name not in ("unstructured", "block4") and not self.groups):
            raise PatternError(f"unknown pattern {self.name!r}: give 'unstructured', 'block4' or N:M, such as '2:4'")

    def columns(self, shape: tuple[int, ...]) -> Tensor | None:
        """The order in which the columns of a weight ``[out, in, ...]`` are neighbours, ``[d]`` int64.

        None where it is theirs already: without a pattern, and where there is one tap.
        """
        inputs, taps = shape[1], prod(shape[2:])
        if self.name == "unstructured" or taps == 1:
            return None
        return torch.arange(inputs * taps).view(inputs, taps).T.flatten()

    @property
    def groups(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern, ``0 < N < M``; None of another pattern."""
        kept, colon, of = self.name.partition(":")
        if not colon or not (kept.isdecimal() and of.isdecimal()) or not 0 < int(kept) < int(of):
            return None
        return int(kept), int(of)
