"""How one layer is compressed within its part of the budget: pruned by a solver, and rounded to a grid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.budget import OptionError
from compressors.calibration.hessians import CalibrationError
from compressors.network.layers import Layer
from compressors.quantization.grids import Grid, fit_grid, paper_grid
from compressors.second_order import obs
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import Solver, solver_for
from compressors.weights.parts import LayerBudget, LayerResult


@dataclass(frozen=True)
class LayerSolver:
    """Which solver: how a layer's problem is solved within its part of the budget.

    Args:
        name: ``exact``, ``refined``, ``fast``, ``auto`` or ``paper``; see :mod:`compressors.second_order.solvers`.
        pattern: where weights may go.
        per, symmetric, search: of the grids, see :func:`~compressors.quantization.grids.fit_grid`; the paper's solver
            has a grid of its own.
        solutions: kept eliminations and finished layers.

    Raises:
        OptionError: a pattern that the solver does not know, or a choice of grids beside the paper's own.
    """

    name: str
    pattern: Pattern
    per: str
    symmetric: bool
    search: bool
    solutions: SolutionCache

    def __post_init__(self) -> None:
        if self.name == "paper":
            self._check_paper()
        elif self.pattern.name == "block4" and self.name != "exact":
            raise OptionError(f"the solver {self.name!r} has no blocks of four: take solver 'exact' or another pattern")

    def _check_paper(self) -> None:
        if self.pattern.name != "unstructured":
            raise OptionError(f"variant 'paper' has no pattern {self.pattern.name!r}: take variant 'exact'")
        if (self.per, self.symmetric, self.search) != ("channel", True, True):
            raise OptionError("variant 'paper' has a grid of its own: leave out per, symmetric and search")

    def solve(self, problem: Problem, part: LayerBudget, layer: Layer) -> LayerResult:
        """Prune and quantise a layer; the weights of dead inputs go whatever it may keep.

        Raises:
            CalibrationError: its Hessian is singular.
        """
        solver = solver_for(self.name, problem, layer.name, self.solutions)
        columns = self.pattern.columns(tuple(layer.module.weight.shape))
        try:
            if columns is None:
                weight, mask, grid = self._solved(solver, problem, part)
            else:
                weight, mask, grid = self._solved(solver, problem.reordered(columns), part)
                weight, mask = (matrix[:, columns.argsort()] for matrix in (weight, mask))
        except obs.HessianError as error:
            raise CalibrationError(f"layer {layer.name!r}: {error}") from error
        return LayerResult(weight, mask & ~problem.dead_weights, problem.loss(weight), grid, {"solver": solver.name})

    def _solved(self, solver: Solver, problem: Problem, part: LayerBudget) -> tuple[Tensor, Tensor, Grid | None]:
        weight, mask = problem.weight, torch.ones_like(problem.weight, dtype=torch.bool)
        if part.keep < int((~problem.dead_weights).sum()) or self.pattern.groups:
            weight, mask = solver.prune(problem, part.keep, self.pattern)
        if part.bits is None:
            return weight, mask, None
        grid = self.grid(weight, part.bits, mask)
        return solver.quantize(problem, mask, weight, grid), mask, grid

    def grid(self, weight: Tensor, bits: int, mask: Tensor | None = None) -> Grid:
        """A grid whose scales are those of float32, so that levels are the same in the network and in the solver."""
        if self.name == "paper":
            return paper_grid(weight.float(), bits).to(weight)
        grid = fit_grid(weight.float(), bits, per=self.per, symmetric=self.symmetric, search=self.search, mask=mask)
        return grid.to(weight)
