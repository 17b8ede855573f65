"""What ``snnbench compress --max-drop`` and its like do: search on held-out samples, then compress and test once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.files import replacing
from benchmark.questions import build
from benchmark.questions.suite import Named
from benchmark.single_network.comparison import Result, compress
from benchmark.single_network.compress import open_for, write
from benchmark.single_network.paired import CONFIDENCE, PairedChange
from benchmark.single_network.path import draw
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
from compressors.budget import Budget, BudgetError
from compressors.registry import COMPRESSORS

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
    output: Path,
    command: Callable[[Candidate], str],
    *,
    samples: int = HELD_OUT,
    aftercare: Sequence[str] = (),
    plain: bool = False,
    told: Told = lambda step: None,
) -> dict[str, Any]:
    """Find the budget that a wish asks for, compress with it, test before and after, and write it all.

    Args:
        source: the dense network and its data.
        space: what is searched.
        wish: what is wanted.
        output: the file of the compressed network, see :func:`benchmark.single_network.compress.compress_checkpoint`;
            the picture of the search stands beside it, ``.search.png``.
        command: how the winner is compressed without a search.
        samples: held-out samples to judge on, at most.
        aftercare, plain: as for a single compression.
        told: hears of every step.

    Returns:
        The summary of the winner's compression, with ``search`` in it; ``search.test`` is the change on the test
        samples, which no candidate was judged on.

    Raises:
        SearchError: nothing that was tried is what is wished for, or nothing needs to be tried.
        Whatever :func:`benchmark.single_network.compress.compress_checkpoint` and
            :class:`benchmark.single_network.trials.Bench` raise.
    """
    methods = [build.validated("compressor", Named, method) for method in space.methods]
    subject = open_for(source, output)
    done = search_on(Bench(subject, samples, source.seed, aftercare), methods, space, wish, told)
    bench = done.bench
    winner = bench.compressor(done.best.candidate)
    result = compress(subject.module(), subject.data, winner, seed=source.seed)
    account = done.to_dict(command(done.best.candidate)) | {"test": _tested(result).to_dict()}
    with replacing(picture_of(output)) as partial:
        draw(account, partial)
    return write(subject, done.best.candidate.method, result, output, plain, {"search": account})


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
    refusals: list[ValueError] = []

    def usable(candidate: Candidate) -> bool:
        if candidate.budget == Budget() or candidate.budget.kind not in kinds:
            return False
        try:
            bench.compressor(candidate)
        except (BudgetError, build.OptionError) as error:
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


def _tested(result: Result) -> PairedChange:
    return PairedChange.of(result.dense.correct, result.compressed.correct)
