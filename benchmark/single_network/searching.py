"""What ``snnbench compress --max-drop`` and its like do: search on held-out samples, then compress and test once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.files import replacing
from benchmark.networks.fixed_point.reading import read
from benchmark.networks.fixed_point.scheme import FixedPoint
from benchmark.networks.nir.reading import stated_reset
from benchmark.questions import build
from benchmark.questions.suite import Named
from benchmark.runs.run import Measured
from benchmark.single_network.comparison import compress
from benchmark.single_network.compress import finished, open_for, write
from benchmark.single_network.paired import CONFIDENCE, PairedChange
from benchmark.single_network.path import draw
from benchmark.single_network.profile import Profile
from benchmark.single_network.search import (
    SearchError,
    Step,
    Wish,
    attempting,
    best_of,
    lines_of,
    search,
)
from benchmark.single_network.subject import Source
from benchmark.single_network.trials import HELD_OUT, Bench, Candidate
from benchmark.wording import points
from compressors.budget import Budget, BudgetError, OptionError
from compressors.registry import COMPRESSORS
from hardware.chips import chip_fit, chips
from hardware.energy import energy

Told = Callable[[Step], None]


@dataclass(frozen=True)
class Space:
    """What is searched: methods, and where one is given, the density or the width that all candidates have."""

    methods: Sequence[dict[str, Any]]
    density: float | None = None
    bits: int | None = None


@dataclass(frozen=True)
class Search:
    """A search that came to its end."""

    wish: Wish
    bench: Bench
    steps: Sequence[Step]
    best: Step

    def to_dict(self, command: str) -> dict[str, Any]:
        """JSON-able: the wish, what judged, the path, the winner, and the command that compresses as it did."""
        return {
            "wish": asdict(self.wish),
            "samples": {"unseen": len(self.bench.held_out.unseen), "seen": len(self.bench.held_out.seen)},
            "confidence": CONFIDENCE,
            **({} if self.bench.scheme is None else {"whole_numbers": asdict(self.bench.scheme)}),
            "dense": self.bench.dense.figures() | {"price": self.wish.price(self.bench.dense.cost)},
            "path": [step.to_dict() for step in self.steps],
            "best": self.steps.index(self.best),
            "seconds": sum(step.trial.seconds for step in self.steps if step.trial and not step.trial.reused),
            "command": command,
        }


def search_checkpoint(
    source: Source,
    space: Space,
    wish: Wish,
    outputs: Sequence[Path],
    command: Callable[[Candidate], str],
    *,
    samples: int = HELD_OUT,
    aftercare: Sequence[str] = (),
    plain: bool = False,
    scheme: FixedPoint | None = None,
    told: Told = lambda step: None,
) -> tuple[dict[str, Any], Profile]:
    """Find the budget that a wish asks for, compress with it, test before and after, and write it all.

    Args:
        source: the dense network and its data.
        space: what is searched.
        wish: what is wanted.
        outputs: the files of the compressed network, see :func:`benchmark.single_network.compress.compress_checkpoint`;
            the picture of the search stands beside the first, ``.search.png``.
        command: how the winner is compressed without a search.
        samples: held-out samples to judge on, at most.
        aftercare, plain: as for a single compression.
        scheme: candidates are judged, and the winner is written, in whole numbers of these widths.
        told: hears of every step.

    Returns:
        The summary of the winner's compression, with ``search`` in it; ``search.test`` is the change on the test
        samples, which no candidate was judged on. And the profile of what was tested, which the summary has under
        ``profile``: layer by layer, its energy, and the chips that take it.

    Raises:
        SearchError: nothing that was tried is what is wished for, or nothing needs to be tried.
        Whatever :func:`benchmark.single_network.compress.compress_checkpoint` and
            :class:`benchmark.single_network.trials.Bench` raise.
    """
    methods = [build.validated("compressor", Named, method) for method in space.methods]
    subject = open_for(source, outputs)
    if scheme is not None:
        read(subject.module().network)  # what has no form in whole numbers is found before the work
    bench = Bench(subject, samples, source.seed, aftercare, scheme)
    done = search_on(bench, methods, space, wish, told)
    best = done.best.candidate
    result = compress(subject.module(), subject.data, bench.compressor(best), seed=source.seed)
    final = finished(result, subject.data, bench.scheme_of(best))
    profile = _profile(final.measured, wish)
    account = done.to_dict(command(best)) | {"test": _tested(result.dense, final.measured).to_dict()}
    with replacing(picture_of(outputs[0])) as partial:
        draw(account, partial)
    return write(
        subject, best.method, final, outputs, plain, {"search": account, "profile": profile.to_dict()}
    ), profile


def _profile(tested: Measured, wish: Wish) -> Profile:
    """What the winner costs, and whether the chip that is wished for takes it; without a wish, which chips do."""
    fits = tuple(chip_fit(tested.cost, name) for name in ([wish.chip] if wish.chip else chips()))
    reset = stated_reset(tested.module.network)
    return Profile(tested.cost, energy(tested.cost, wish.energy_profile), tested.accuracy, fits, reset)


def picture_of(output: Path) -> Path:
    """Where the picture of a search stands."""
    return output.with_suffix(".search.png")


def search_on(bench: Bench, methods: Sequence[Named], space: Space, wish: Wish, told: Told) -> Search:
    """Find the budget that a wish asks for, on the samples of a bench; nothing is written or tested.

    Args:
        bench: the dense network, and what judges.
        methods: those of the space, with their options.
        space: densities and widths.
        wish: what is wanted.
        told: hears of every step.

    Raises:
        SearchError: see :func:`search_checkpoint`.
        BudgetError, OptionError: a method cannot meet any budget of the space, or has no such option.
    """
    lines = [_lines(method, space, bench) for method in methods]
    wish.check(bench.dense.cost)
    tried = attempting(bench.trial, bench.dense, wish)

    def attempt(candidate: Candidate) -> Step:
        step = tried(candidate)
        told(step)
        return step

    steps = search(lines, attempt, wish)
    best = best_of(steps, wish)
    if best is None:
        raise SearchError(_in_vain(steps, wish))
    return Search(wish, bench, steps, best)


def _lines(method: Named, space: Space, bench: Bench) -> list[Sequence[Candidate]]:
    """The method's candidates.

    Raises:
        BudgetError: there are none: the method cannot meet any budget of the space.
        OptionError: an option that the method does not have.
    """
    kinds = method.found_in(COMPRESSORS).load().budgets
    refusals: list[OptionError] = []

    def usable(candidate: Candidate) -> bool:
        budget = candidate.budget
        as_at_eight = bench.scheme is not None and budget.bits is None and "density+bits" in kinds
        if budget == Budget() or budget.kind not in kinds or as_at_eight:  # whole numbers have a width anyway
            return False
        try:
            bench.compressor(candidate)
        except OptionError as error:
            refusals.append(error)
            return False
        return True

    lines = lines_of(method, space.density, space.bits, usable)
    if not lines and refusals:
        raise refusals[0]
    if not lines:
        raise BudgetError(f"there is nothing to search for {method.name!r}: its budgets are {', '.join(kinds)}")
    return lines


def _in_vain(steps: Sequence[Step], wish: Wish) -> str:
    """Why nothing was found, with the candidate that came nearest."""
    failed = [step for step in steps if step.error is not None]
    if len(failed) == len(steps):
        return f"nothing of {len(steps)} could be tried: {failed[0].error}"
    fitting = [step for step in steps if not step.broken and step.change is not None]
    if not fitting:
        nearest = min((step for step in steps if step.broken), key=lambda step: (len(step.broken), step.price))
        return f"nothing of {len(steps)} tried keeps within the limits; {nearest.candidate} is {nearest.verdict}"
    nearest = max(fitting, key=lambda step: step.accuracy)
    return (
        f"nothing of {len(steps)} tried loses at most {points(wish.max_drop or 0)[1:]} points within the limits; "
        f"nearest is {nearest.candidate}: {nearest.change}"
    )


def _tested(dense: Measured, compressed: Measured) -> PairedChange:
    return PairedChange.of(dense.correct, compressed.correct)
