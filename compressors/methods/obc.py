"""Optimal Brain Compression: second-order pruning and quantisation of one layer at a time."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.annotations import Count, NotNegative, Positive
from compressors.budget import Budget, BudgetError, OptionError
from compressors.calibration.activity import activities
from compressors.calibration.hessians import CalibrationError, drift, hessians, parts_of
from compressors.calibration.network import Network
from compressors.network.layers import Layer
from compressors.options import require_known
from compressors.quantization.grids import Grid, fit_grid, paper_grid
from compressors.quantization.widths import MAX_BITS, MIN_BITS
from compressors.second_order import obs
from compressors.second_order.fixed_order import quantize_fixed_order
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import AUTO, SOLVERS, Solver, solver_for
from compressors.weights.allocation import ALLOCATIONS, Curve, lamp, over_living, split, weights_of
from compressors.weights.pruner import LayerBudget, LayerResult, Pruner, PrunerState

CORRECTION = 0.5  # of the way to the target that makes up for the changed inputs; QEP's default (arXiv 2504.09629)
BY_LOSS = ("loss", "relative_loss")
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
VARIANTS = ("exact", "paper")
SILENT = "no input of it (of one of its groups, where it has several) was active during calibration"

log = logging.getLogger(__name__)

Response = Callable[[Layer], Tensor | None]
"""Layer -> the filter over time ``[T]`` through which its inputs are seen; None where they are seen as they are."""


@dataclass(frozen=True)
class Curvature:
    """Which Hessian: what a layer's loss is measured with.

    Args:
        damping: added to the Hessian's diagonal, in units of its mean.
        precision: ``float64`` or ``float32``.
        weigh_rows: whether rows compete by the factor with which BatchNorm passes their output on.
        max_memory: bytes of the Hessians held at once.

    Raises:
        OptionError: a precision that there is not.
    """

    damping: float
    precision: str
    weigh_rows: bool
    max_memory: int

    def __post_init__(self) -> None:
        require_known("precision", self.precision, PRECISIONS)

    @property
    def dtype(self) -> torch.dtype:
        """Of the Hessians and the solver."""
        return PRECISIONS[self.precision]

    def problems(self, network: Network, response: Response, dense: Mapping[str, Tensor]) -> "ProblemsInParts":
        """Every layer's least-squares problem on the inputs that the dense network leaves it with.

        Args:
            network: with its calibration data.
            response: of each layer.
            dense: weights by qualified name (``conv1.weight``).
        """
        responses = {layer.name: response(layer) for layer in network.layers}

        def measured(part: Sequence[Layer]) -> dict[str, Problem]:
            by_layer = hessians(
                network.module, part, responses, network.calibration, dtype=self.dtype, parameters=dense
            )
            return {layer.name: self.problem(layer, dense, by_layer.pop(layer.name)) for layer in part}

        parts = parts_of(network.layers, self.dtype, self.max_memory)
        return ProblemsInParts({layer.name: part for part in parts for layer in part}, measured)

    def problem(self, layer: Layer, dense: Mapping[str, Tensor], hessian: Tensor) -> Problem:
        """A layer's problem from its dense weight and its Hessian ``[groups, d, d]`` without damping.

        Raises:
            CalibrationError: the Hessian is not finite.
        """
        weight = dense[f"{layer.name}.weight"].flatten(1).to(hessian)
        factor = layer.batchnorm_factor().to(weight) if self.weigh_rows else weight.new_ones(len(weight))
        try:
            return Problem.of(weight, hessian, factor, self.damping)
        except obs.HessianError as error:
            raise CalibrationError(f"layer {layer.name!r}: {error}") from error

    def problem_as_compressed(
        self, network: Network, layer: Layer, response: Tensor | None, dense: Mapping[str, Tensor]
    ) -> Problem:
        """The problem on the inputs that the compressed layers before this one leave it with.

        With inputs ``z'`` in place of ``z``, the least-squares weight for the dense output is
        ``W + W E[(z - z') z'^T] E[z' z'^T]^-1``; the damping keeps it near ``W``.
        """
        seen, change = drift(network.module, layer, response, network.calibration, dense, dtype=self.dtype)
        problem = self.problem(layer, dense, seen)
        groups, _, columns = problem.hessian.shape
        step = problem.weight.view(groups, -1, columns) @ change @ obs.inverse(problem.hessian)
        return replace(problem, weight=problem.weight + CORRECTION * step.reshape(problem.weight.shape))


class ProblemsInParts(Mapping[str, Problem]):
    """The layers' problems by name, measured part by part: when one is asked for, with those of its part.

    Those of the last part are held, so that memory is that of one part.

    Args:
        parts: each layer's part, by name, in the order in which they are worked on.
        measure: a part's problems by layer name.
    """

    def __init__(
        self, parts: Mapping[str, Sequence[Layer]], measure: Callable[[Sequence[Layer]], dict[str, Problem]]
    ) -> None:
        self._parts, self._measure = parts, measure
        self._held: dict[str, Problem] = {}

    def __getitem__(self, name: str) -> Problem:
        if name not in self._held:
            self._held = {}  # first, so that two parts are never held at once
            self._held = self._measure(self._parts[name])
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


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


@dataclass(frozen=True)
class BudgetSplit:
    """Which split of the budget: how many weights each layer keeps, and how wide they are.

    Args:
        allocation: one of :data:`~compressors.weights.allocation.ALLOCATIONS`, or of :data:`BY_LOSS`.
        power: of the magnitudes in LAMP scores.
        solver: of the layers: splits by loss look at its eliminations and its grids.

    Raises:
        OptionError: a split by loss with a solver or pattern that has no exact losses, or a power without LAMP scores.
    """

    allocation: str
    power: float
    solver: LayerSolver

    def __post_init__(self) -> None:
        if self.by_loss and (self.solver.name, self.solver.pattern.name) != ("exact", "unstructured"):
            raise OptionError(
                f"the allocation {self.allocation!r} needs the losses of exact unstructured elimination: take another"
            )
        if self.power != 2 and self.allocation != "lamp":
            raise OptionError(f"power is that of LAMP scores: leave it out with allocation {self.allocation!r}")

    @property
    def by_loss(self) -> bool:
        """Whether layers compare by their losses."""
        return self.allocation in BY_LOSS

    def parts(self, network: Network, problems: Mapping[str, Problem], budget: Budget) -> dict[str, LayerBudget]:
        """Each layer's part of the budget.

        Raises:
            BudgetError: a SynOps budget that even one weight a layer exceeds.
        """
        if not self.by_loss:
            return self._by_weights(weights_of(network.layers), problems, budget)
        if budget.synops is not None:
            return self._by_synops(network, problems, budget, budget.synops)
        if budget.density < 1:
            return self._by_density(problems, budget)
        return self._by_bits(problems, budget)

    def _by_weights(
        self, weights: Mapping[str, Tensor], problems: Mapping[str, Problem], budget: Budget
    ) -> dict[str, LayerBudget]:
        rule = partial(lamp, power=self.power) if self.allocation == "lamp" else ALLOCATIONS[self.allocation]
        if budget.density == 1 or self.solver.pattern.groups:
            keep = rule(weights, budget.density)  # nothing to split: nobody needs to know what lives
        else:
            dead = {name: problem.dead_weights for name, problem in problems.items()}
            keep = over_living(rule, weights, dead, budget.density)
        return {name: LayerBudget(count, budget.bits) for name, count in keep.items()}

    def _by_density(self, problems: Mapping[str, Problem], budget: Budget) -> dict[str, LayerBudget]:
        curves, every = {}, 0
        for name, problem in problems.items():
            curves[name] = self._pruning_curve(problem)
            every += problem.weight.numel()
        least = sum(float(curve.costs.min()) for curve in curves.values())
        chosen = split(curves, max(least, round(budget.density * every)))
        return {name: LayerBudget(int(curves[name].costs[place]), budget.bits) for name, place in chosen.items()}

    def _by_bits(self, problems: Mapping[str, Problem], budget: Budget) -> dict[str, LayerBudget]:
        """Widths of a mean of at most ``budget.bits``; a budget that limits nothing leaves floats."""
        sizes = {name: problem.weight.numel() for name, problem in problems.items()}
        if budget.bits is None:
            return {name: LayerBudget(size) for name, size in sizes.items()}
        curves = {name: self._bit_curve(problem) for name, problem in problems.items()}
        chosen = split(curves, budget.bits * sum(sizes.values()))
        return {name: LayerBudget(sizes[name], MIN_BITS + place) for name, place in chosen.items()}

    def _by_synops(
        self, network: Network, problems: Mapping[str, Problem], budget: Budget, share: float
    ) -> dict[str, LayerBudget]:
        activity = activities(network.module, network.layers, network.calibration)
        curves, every = {}, 0.0
        for name, problem in problems.items():
            losses, order = self._losses(problem)
            costs = activity[name].synops(len(problem.weight)).to(losses)
            saved = costs.gather(1, self.solver.solutions.elimination(problem).order)
            cost = saved.sum() - torch.cat([saved.new_zeros(1), saved.flatten()[order][:-1].cumsum(0)])
            curves[name] = Curve(cost, self._lost(losses, order) / self._unit(problem))
            every += float(saved.sum())
        try:
            chosen = split(curves, share * every)
        except ValueError as error:
            raise BudgetError(f"synops {share:g} cannot be met: {error}") from error
        return {name: LayerBudget(len(curves[name].costs) - place, budget.bits) for name, place in chosen.items()}

    def _losses(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """The losses of all steps of all rows behind BatchNorm, and the places of the ones from the least upwards."""
        losses = problem.after_batchnorm(self.solver.solutions.elimination(problem).losses).flatten()
        return losses, losses.argsort(stable=True)

    @staticmethod
    def _lost(losses: Tensor, order: Tensor) -> Tensor:
        """A layer's loss when it has lost 0, 1, ... all but one of its weights."""
        return torch.cat([losses.new_zeros(1), losses[order][:-1].cumsum(0)])

    def _pruning_curve(self, problem: Problem) -> Curve:
        """A layer's loss for each number of weights that it keeps, from all that live down to one (or none)."""
        losses, order = self._losses(problem)
        order = order[int(problem.dead_weights.sum()) :]  # dead ones cost nothing, and have gone first
        costs = torch.arange(len(order), 0, -1, device=losses.device).double()
        if not len(order):
            return Curve(losses.new_zeros(1), losses.new_zeros(1))
        return Curve(costs, self._lost(losses, order) / self._unit(problem))

    def _bit_curve(self, problem: Problem) -> Curve:
        """A layer's loss at each width, judged by the fast solver, and the bits of its weights."""
        scale = problem.batchnorm_factor[:, None]
        losses = []
        for bits in range(MIN_BITS, MAX_BITS + 1):
            rounded = quantize_fixed_order(problem.weight, problem.hessian, self.solver.grid(problem.weight, bits))
            losses.append(obs.layer_loss(problem.weight * scale, rounded * scale, problem.hessian))
        widths = torch.arange(MIN_BITS, MAX_BITS + 1, dtype=torch.float64)
        lost = torch.tensor(losses, dtype=torch.float64)
        return Curve(widths * problem.weight.numel(), lost / self._unit(problem))

    def _unit(self, problem: Problem) -> float:
        """What a layer's losses are measured in: 1, or the loss of the layer's whole output."""
        if self.allocation == "loss":
            return 1.0
        scaled = problem.weight * problem.batchnorm_factor[:, None]
        return obs.layer_loss(scaled, torch.zeros_like(scaled), problem.hessian) or 1.0  # of a silent layer


@dataclass
class OBCState(PrunerState):
    """As of every pruner, and the dense weights by qualified name, which calibration looks at."""

    dense: Mapping[str, Tensor] = field(default_factory=dict)


class OBC(Pruner):
    """Changes the weights whose loss costs the layer's input currents least, and lets the others make up for them.

    Frantar, Singh and Alistarh, "Optimal Brain Compression" (NeurIPS 2022, arXiv 2208.11580): pruning by ExactOBS in
    each row with OBC's global step across the rows of a layer, N:M and block patterns, quantisation by OBQ with its
    rule for outliers, or first the one and then the other; calibration on the dense network. Added here, for this
    class and :class:`~compressors.methods.sbc.SBC` alike so that they differ in the Hessian alone: a row's losses are
    weighed by the factor with which BatchNorm passes its output on, squared (the authors of SBC do so; OBC's have no
    such factor), and the damping is relative to the mean of the Hessian's diagonal.

    What it does is said by three small objects made of its options: :class:`Curvature` (which Hessian),
    :class:`BudgetSplit` (how much each layer keeps) and :class:`LayerSolver` (how a layer is solved).

    Args:
        allocation: besides those of :class:`~compressors.weights.pruner.Pruner`, ``loss``: the split of the budget (of
            weights, of bits, of SynOps) that makes the sum of the layers' losses least; and ``relative_loss``: the
            same with each loss in units of what the whole layer's output is worth. ``auto`` is ``lamp``, and
            ``relative_loss`` for a SynOps budget, which the others cannot meet.
        power: of the magnitudes in LAMP scores: 2 is LAMP's, 3 is what SBC's code takes on CIFAR-100 and ImageNet.
        pattern: ``unstructured``, N:M (``2:4`` keeps 2 of 4 neighbouring weights), or ``block4``; neighbours are those
            of :class:`~compressors.second_order.problem.Pattern`.
        variant: ``exact``, or ``paper``: the procedure of SBC's public code
            (:class:`~compressors.second_order.solvers.Paper`), with BatchNorm's factor for SBC and none for OBC,
            as there.
        solver: ``exact``; ``fast`` (SparseGPT, then the best values of what is left, and GPTQ on the same Hessians);
            ``refined`` (SparseGPT to three times the density, then rounds in which each row judges what it has left);
            or ``auto``: exact for each layer that can afford it, see
            :func:`~compressors.second_order.solvers.solver_for`.
        propagate: let each layer see what the compressed layers before it emit, and aim at the dense output from there
            (:data:`CORRECTION` of the least-squares step; QEP, arXiv 2504.09629, here on membranes).
        damping: added to the Hessian's diagonal, in units of its mean.
        batchnorm_factor: weigh rows by their BatchNorm factor. Default: yes, but for the paper's OBC.
        precision: of the Hessians and the solver: ``float64``, or ``float32``.
        cache: folder in which finished eliminations and layers are kept, and found again by the hash of all that they
            depend on. One elimination serves every density, so a run at another density only has to look it up.
        max_memory: bytes for the Hessians held at once. If those of all layers do not fit, the data are passed through
            the dense network several times: once to split a budget, and once more to keep to it.

    The other options are those of :class:`~compressors.weights.pruner.Pruner`.
    """

    version = 2
    versions: ClassVar[Mapping[str, int]] = {"pattern": 3}
    budgets: ClassVar[tuple[str, ...]] = ("density", "bits", "density+bits", "synops")
    allocations: ClassVar[tuple[str, ...]] = (*ALLOCATIONS, *BY_LOSS)
    paper_batchnorm: ClassVar[bool] = False

    allocation: str = "auto"
    power: Positive = 2.0
    pattern: str = "unstructured"
    variant: str = "exact"
    solver: str = "exact"
    propagate: bool = False
    damping: NotNegative = 0.01
    batchnorm_factor: bool | None = None
    precision: str = "float64"
    cache: str | Path | None = field(default=None, compare=False, repr=False)
    max_memory: Count = field(default=8 * 2**30, compare=False)
    state: OBCState = field(default_factory=OBCState, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._set("density", _density(self.density, Pattern(self.pattern)))
        if self.allocation == "auto":
            self._set("allocation", "lamp" if self.synops is None else "relative_loss")
        super().__post_init__()
        require_known("variant", self.variant, VARIANTS)
        require_known("solver", self.solver, [name for name in (*SOLVERS, AUTO) if name != "paper"])
        if self.variant == "paper" and self.solver != "exact":
            raise OptionError(f"variant 'paper' is a solver of its own: leave out solver {self.solver!r}")
        if self.synops is not None and self.allocation not in BY_LOSS:
            raise BudgetError(f"the allocation {self.allocation!r} knows no SynOps: take {' or '.join(BY_LOSS)}")
        if self.layer_solver.pattern.groups and len(self.rounds) > 1:
            raise BudgetError(
                f"the pattern {self.pattern} fixes the density: it cannot fall by a schedule, so leave it out"
            )
        _ = self.curvature, self.budget_split  # what contradicts itself is refused here

    @cached_property
    def curvature(self) -> Curvature:
        """Which Hessian."""
        weigh_rows = self.batchnorm_factor
        if weigh_rows is None:
            weigh_rows = self.paper_batchnorm or self.variant != "paper"
        return Curvature(self.damping, self.precision, weigh_rows, self.max_memory)

    @cached_property
    def layer_solver(self) -> LayerSolver:
        """Which solver."""
        name = "paper" if self.variant == "paper" else self.solver
        solutions = SolutionCache(None if self.cache is None else Path(self.cache))
        return LayerSolver(name, Pattern(self.pattern), self.per, self.symmetric, self.search, solutions)

    @cached_property
    def budget_split(self) -> BudgetSplit:
        """Which split of the budget."""
        return BudgetSplit(self.allocation, self.power, self.layer_solver)

    def response(self, layer: Layer) -> Tensor | None:
        """The filter over time through which a layer's inputs are seen: none, time steps are samples like any other."""
        return None

    def calibrate(self, network: Network) -> Mapping[str, Problem]:
        """Every layer's problem: its weight and its damped Hessian."""
        self.state.dense = {f"{layer.name}.weight": layer.module.weight.detach().clone() for layer in network.layers}
        return self.curvature.problems(network, self.response, self.state.dense)

    def split_budget(self, network: Network, statistics: Mapping[str, Problem]) -> dict[str, LayerBudget]:
        """Each layer's part of the budget."""
        return self.budget_split.parts(network, statistics, self.budget)

    def compress_layer(self, network: Network, layer: Layer, part: LayerBudget, statistics: Problem) -> LayerResult:
        """Prune and quantise a layer, by the solver it can afford."""
        problem, response = statistics, self.response(layer)
        if self.propagate:
            problem = self.curvature.problem_as_compressed(network, layer, response, self.state.dense)
        if problem.dead.all(dim=1).any():
            log.warning("layer %s: %s, so its weights there go: use more or other samples", layer.name, SILENT)
        result = self.layer_solver.solve(problem, part, layer)
        seen: dict[str, Any] = {"hessian": "input current" if response is None else "membrane potential"}
        if dead := int(problem.dead.sum()):
            seen |= {"dead_inputs": dead}
        return replace(result, extra={**result.extra, **seen})

    def reused_seconds(self) -> float:
        """Time that kept eliminations took when they were made."""
        return self.layer_solver.solutions.reused_seconds


def _density(density: float, pattern: Pattern) -> float:
    """The density that goes with a pattern."""
    if pattern.groups is None:
        return density
    kept, of = pattern.groups
    if density not in (1, kept / of):
        raise BudgetError(
            f"the pattern {pattern.name} keeps {kept / of:g} of the weights: leave out density {density:g}"
        )
    return kept / of
