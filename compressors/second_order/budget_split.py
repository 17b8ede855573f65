"""How a budget is split between layers whose problems are known: by a rule, or by what their losses say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from compressors.budget import Budget, BudgetError, OptionError
from compressors.calibration.activity import activities
from compressors.calibration.network import Network
from compressors.quantization.widths import MAX_BITS, MIN_BITS
from compressors.second_order import obs
from compressors.second_order.fixed_order import quantize_fixed_order
from compressors.second_order.layer_solver import LayerSolver
from compressors.second_order.problem import Pattern, Problem
from compressors.weights.allocation import ALLOCATIONS, Curve, lamp, over_living, split, weights_of
from compressors.weights.parts import LayerBudget

BY_LOSS = ("loss", "relative_loss")


def density_in(pattern: Pattern, density: float) -> float:
    """The density that goes with a pattern: its own, which a density of 1 leaves open.

    Raises:
        BudgetError: a pattern that keeps another share of the weights.
    """
    if pattern.groups is None:
        return density
    kept, of = pattern.groups
    if density not in (1, kept / of):
        raise BudgetError(
            f"the pattern {pattern.name} keeps {kept / of:g} of the weights: leave out density {density:g}"
        )
    return kept / of


def require_one_round(pattern: Pattern, rounds: Sequence[Budget]) -> None:
    """Refuse a density that falls in rounds where the pattern fixes it.

    Raises:
        BudgetError: there are several rounds.
    """
    if pattern.groups and len(rounds) > 1:
        raise BudgetError(
            f"the pattern {pattern.name} fixes the density: it cannot fall by a schedule, so leave it out"
        )


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
            return self._by_density(network, problems, budget)
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

    def _by_density(self, network: Network, problems: Mapping[str, Problem], budget: Budget) -> dict[str, LayerBudget]:
        curves, every = {}, 0
        for name, problem in _one_by_one(network, problems):
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
        for name, problem in _one_by_one(network, problems):
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


def _one_by_one(network: Network, problems: Mapping[str, Problem]) -> Iterator[tuple[str, Problem]]:
    """The layers' problems by name; how far their eliminations are is told."""
    weights = 0
    for name, problem in network.track(problems.items(), "eliminating every weight"):
        yield name, problem
        weights += problem.weight.numel()
        network.note({"eliminate/weights": weights})
