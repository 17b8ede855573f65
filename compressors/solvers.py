"""How one layer's second-order problem is solved: exactly, in a fixed order, or as the authors of SBC do it.

Each solver prunes and quantises a layer; they share the statistics, so that any of them can stand in for another.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressors import obs
from compressors.elimination import Course
from compressors.fixed_order import prune_fixed_order, prune_n_of_m, quantize_fixed_order
from compressors.pruning import largest
from compressors.quantizers import Grid
from compressors.statistics import CalibrationError

EXACT_OPERATIONS = 10**13  # of exact elimination in one layer, above which "auto" refines a fixed order's mask
SOLVING_OPERATIONS = 10**12  # of solving for a layer's weights that are left, above which the sweep's are kept
REFINING_OPERATIONS = 2 * 10**11  # rows x (weights left in a row)^3 in the first round of refining a layer's mask
ROUNDS, HEAD_START = 4, 3
BLOCK_WIDTH = 4
PAPER_BATCHES = 256  # of the elimination of a row in SBC's public code

log = logging.getLogger(__name__)


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


class Solver(Protocol):
    """What prunes and quantises a layer."""

    name: str

    def prune(self, problem: Problem, keep: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """The new weight and its mask, both ``[rows, d]``."""

    def quantize(self, problem: Problem, mask: Tensor, weight: Tensor, grid: Grid) -> Tensor:
        """The weight on its grid: ``[rows, d]``; ``weight`` is the pruned one, zero off the mask."""


class Solutions:
    """What took long to find, kept under the hash of all that it depends on: it can be neither stale nor foreign.

    In a folder, an interrupted run finds its finished layers again, and a run at another density its eliminations.

    Attributes:
        reused_seconds: the time that those taken up again had taken when they were made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.reused_seconds = folder, 0.0
        self._here: dict[str, dict[str, Tensor]] = {}

    def course(self, problem: Problem, *, batch: int = 1, width: int = 1) -> Course:
        """The course of eliminating every weight of every row; see :func:`compressors.obs.eliminate`."""

        def solve() -> dict[str, Tensor]:
            if width > 1:
                found = obs.eliminate_groups(problem.weight, problem.hessian, width)
            else:
                found = obs.eliminate(problem.weight, problem.hessian, batch=batch)
            return {"order": found.order, "losses": found.losses}

        options = "" if (batch, width) == (1, 1) else f"{batch} {width}"
        key = _digest(options, (problem.weight, problem.hessian))
        if key not in self._here:  # the split of a budget asks for it first, and then the layer itself
            self._here[key] = self._of(key, solve)
        order, losses = (self._here[key][name].to(problem.weight.device) for name in ("order", "losses"))
        return Course(order, losses, torch.zeros_like(losses))

    def found(
        self, options: str, depends: Sequence[Tensor], solve: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What ``solve`` gives, or gave before.

        Args:
            options: what it depends on beside tensors.
            depends: tensors it depends on.
            solve: tensors by name.
        """
        found = self._of(_digest(options, depends), solve)
        return {name: tensor.to(depends[0].device) for name, tensor in found.items()}

    def quantized(
        self, by: str, problem: Problem, weight: Tensor, mask: Tensor, grid: Grid, quantize: Callable[[], Tensor]
    ) -> Tensor:
        """The quantised weight that ``quantize`` gives, or gave before; ``by`` is its name."""
        depends = (weight, problem.hessian, mask, grid.scale, grid.zero)
        return self.found(f"{by} {grid.bits}", depends, lambda: {"weight": quantize()})["weight"]

    def _of(self, key: str, solve: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = None if self.folder is None else self.folder / f"{key}.safetensors"
        return self._load(path) if path is not None and path.exists() else _solved(path, solve)

    def _load(self, path: Path) -> dict[str, Tensor]:
        try:
            with safe_open(path, "pt") as file:
                self.reused_seconds += float(file.metadata()["seconds"])
            return load_file(path)
        except SafetensorError as error:
            raise CalibrationError(
                f"{path} is not a readable elimination ({error}): delete it and run again"
            ) from error


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
    """SparseGPT and GPTQ: all rows settle their columns in one order; see :mod:`compressors.fixed_order`.

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


def _digest(options: str, depends: Sequence[Tensor]) -> str:
    """Hash of the bits that a solution depends on."""
    digest = hashlib.blake2b(options.encode(), digest_size=16)
    for tensor in depends:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _solved(path: Path | None, solve: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Solve, and write what was found: at once or not at all."""
    started = time.perf_counter()
    found = solve()
    if path is None:
        return found
    seconds = time.perf_counter() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:  # of this process alone
        partial = Path(folder, path.name)
        save_file({n: t.cpu().contiguous() for n, t in found.items()}, partial, metadata={"seconds": str(seconds)})
        partial.replace(path)
    return found
