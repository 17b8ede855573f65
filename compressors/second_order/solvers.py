"""How one layer's second-order problem is solved: exactly, in a fixed order, or as the authors of SBC do it.

Each solver prunes and quantises a layer, and all work on the same :class:`~compressors.second_order.problem.Problem`,
so that any of them can take the place of another.
"""

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from compressors.masks import largest, largest_of_groups
from compressors.quantization.grids import Grid
from compressors.registry import suggestion
from compressors.second_order import obs
from compressors.second_order.admm import admm_mask, least_squares_by_gradients
from compressors.second_order.fixed_order import prune_fixed_order, prune_n_of_m, quantize_fixed_order
from compressors.second_order.problem import Pattern, PatternError, Problem
from compressors.second_order.solution_cache import SolutionCache

EXACT_OPERATIONS = 10**13  # "auto" takes the exact solver for layers whose elimination takes at most as many
SOLVING_OPERATIONS = 10**12  # at most as many for least squares on a mask, and for the exact rounding of "admm"
REFINING_OPERATIONS = 2 * 10**11  # rows x (weights left in a row)^3, at most, in the first round of the refined solver
ROUNDS, HEAD_START = 4, 3
BLOCK_WIDTH = 4
PAPER_BATCHES = 256  # of the elimination of a row in SBC's public code

AUTO = "auto"

log = logging.getLogger(__name__)


class SolverError(ValueError):
    """A solver that does not exist."""

    exit_status = 2


class Solver(Protocol):
    """What prunes and quantises a layer."""

    name: str

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """The new weight and its mask (bool, True is kept), both ``[rows, d]``.

        Args:
            problem: the layer.
            keep: weights to keep; an N:M pattern fixes their number itself.
            pattern: which weights may be pruned.

        Raises:
            PatternError: this solver cannot prune in that pattern.
            HessianError: the Hessian is not positive definite.
        """

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """The weight on its grid: ``[rows, d]``; ``weight`` is the pruned one, zero off the mask."""


class Exact:
    """ExactOBS and OBQ (arXiv 2208.11580): one weight at a time in every row, OBC's global step across the rows."""

    name = "exact"

    def __init__(self, cache: SolutionCache) -> None:
        self.cache = cache

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Eliminate, take the steps of least loss in the layer, and solve for the weights that are left."""
        weight, hessian = problem.weight, problem.hessian
        if pattern.groups is not None:
            kept, of = pattern.groups
            mask = obs.mask_of_pattern(weight, hessian, kept, of)
        else:
            width = BLOCK_WIDTH if pattern.name == "block4" else 1
            trace = self.cache.elimination(problem, width=width)
            losses = problem.after_batchnorm(trace.losses)
            steps = obs.steps_per_row(losses, _steps_that_keep(keep, losses, trace.order, weight.shape[1], width))
            blocks = obs.mask_after(trace.order, steps)
            mask = blocks.repeat_interleave(width, dim=1)[:, : weight.shape[1]]
        return obs.least_squares(weight, hessian, mask), mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """OBQ on the weights that are left."""
        quantize = partial(obs.quantize, weight, problem.hessian, grid, mask)
        return self.cache.get_or_quantize("quantize", problem, weight, mask, grid, quantize)


def _steps_that_keep(keep: int, losses: Tensor, order: Tensor, columns: int, width: int) -> int:
    """How many of the steps of least loss leave the number of weights nearest to ``keep``, and one block at least.

    Steps fix blocks of ``width`` columns, the last of a row perhaps fewer. ``losses`` and ``order`` are
    ``[rows, blocks]``.
    """
    sizes = (columns - order * width).clamp_max(width)
    removed = sizes.flatten()[losses.flatten().argsort(stable=True)].cumsum(0)
    left = sizes.sum() - torch.cat([removed.new_zeros(1), removed[:-1]])
    return int((left - keep).abs().argmin())


class FixedOrder:
    """SparseGPT and GPTQ: all rows settle their columns in one order; see :mod:`compressors.second_order.fixed_order`.

    A sweep over the columns can make up for a weight only in those after it. So where it takes at most
    :data:`SOLVING_OPERATIONS`, the weights that are left are solved for once more by least squares on the mask, as
    :class:`Exact` does: at low densities this lowers the loss more than a better choice of weights would.
    """

    name = "fast"

    def __init__(self, cache: SolutionCache) -> None:
        self.cache = cache

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """One sweep over the columns; rows are compared by their losses behind BatchNorm."""
        if pattern.name == "block4":
            raise PatternError(f"the {self.name} solver has no blocks of four: take solver='exact' or another pattern")

        def solve() -> dict[str, Tensor]:
            weight, mask = self._pruned(problem, keep, pattern)
            return {"weight": weight, "mask": mask}

        depends = (problem.weight, problem.hessian, problem.batchnorm_factor)
        solution = self.cache.get_or_solve(f"{self.name} {pattern.name} {keep}", depends, solve)
        return solution["weight"], solution["mask"]

    def _pruned(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        weight, mask = self._swept(problem, keep, pattern)
        if _solving(mask) > SOLVING_OPERATIONS:
            return weight, mask
        return obs.least_squares(problem.weight, problem.hessian, mask), mask

    def _swept(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        if pattern.groups is not None:
            return prune_n_of_m(problem.weight, problem.hessian, *pattern.groups)
        factor = _comparable(problem)
        weight, mask = prune_fixed_order(problem.weight * factor, problem.hessian, keep)
        return weight / factor, mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """GPTQ, the most active inputs first."""
        pruned = None if mask.all() else mask
        quantize = partial(quantize_fixed_order, weight, problem.hessian, grid, mask=pruned)
        return self.cache.get_or_quantize("fast quantize", problem, weight, mask, grid, quantize)


def _solving(mask: Tensor) -> float:
    """Operations of least squares on a mask ``[rows, d]``."""
    return float(mask.sum(1).double().pow(3).sum()) / 3


def _comparable(problem: Problem) -> Tensor:
    """What rows are multiplied by to count as much as behind BatchNorm, none of them zero: ``[rows, 1]``."""
    return problem.batchnorm_factor.clamp_min(problem.batchnorm_factor.max() * 1e-9)[:, None]


class Refined(FixedOrder):
    """SparseGPT down to more weights than asked for, then :data:`ROUNDS` rounds of pruning by exact saliencies.

    In a round the least saliencies of the layer go, each computed in the Hessian of the weights that its row has left,
    as if these had been solved for anew (:func:`compressors.second_order.obs.saliencies`). Every round keeps the same
    fraction of the weights. SparseGPT leaves :data:`HEAD_START` times as many as asked for, or as many as
    :data:`REFINING_OPERATIONS` allow.
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
            saliency = problem.after_batchnorm(obs.saliencies(problem.weight, problem.hessian, mask))
            mask = largest(saliency, round(keep * (first / keep) ** (left / ROUNDS)))
        return obs.least_squares(problem.weight, problem.hessian, mask), mask


class ADMM(FixedOrder):
    """The mask of ALPS (:mod:`compressors.second_order.admm`), then the best weights on it.

    Rows are compared behind BatchNorm. Of an N:M pattern the largest of each group stay. Quantising is OBQ where that
    takes at most :data:`SOLVING_OPERATIONS`, else GPTQ.
    """

    name = "admm"

    def _pruned(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        weight, hessian = problem.weight * _comparable(problem), problem.hessian
        project = partial(largest, keep=keep) if pattern.groups is None else partial(largest_of_groups, *pattern.groups)
        mask = admm_mask(weight, hessian, project)
        if _solving(mask) > SOLVING_OPERATIONS:
            return least_squares_by_gradients(problem.weight, hessian, mask), mask
        return obs.least_squares(problem.weight, hessian, mask), mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """OBQ on the weights that are left, which takes twice what solving for them does; or GPTQ."""
        if 2 * _solving(mask) > SOLVING_OPERATIONS:
            return super().quantize(problem, mask, weight, grid)
        return Exact(self.cache).quantize(problem, mask, weight, grid)


class Paper:
    """The procedure of SBC's public code (the repository of arXiv 2506.03996, read and written anew here).

    Pruning: each row is eliminated in about 256 batches of weights, and a weight's loss is that of the moment when its
    batch was chosen. The weights with the smallest losses of the layer are pruned, in whatever order their row gave
    them up; then those that are left are solved for, from the original ones. Quantising: all rows in one order, by the
    increasing diagonal of the inverse Hessian.
    """

    name = "paper"

    def __init__(self, cache: SolutionCache) -> None:
        self.cache = cache

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Eliminate in batches, prune the weights of the smallest losses, and solve for those that are left."""
        if pattern.name != "unstructured":
            raise PatternError(f"the paper's procedure has no pattern {pattern.name!r}: take variant='exact'")
        trace = self.cache.elimination(problem, batch=math.ceil(problem.weight.shape[1] / PAPER_BATCHES))
        losses = problem.after_batchnorm(trace.losses)
        gone = losses.flatten().argsort(stable=True)[: losses.numel() - keep]
        by_step = torch.ones(losses.numel(), dtype=torch.bool, device=losses.device).index_fill_(0, gone, False)
        mask = torch.empty_like(by_step.view_as(losses)).scatter_(1, trace.order, by_step.view_as(losses))
        return obs.least_squares(problem.weight, problem.hessian, mask), mask

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """GPTQ in the paper's order."""
        order = obs.inverse(problem.hessian).diagonal(dim1=1, dim2=2).argsort(dim=1, stable=True)
        return quantize_fixed_order(weight, problem.hessian, grid, mask=None if mask.all() else mask, order=order)


SOLVERS: Mapping[str, Callable[[SolutionCache], Solver]] = {
    kind.name: kind for kind in (Exact, Refined, ADMM, FixedOrder, Paper)
}
"""All solvers by name; besides them there is the choice :data:`AUTO`, see :func:`solver_for`."""


def solver_for(choice: str, problem: Problem, layer: str, cache: SolutionCache) -> Solver:
    """The solver of a layer.

    Args:
        choice: a name of :data:`SOLVERS`, or ``auto``: ``exact`` where that takes at most :data:`EXACT_OPERATIONS`,
            else ``refined``; which one and why is written to the log.
        problem: the layer's.
        layer: its name, for the log.
        cache: where solutions are kept.

    Raises:
        SolverError: an unknown name.
    """
    if choice == AUTO:
        choice = _affordable(problem, layer)
    if choice not in SOLVERS:
        raise SolverError(f"unknown solver {choice!r}: {suggestion(choice, [*SOLVERS, AUTO])}")
    return SOLVERS[choice](cache)


def _affordable(problem: Problem, layer: str) -> str:
    choice = Exact.name if problem.operations <= EXACT_OPERATIONS else Refined.name
    log.info(
        "layer %s (%d x %d): %s solver, since exact elimination takes %.1e operations (limit %.0e)",
        layer, *problem.weight.shape, choice, problem.operations, EXACT_OPERATIONS,
    )  # fmt: skip
    return choice
