"""Optimal Brain Compression: second-order pruning and quantisation of one layer at a time."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from compressors.annotations import Count, NotNegative, Positive, Share
from compressors.budget import BudgetError, OptionError
from compressors.calibration.network import Network
from compressors.network.layers import Layer
from compressors.options import require_known
from compressors.second_order.budget_split import BY_LOSS, BudgetSplit, density_in, require_one_round
from compressors.second_order.curvature import CORRECTION, Curvature, ProblemsInParts
from compressors.second_order.layer_solver import LayerSolver
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import SolutionCache, digest_of
from compressors.second_order.solvers import AUTO, SOLVERS
from compressors.weights.allocation import ALLOCATIONS
from compressors.weights.parts import LayerBudget, LayerResult
from compressors.weights.pruner import Pruner, PrunerState

VARIANTS = ("exact", "paper")
SILENT = "no input of it (of one of its groups, where it has several) was active during calibration"

log = logging.getLogger(__name__)


@dataclass
class OBCState(PrunerState):
    """As of every pruner, and what calibration looks at and finds.

    Args:
        dense: the dense weights by qualified name.
        problems: the last problems by the hash of the network and all else that they depend on but the calibration
            data, for whoever compresses one network many times on the same data; None where none are kept.
    """

    dense: Mapping[str, Tensor] = field(default_factory=dict)
    problems: dict[str, Mapping[str, Problem]] | None = None


class OBC(Pruner):
    """Changes the weights whose loss costs the layer's input currents least, and lets the others make up for them.

    Frantar, Singh and Alistarh, "Optimal Brain Compression" (NeurIPS 2022, arXiv 2208.11580): pruning by ExactOBS in
    each row with OBC's global step across the rows of a layer, N:M and block patterns, quantisation by OBQ with its
    rule for outliers, or first the one and then the other; calibration on the dense network. Added here, for this
    class and :class:`~compressors.methods.sbc.SBC` alike so that they differ in the Hessian alone: a row's losses are
    weighed by the factor with which BatchNorm passes its output on, squared (the authors of SBC do so; OBC's have no
    such factor), and the damping is relative to the mean of the Hessian's diagonal.

    What it does is said by three small objects made of its options, all of :mod:`compressors.second_order`:
    :class:`~compressors.second_order.curvature.Curvature` (which Hessian),
    :class:`~compressors.second_order.budget_split.BudgetSplit` (how much each layer keeps) and
    :class:`~compressors.second_order.layer_solver.LayerSolver` (how a layer is solved).

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
            ``admm`` (ALPS, the whole layer at once: :mod:`compressors.second_order.admm`; rounded as ``exact`` does
            where that is affordable); or ``auto``: exact for each layer that can afford it, see
            :func:`~compressors.second_order.solvers.solver_for`.
        hessian: ``layer``: of the layer's own output error; or ``fisher``: weighed by what that error would cost the
            network, for groups of its outputs (:mod:`compressors.calibration.fisher`). Its losses have one unit, so
            that ``allocation="loss"`` compares layers by what they do to the answer.
        propagate: let each layer see what the compressed layers before it emit, and aim at the dense output from there
            (QEP, arXiv 2504.09629, here on membranes). A number is the part of the least-squares step that is taken:
            0 is the same as false, true is :data:`~compressors.second_order.curvature.CORRECTION`. ``auto`` chooses
            it for each layer on a held-out fifth of the calibration samples, in closed form.
        copies: how many copies of each calibration sample the Hessians see besides it, each changed as ``augment``
            says. Of images a hundred are few, also for a cut.
        damping: added to the Hessian's diagonal, in units of its mean.
        batchnorm_factor: weigh rows by their BatchNorm factor. Default: yes, but for the paper's OBC and for the Fisher
            Hessian, which knows it.
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
    hessian: Literal["layer", "fisher"] = "layer"
    propagate: bool | Share | Literal["auto"] = False
    copies: Count | None = None
    damping: NotNegative = 0.01
    batchnorm_factor: bool | None = None
    precision: str = "float64"
    cache: str | Path | None = field(default=None, compare=False, repr=False)
    max_memory: Count = field(default=8 * 2**30, compare=False)
    state: OBCState = field(default_factory=OBCState, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._set("density", density_in(Pattern(self.pattern), self.density))
        if self.allocation == "auto":
            self._set("allocation", "lamp" if self.synops is None else "relative_loss")
        super().__post_init__()
        require_known("variant", self.variant, VARIANTS)
        require_known("solver", self.solver, [name for name in (*SOLVERS, AUTO) if name != "paper"])
        if self.variant == "paper" and self.solver != "exact":
            raise OptionError(f"variant 'paper' is a solver of its own: take solver 'exact', not {self.solver!r}")
        if self.synops is not None and self.allocation not in BY_LOSS:
            raise BudgetError(f"the allocation {self.allocation!r} knows no SynOps: take {' or '.join(BY_LOSS)}")
        require_one_round(self.layer_solver.pattern, self.rounds)
        if self.propagate and self.fisher:
            raise OptionError("propagate aims at the layer's own output: take propagate False with hessian 'fisher'")
        _ = self.curvature, self.budget_split  # what contradicts itself is refused here

    @property
    def fisher(self) -> bool:
        """Whether the Hessian knows the loss."""
        return self.hessian == "fisher"

    @cached_property
    def curvature(self) -> Curvature:
        """Which Hessian."""
        weigh_rows = self.batchnorm_factor
        if weigh_rows is None:
            weigh_rows = not self.fisher and (self.paper_batchnorm or self.variant != "paper")
        copies = self.copies or 0
        return Curvature(self.damping, self.precision, weigh_rows, self.max_memory, self.fisher, copies, self.augment)

    @property
    def only_for_reconstruction(self) -> tuple[str, ...]:
        """See the base class: copies are augmented too."""
        return tuple(name for name in super().only_for_reconstruction if not (name == "augment" and self.copies))

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

    @property
    def strength(self) -> float | None:
        """How far layers go to make up for changed inputs: a share of the way; None where each layer chooses."""
        if self.propagate == "auto":
            return None
        return CORRECTION if self.propagate is True else float(self.propagate)

    def response(self, layer: Layer) -> Tensor | None:
        """The filter over time through which a layer's inputs are seen: none, time steps are samples like any other."""
        return None

    def calibrate(self, network: Network) -> Mapping[str, Problem]:
        """Every layer's problem: its weight and its damped Hessian."""
        self.state.dense = {f"{layer.name}.weight": layer.module.weight.detach().clone() for layer in network.layers}
        if self.state.problems is None:
            return self._problems(network)
        names = " ".join(layer.name for layer in network.layers)
        key = digest_of(f"{type(self).__name__} {self.curvature} {names}", [*network.module.state_dict().values()])
        if key in self.state.problems:
            return self.state.problems[key]
        self.state.problems.clear()  # first, so that no more are held than one run may hold
        found = self._problems(network)
        if found.in_one_part:  # more than memory holds are measured as they are asked for
            self.state.problems[key] = dict(found)
        return found

    def _problems(self, network: Network) -> ProblemsInParts:
        return self.curvature.problems(network, self.response, self.state.dense)

    def understudy(self) -> Self:
        """See :meth:`~compressors.base.Compressor.understudy`; problems on other samples are other ones."""
        other = super().understudy()
        other.state.problems = None
        return other

    def split_budget(self, network: Network, statistics: Mapping[str, Problem]) -> dict[str, LayerBudget]:
        """Each layer's part of the budget."""
        return self.budget_split.parts(network, statistics, self.budget)

    def compress_layer(self, network: Network, layer: Layer, part: LayerBudget, statistics: Problem) -> LayerResult:
        """Prune and quantise a layer, by the solver it can afford."""
        problem, response = statistics, self.response(layer)
        seen: dict[str, Any] = {}
        if self.propagate:
            problem, strength = self.curvature.problem_as_compressed(
                network, layer, response, self.state.dense, self.strength
            )
            seen |= {"propagated": strength} if self.strength is None else {}
        if problem.dead.all(dim=1).any():
            log.warning("layer %s: %s, so its weights there go: use more or other samples", layer.name, SILENT)
        result = self.layer_solver.solve(problem, part, layer)
        seen |= {"hessian": "input current" if response is None else "membrane potential"}
        seen |= {"weighed": "by the Fisher information"} if self.fisher else {}
        if dead := int(problem.dead.sum()):
            seen |= {"dead_inputs": dead}
        return replace(result, extra={**result.extra, **seen})

    def reused_seconds(self) -> float:
        """Time that kept eliminations took when they were made."""
        return self.layer_solver.solutions.reused_seconds
