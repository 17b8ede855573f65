"""From a wish to a budget: which density and which width of which method, found by trying few of them.

A wish is a fall of accuracy that is allowed (the cheapest network within it is looked for), limits of a chip or of
memory and operations (the most accurate network within them is), or both. A method's candidates stand in lines, one
for each width of the weights, from wide to narrow, and in a line from many weights to few. Along a line accuracy and
costs fall, and from a line to the next one as well: so a line is searched by bisection, and what is too lossy at one
width is not tried at a narrower one. Samples are few, so neighbours may stand in the wrong order; the path says what
was tried.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from benchmark.questions.suite import Named
from benchmark.runs.run import ScoreError
from benchmark.single_network.paired import PairedChange
from benchmark.single_network.trials import Candidate, Trial
from compressors.budget import Budget, BudgetError
from compressors.quantization.widths import MAX_BITS, MIN_BITS
from hardware import CostReport
from hardware.chips import chip_fit
from hardware.energy import DEFAULT_PROFILE, energy

DENSITIES = (1, 0.8, 0.65, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.065, 0.05, 0.04, 0.03, 0.025, 0.02)
"""Densities that are tried: each about four fifths of the one before."""

WIDTHS = (None, *range(MAX_BITS, MIN_BITS - 1, -1))
"""Widths that are tried: floats, and all that a weight may have."""

FIXED_BY_THE_NETWORK = frozenset(("inputs", "real_inputs", "layers", "kernel", "input_side", "output_side"))
"""Limits of chips that no compressor can bring a network within."""

Minimised = Literal["memory", "synops", "energy"]


class SearchError(ValueError):
    """A wish that no search can fulfil; says what stands in its way."""

    exit_status = 1


@dataclass(frozen=True)
class Wish:
    """What is wanted of a compressed network.

    Args:
        max_drop: most accuracy that may be lost, as a share (0.01 is a point). Without it the most accurate network
            is wanted that keeps within the limits.
        minimise: what is to be least where ``max_drop`` is given: stored bits, SynOps or joules a sample.
        chip: a chip that it must fit, see :mod:`hardware.chips`.
        max_memory_bits: most stored bits: weights, their index, scales and biases.
        max_synops: most synaptic operations a sample.
        energy_profile: what prices the counts where energy is minimised.
    """

    max_drop: float | None = None
    minimise: Minimised = "memory"
    chip: str | None = None
    max_memory_bits: float | None = None
    max_synops: float | None = None
    energy_profile: str = DEFAULT_PROFILE

    def price(self, cost: CostReport) -> float:
        """What is to be least."""
        if self.minimise == "energy":
            return energy(cost, self.energy_profile).joules
        return float(cost.stored_bits) if self.minimise == "memory" else cost.synops_per_sample

    def broken(self, cost: CostReport) -> tuple[str, ...]:
        """The limits that a network does not keep within."""
        checks = () if self.chip is None else chip_fit(cost, self.chip).checks
        broken = [f"{self.chip} {check.name}" for check in checks if check.ok is False]
        if self.max_memory_bits is not None and cost.stored_bits > self.max_memory_bits:
            broken.append("memory")
        if self.max_synops is not None and cost.synops_per_sample > self.max_synops:
            broken.append("synops")
        return tuple(broken)

    def check(self, dense: CostReport) -> None:
        """Refuse a search that is not needed, or that no compression can help.

        Raises:
            SearchError: the dense network keeps within the limits, or breaks one that compression does not change.
        """
        broken = self.broken(dense)
        hopeless = [limit for limit in broken if limit.rpartition(" ")[2] in FIXED_BY_THE_NETWORK]
        if hopeless:
            raise SearchError(f"compression cannot make the network fit: {', '.join(hopeless)}; see snnbench profile")
        if self.max_drop is None and not broken:
            raise SearchError("the dense network keeps within these limits: there is nothing to compress")


@dataclass(frozen=True)
class Step:
    """One candidate that was tried, and what came of it: a trial and how it compares, or an error."""

    candidate: Candidate
    trial: Trial | None = None
    change: PairedChange | None = None
    price: float = inf
    broken: tuple[str, ...] = ()
    lossy: bool = False
    error: str | None = None

    @property
    def accuracy(self) -> float:
        """On the held-out samples; of what failed it is nothing."""
        return 0.0 if self.trial is None else self.trial.accuracy

    @property
    def accepted(self) -> bool:
        """Whether it is what was wished for, be it the best or not."""
        return self.trial is not None and not self.broken and not self.lossy

    @property
    def verdict(self) -> str:
        """In words."""
        if self.error is not None:
            return f"failed: {self.error}"
        return ", ".join([*(["too lossy"] if self.lossy else []), *(f"over {limit}" for limit in self.broken)]) or "ok"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        told: dict[str, Any] = {"method": self.candidate.method.model_dump(), **self.candidate.budget.limits}
        told |= {"verdict": self.verdict}
        if self.trial is not None and self.change is not None:
            told |= {"price": self.price, "change": self.change.to_dict(), "reused": self.trial.reused}
            told |= self.trial.figures()
        return told


Attempt = Callable[[Candidate], Step]


def lines_of(method: Named, density: float | None, bits: int | None, usable: Callable[[Candidate], bool]) -> list[Any]:
    """A method's candidates: a line for each width, from wide to narrow, each from many weights to few.

    Args:
        method: with its options.
        density: the one to try; None for all of :data:`DENSITIES`.
        bits: the width to try; None for all of :data:`WIDTHS`.
        usable: whether the method can meet a candidate's budget.
    """
    densities, widths = (DENSITIES if density is None else (density,)), (WIDTHS if bits is None else (bits,))
    lines = [[Candidate(method, Budget(share, width)) for share in densities] for width in widths]
    return [kept for line in lines if (kept := [candidate for candidate in line if usable(candidate)])]


def attempting(trial: Callable[[Candidate], Trial], dense: Trial, wish: Wish) -> Attempt:
    """Tries candidates and holds each against the wish; one that fails is too lossy, and the search goes on."""

    def attempt(candidate: Candidate) -> Step:
        try:
            done = trial(candidate)
        except (ScoreError, BudgetError) as error:
            return Step(candidate, lossy=True, error=str(error))
        change = PairedChange.of(dense.correct, done.correct)
        lossy = wish.max_drop is not None and -change.change > wish.max_drop
        return Step(candidate, done, change, wish.price(done.cost), wish.broken(done.cost), lossy)

    return attempt


def search(methods: Iterable[Sequence[Sequence[Candidate]]], attempt: Attempt, wish: Wish) -> list[Step]:
    """All that was tried, in its order; :func:`best_of` chooses."""
    steps: list[Step] = []
    for lines in methods:
        begun = len(steps)
        for line in lines:
            _along([candidate for candidate in line if _open(candidate, steps[begun:], wish)], attempt, wish, steps)
    return steps


def _open(candidate: Candidate, earlier: Sequence[Step], wish: Wish) -> bool:
    """Whether wider lines of the same method leave it open that a candidate is better than theirs."""
    density = candidate.budget.density
    if any(step.lossy and step.candidate.budget.density >= density for step in earlier):
        return False
    beaten = [step.candidate.budget.density for step in earlier if step.accepted]
    return wish.max_drop is not None or all(density >= other for other in beaten)


def _along(line: Sequence[Candidate], attempt: Attempt, wish: Wish, steps: list[Step]) -> None:
    """Bisect a line, the tightest candidate first: if it is over a limit, they all are."""
    low, high = 0, len(line) - 1
    middle = high
    while low <= high:
        best = best_of(steps, wish)
        step = attempt(line[middle])
        steps.append(step)
        dear = bool(step.broken) or _dearer(step, best, wish)
        if step.lossy and dear:
            return
        if dear or (step.accepted and wish.max_drop is not None):
            low = middle + 1
        else:
            high = middle - 1
        middle = (low + high) // 2


def _dearer(step: Step, best: Step | None, wish: Wish) -> bool:
    """Whether a candidate costs no less than the best one; of what failed nobody knows."""
    if step.error is not None:
        return False
    return wish.max_drop is not None and best is not None and step.price >= best.price


def best_of(steps: Iterable[Step], wish: Wish) -> Step | None:
    """The cheapest that was accepted, or without a ``max_drop`` the most accurate, and of those the smallest."""

    def rank(step: Step) -> tuple[float, float]:
        return (-step.accuracy, step.price) if wish.max_drop is None else (step.price, -step.accuracy)

    return min((step for step in steps if step.accepted), key=rank, default=None)
