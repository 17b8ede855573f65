"""Optimal Brain Compression: second-order pruning and quantisation of one layer at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import Network
from compressors.budget import BudgetError
from compressors.calibration.activity import activities
from compressors.calibration.hessians import CalibrationError, drift, hessians, parts_of
from compressors.network.layers import Layer
from compressors.quantization.grids import MAX_BITS, MIN_BITS, Grid, fit_grid, paper_grid
from compressors.registry import suggestion
from compressors.second_order import obs
from compressors.second_order.fixed_order import quantize_fixed_order
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import Solver, solver_for
from compressors.weights.allocation import ALLOCATIONS, Curve, lamp, split
from compressors.weights.pruner import Pruner, Share, Treated

CORRECTION = 0.5  # of the way to the target that makes up for the changed inputs; QEP's default (arXiv 2504.09629)
BY_LOSS = ("loss", "relative_loss")
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


class OBC(Pruner):
    """Changes the weights whose loss costs the layer's input currents least, and lets the others make up for them.

    Frantar, Singh and Alistarh, "Optimal Brain Compression" (NeurIPS 2022, arXiv 2208.11580): pruning by ExactOBS in
    each row with OBC's global step across the rows of a layer, N:M and block patterns, quantisation by OBQ with its
    rule for outliers, or first the one and then the other; calibration on the dense network. Added here, for this
    class and :class:`~compressors.methods.sbc.SBC` alike so that they differ in the Hessian alone: a row's losses are
    weighed by the factor with which BatchNorm passes its output on, squared (the authors of SBC do so; OBC's have no
    such factor), and the damping is relative to the mean of the Hessian's diagonal.

    Args:
        density: share of weights to keep.
        allocation: besides those of :class:`~compressors.weights.pruner.Pruner`, ``loss``: the split of the budget (of
            weights, of bits, of SynOps) that makes the sum of the layers' losses least; and ``relative_loss``: the
            same with each loss in units of what the whole layer's output is worth. Default: ``lamp``;
            ``relative_loss`` for a SynOps budget, which the others cannot meet.
        power: of the magnitudes in LAMP scores: 2 is LAMP's, 3 is what SBC's code takes on CIFAR-100 and ImageNet.
        pattern: ``unstructured``, N:M (``2:4`` keeps 2 of 4 neighbouring weights), or ``block4``.
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
            the dense network several times, and once more for an allocation that needs the losses.
        **pruning: see :class:`~compressors.weights.pruner.Pruner`.
    """

    version = 2
    budgets: ClassVar[tuple[str, ...]] = ("density", "bits", "density+bits", "synops")
    allocations: Mapping[str, Any] = {**ALLOCATIONS, **dict.fromkeys(BY_LOSS)}
    paper_batchnorm: ClassVar[bool] = False

    def __init__(
        self,
        density: float = 1.0,
        *,
        allocation: str | None = None,
        power: float = 2.0,
        pattern: str = "unstructured",
        variant: str = "exact",
        solver: str = "exact",
        propagate: bool = False,
        damping: float = 0.01,
        batchnorm_factor: bool | None = None,
        precision: str = "float64",
        cache: str | Path | None = None,
        max_memory: int = 8 * 2**30,
        **pruning: Any,
    ) -> None:
        needed = "relative_loss" if pruning.get("synops") is not None else "lamp"
        self.pattern = Pattern(pattern)
        super().__init__(_density(density, self.pattern), allocation=allocation or needed, **pruning)
        self.solver = _solver(variant, solver)
        self.paper = variant == "paper"
        if self.budget.synops is not None and self.allocation not in BY_LOSS:
            raise BudgetError(f"the allocation {self.allocation!r} knows no SynOps: take {' or '.join(BY_LOSS)}")
        if self.allocation in BY_LOSS and (self.solver != "exact" or pattern != "unstructured"):
            raise BudgetError(
                f"the allocation {self.allocation!r} needs the losses of exact unstructured elimination: take another"
            )
        if self.pattern.groups and len(self.rounds) > 1:
            raise BudgetError(f"the pattern {pattern} fixes the density: it cannot fall by a schedule, so leave it out")
        if precision not in PRECISIONS:
            raise BudgetError(f"precision is {precision!r}: {suggestion(precision, PRECISIONS)}")
        if not damping >= 0:
            raise BudgetError(f"damping is {damping!r}: give a number of at least 0")
        self.damping, self.power, self.propagate, self.max_memory = damping, power, propagate, max_memory
        self.dtype = PRECISIONS[precision]
        factor = self.paper_batchnorm or not self.paper
        self.batchnorm_factor = factor if batchnorm_factor is None else batchnorm_factor
        self.solutions = SolutionCache(None if cache is None else Path(cache))

    def response(self, layer: Layer) -> Tensor | None:
        """The filter over time through which a layer's inputs are seen: none, time steps are samples like any other."""
        return None

    def reused_seconds(self) -> float:
        """Time that kept eliminations took when they were made."""
        return self.solutions.reused_seconds

    def calibrate(self, network: Network) -> Mapping[str, Problem]:
        """Every layer's problem: its weight and its damped Hessian."""
        self._dense = {f"{layer.name}.weight": layer.module.weight.detach().clone() for layer in network.layers}
        parts = parts_of(network.layers, self.dtype, self.max_memory)
        responses = {layer.name: self.response(layer) for layer in network.layers}

        def measured(part: Sequence[Layer]) -> dict[str, Problem]:
            found = hessians(
                network.module, part, responses, network.calibration, dtype=self.dtype, parameters=self._dense
            )
            return {layer.name: self._problem(layer, found.pop(layer.name)) for layer in part}

        return InParts({layer.name: part for part in parts for layer in part}, measured)

    def _problem(self, layer: Layer, hessian: Tensor) -> Problem:
        try:
            hessian = obs.damped(hessian, self.damping)
        except obs.HessianError as error:
            raise CalibrationError(f"layer {layer.name!r}: {error}") from error
        weight = self._dense[f"{layer.name}.weight"].flatten(1).to(hessian)
        factor = layer.batchnorm_factor().to(weight) if self.batchnorm_factor else weight.new_ones(len(weight))
        return Problem(weight, hessian, factor)

    # The budget ------------------------------------------------------------------------------------------------------

    def share(self, network: Network, statistics: Mapping[str, Problem]) -> dict[str, Share]:
        """Each layer's share of the budget."""
        weights = {layer.name: layer.module.weight.detach() for layer in network.layers}
        budget, every = self.budget, sum(w.numel() for w in weights.values())
        if self.allocation not in BY_LOSS:
            rule = lamp if self.allocation == "lamp" else None
            keep = rule(weights, budget.density, self.power) if rule else self._kept(weights)
            return {name: Share(count, budget.bits) for name, count in keep.items()}
        if budget.synops is not None:
            return self._by_synops(network, statistics)
        if budget.density < 1:
            curves = {name: self._curve(problem) for name, problem in statistics.items()}
            chosen = split(curves, max(len(weights), round(budget.density * every)))
            return {name: Share(int(curves[name].costs[place]), budget.bits) for name, place in chosen.items()}
        assert budget.bits is not None
        curves = {name: self._bit_curve(problem) for name, problem in statistics.items()}
        chosen = split(curves, budget.bits * every)
        return {name: Share(weights[name].numel(), MIN_BITS + place) for name, place in chosen.items()}

    def _kept(self, weights: Mapping[str, Tensor]) -> dict[str, int]:
        kept: dict[str, int] = self.allocations[self.allocation](weights, self.budget.density)
        return kept

    def _losses(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """The losses of all steps of all rows behind BatchNorm, and the places of the ones from the least upwards."""
        losses = problem.after_batchnorm(self.solutions.elimination(problem).losses).flatten()
        return losses, losses.argsort(stable=True)

    def _curve(self, problem: Problem) -> Curve:
        """A layer's loss for each number of weights that it keeps, from all of them down to one."""
        losses, order = self._losses(problem)
        lost = torch.cat([losses.new_zeros(1), losses[order][:-1].cumsum(0)])
        costs = torch.arange(len(losses), 0, -1, device=losses.device).double()
        return Curve(costs, lost / self._unit(problem))

    def _unit(self, problem: Problem) -> float:
        """What a layer's losses are measured in: 1, or the loss of the layer's whole output."""
        if self.allocation == "loss":
            return 1.0
        scaled = problem.weight * problem.batchnorm_factor[:, None]
        return obs.layer_loss(scaled, torch.zeros_like(scaled), problem.hessian)

    def _by_synops(self, network: Network, statistics: Mapping[str, Problem]) -> dict[str, Share]:
        seen = activities(network.module, network.layers, network.calibration)
        curves, every = {}, 0.0
        for name, problem in statistics.items():
            losses, order = self._losses(problem)
            removed = self.solutions.elimination(problem).order
            saved = seen[name].synops(len(problem.weight)).to(losses).gather(1, removed)
            cost = saved.sum() - torch.cat([saved.new_zeros(1), saved.flatten()[order][:-1].cumsum(0)])
            lost = torch.cat([losses.new_zeros(1), losses[order][:-1].cumsum(0)])
            curves[name] = Curve(cost, lost / self._unit(problem))
            every += float(saved.sum())
        assert self.budget.synops is not None
        try:
            chosen = split(curves, self.budget.synops * every)
        except ValueError as error:
            raise BudgetError(f"synops {self.budget.synops:g} cannot be met: {error}") from error
        return {name: Share(len(curves[name].costs) - place) for name, place in chosen.items()}

    def _bit_curve(self, problem: Problem) -> Curve:
        """A layer's loss at each width, judged by the fast solver, and the bits of its weights."""
        scale = problem.batchnorm_factor[:, None]
        losses = []
        for bits in range(MIN_BITS, MAX_BITS + 1):
            rounded = quantize_fixed_order(problem.weight, problem.hessian, self._levels(problem.weight, bits))
            losses.append(obs.layer_loss(problem.weight * scale, rounded * scale, problem.hessian))
        widths = torch.arange(MIN_BITS, MAX_BITS + 1, dtype=torch.float64)
        lost = torch.tensor(losses, dtype=torch.float64)
        return Curve(widths * problem.weight.numel(), lost / self._unit(problem))

    # A layer ---------------------------------------------------------------------------------------------------------

    def treat(self, network: Network, layer: Layer, share: Share, statistics: Problem) -> Treated:
        """Prune and quantise a layer, by the solver it can afford."""
        problem = self._as_seen_now(network, layer, statistics) if self.propagate else statistics
        solver = solver_for(self.solver, problem, layer.name, self.solutions)
        try:
            weight, mask, grid = self._solved(solver, problem, share)
        except obs.HessianError as error:
            raise CalibrationError(f"layer {layer.name!r}: {error}") from error
        return Treated(weight, mask, problem.loss(weight), grid, {"solver": solver.name})

    def _solved(self, solver: Solver, problem: Problem, share: Share) -> tuple[Tensor, Tensor, Grid | None]:
        weight, mask = problem.weight, torch.ones_like(problem.weight, dtype=torch.bool)
        if share.keep < weight.numel() or self.pattern.groups:
            weight, mask = solver.prune(problem, share.keep, self.pattern)
        if share.bits is None:
            return weight, mask, None
        grid = self._levels(weight, share.bits, mask)
        return solver.quantize(problem, mask, weight, grid), mask, grid

    def _levels(self, weight: Tensor, bits: int, mask: Tensor | None = None) -> Grid:
        """A grid whose scales are those of float32, so that levels are the same in the network and in the solver."""
        if self.paper:
            return paper_grid(weight.float(), bits).to(weight)
        grid = fit_grid(weight.float(), bits, per=self.per, symmetric=self.symmetric, search=self.search, mask=mask)
        return grid.to(weight)

    def _as_seen_now(self, network: Network, layer: Layer, problem: Problem) -> Problem:
        """The problem on the inputs that the compressed layers before this one leave it with.

        With inputs ``z'`` in place of ``z``, the least-squares weight for the dense output is
        ``W + W E[(z - z') z'^T] E[z' z'^T]^-1``; the damping keeps it near ``W``.
        """
        seen, change = drift(
            network.module, layer, self.response(layer), network.calibration, self._dense, dtype=self.dtype
        )
        now = self._problem(layer, seen)
        groups, _, columns = now.hessian.shape
        step = problem.weight.view(groups, -1, columns) @ change @ obs.inverse(now.hessian)
        return replace(now, weight=problem.weight + CORRECTION * step.reshape(problem.weight.shape))


class InParts(Mapping[str, Problem]):
    """The layers' problems, measured when one is asked for, with those of its part; the last part's are held.

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


def _solver(variant: str, solver: str) -> str:
    if variant not in ("exact", "paper"):
        raise BudgetError(f"variant is {variant!r}: give 'exact' or 'paper'")
    if solver not in ("exact", "refined", "fast", "auto"):
        raise BudgetError(f"solver is {solver!r}: give 'exact', 'refined', 'fast' or 'auto'")
    if variant == "paper" and solver != "exact":
        raise BudgetError(f"variant 'paper' is a solver of its own: leave out solver {solver!r}")
    return variant if variant == "paper" else solver
