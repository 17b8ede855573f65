"""How one layer's second-order problem is solved: exactly, in a fixed order, or as the authors of SBC do it.

Each solver prunes and quantises a layer; they share the statistics, so that any of them can stand in for another.
"""

import logging
import math
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from compressors.calibration.hessians import CalibrationError
from compressors.masks import largest
from compressors.quantization.grids import Grid
from compressors.second_order import obs
from compressors.second_order.fixed_order import prune_fixed_order, prune_n_of_m, quantize_fixed_order
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import Solutions

EXACT_OPERATIONS = 10**13  # of exact elimination in one layer, above which "auto" refines a fixed order's mask
SOLVING_OPERATIONS = 10**12  # of solving for a layer's weights that are left, above which the sweep's are kept
REFINING_OPERATIONS = 2 * 10**11  # rows x (weights left in a row)^3 in the first round of refining a layer's mask
ROUNDS, HEAD_START = 4, 3
BLOCK_WIDTH = 4
PAPER_BATCHES = 256  # of the elimination of a row in SBC's public code

log = logging.getLogger(__name__)


class Solver(Protocol):
    """What prunes and quantises a layer."""

    name: str

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """The new weight and its mask, both ``[rows, d]``."""

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """The weight on its grid: ``[rows, d]``; ``weight`` is the pruned one, zero off the mask."""


class Exact:
    """ExactOBS and OBQ (arXiv 2208.11580): one weight at a time in every row, OBC's global step across the rows."""

    name = "exact"

    def __init__(self, solutions: Solutions) -> None:
        self.solutions = solutions

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Eliminate, take the global step, and solve for the weights that are left."""
        weight, hessian = problem.weight, problem.hessian
        if pattern.groups is not None:
            kept, of = pattern.groups
            mask = obs.mask_of_pattern(weight, hessian, kept, of)
        else:
            width = BLOCK_WIDTH if pattern.name == "block4" else 1
            course = self.solutions.course(problem, width=width)
            remove = course.losses.numel() - max(1, round(keep / width))
            steps = obs.steps_per_row(course.losses * problem.gain.square()[:, None], remove)
            groups = obs.mask_after(course.order, steps)
            mask = groups.repeat_interleave(width, dim=1)[:, : weight.shape[1]]
        return obs.least_squares(weight, hessian, mask), mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """OBQ on the weights that are left."""
        quantize = partial(obs.quantize, weight, problem.hessian, grid, mask)
        return self.solutions.quantized("quantize", problem, weight, mask, grid, quantize)


class FixedOrder:
    """SparseGPT and GPTQ: all rows settle their columns in one order; see :mod:`compressors.second_order.fixed_order`.

    A sweep can make up for a weight only in the columns after it. So where that costs at most
    :data:`SOLVING_OPERATIONS`, the weights that are left are solved for once more, as :class:`Exact` does: at low
    densities this is worth more than the choice of weights.
    """

    name = "fast"

    def __init__(self, solutions: Solutions) -> None:
        self.solutions = solutions

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """One sweep over the columns; rows compete by their loss behind BatchNorm."""

        def solve() -> dict[str, Tensor]:
            weight, mask = self._pruned(problem, keep, pattern)
            return {"weight": weight, "mask": mask}

        depends = (problem.weight, problem.hessian, problem.gain)
        found = self.solutions.found(f"{self.name} {pattern.name} {keep}", depends, solve)
        return found["weight"], found["mask"]

    def _pruned(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        weight, mask = self._swept(problem, keep, pattern)
        if float(mask.sum(1).double().pow(3).sum()) / 3 > SOLVING_OPERATIONS:
            return weight, mask
        return obs.least_squares(problem.weight, problem.hessian, mask), mask

    def _swept(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        if pattern.name == "block4":
            raise CalibrationError("the fast solver has no blocks of four: take solver='exact' or another pattern")
        if pattern.groups is not None:
            return prune_n_of_m(problem.weight, problem.hessian, *pattern.groups)
        gain = problem.gain.clamp_min(problem.gain.max() * 1e-9)[:, None]
        weight, mask = prune_fixed_order(problem.weight * gain, problem.hessian, keep)
        return weight / gain, mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """GPTQ, the most active inputs first."""
        some = None if mask.all() else mask
        quantize = partial(quantize_fixed_order, weight, problem.hessian, grid, mask=some)
        return self.solutions.quantized("fast quantize", problem, weight, mask, grid, quantize)


class Refined(FixedOrder):
    """A fixed order down to some more weights than asked for, then rounds in which each row judges its own.

    In a round the weights that are left are solved for, and those with the least saliencies in the Hessian of what
    their row has left go; each of :data:`ROUNDS` takes the same share. The fixed order leaves as much more, at most
    :data:`HEAD_START` times, as :data:`REFINING_OPERATIONS` allow.
    """

    name = "refined"

    def _pruned(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        rows, columns = problem.weight.shape
        affordable = rows * (REFINING_OPERATIONS / rows) ** (1 / 3)
        first = round(min(HEAD_START * keep, rows * columns, affordable))
        if pattern.name != "unstructured" or first <= keep:
            return super()._pruned(problem, keep, pattern)
        _, mask = self._swept(problem, first, pattern)
        for left in reversed(range(ROUNDS)):
            worth = obs.saliencies(problem.weight, problem.hessian, mask) * problem.gain.square()[:, None]
            mask = largest(worth, round(keep * (first / keep) ** (left / ROUNDS)))
        return obs.least_squares(problem.weight, problem.hessian, mask), mask


class Paper:
    """As the public code of SBC does it (facts of arXiv 2506.03996's repository, in our own words).

    Pruning: a row's weights leave in about 256 batches, each with the loss it had when its batch was chosen; the
    smallest of these losses go, wherever they stand; then the weights that are left are solved for, from the original
    ones. Quantising: one order for all rows, by the increasing diagonal of the inverse Hessian, on a grid over the
    whole range.
    """

    name = "paper"

    def __init__(self, solutions: Solutions) -> None:
        self.solutions = solutions

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Eliminate in batches, and take the smallest recorded losses."""
        if pattern.name != "unstructured":
            raise CalibrationError(f"the paper's procedure has no pattern {pattern.name!r}: take variant='exact'")
        course = self.solutions.course(problem, batch=math.ceil(problem.weight.shape[1] / PAPER_BATCHES))
        losses = course.losses * problem.gain.square()[:, None]
        gone = losses.flatten().argsort(stable=True)[: losses.numel() - keep]
        by_step = torch.ones(losses.numel(), dtype=torch.bool, device=losses.device).index_fill_(0, gone, False)
        mask = torch.empty_like(by_step.view_as(losses)).scatter_(1, course.order, by_step.view_as(losses))
        return obs.least_squares(problem.weight, problem.hessian, mask), mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """GPTQ in the paper's order."""
        order = obs.inverse(problem.hessian).diagonal(dim1=1, dim2=2).argsort(dim=1, stable=True)
        return quantize_fixed_order(weight, problem.hessian, grid, mask=None if mask.all() else mask, order=order)


def solver_for(choice: str, problem: Problem, name: str, solutions: Solutions) -> Solver:
    """The solver of the layer ``name``: a solver's own name, or for ``auto`` the one that it can afford.

    ``auto`` is exact where that takes at most :data:`EXACT_OPERATIONS`, and tells the log what it chose, and why.
    """
    if choice != "auto":
        solvers = {kind.name: kind for kind in (Exact, FixedOrder, Refined, Paper)}
        solver: Solver = solvers[choice](solutions)
        return solver
    exact = problem.operations <= EXACT_OPERATIONS
    log.info(
        "layer %s (%d x %d): %s solver, since exact elimination takes %.1e operations (limit %.0e)",
        name, *problem.weight.shape, "exact" if exact else "refined", problem.operations, EXACT_OPERATIONS,
    )  # fmt: skip
    return Exact(solutions) if exact else Refined(solutions)
