"""From claims and a board to verdicts. The rule stands in :data:`RULE`, for people, and below, for the machine."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, hypot, log
from typing import Any, Literal

from benchmark.boards.claims.statements import GAIN, Claim, Comparison, Rows
from benchmark.boards.noise import CONFIDENCE, Z, of_seeds, sampling_error
from benchmark.boards.standings import DENSE_FROM_SCRATCH, Board, Row, Spread, Table
from benchmark.questions.names import Named
from benchmark.records import RunRecord
from compressors.budget import Budget

NEAR = 1.1
"""The factor within which a density is the one that is meant."""

Outcome = Literal["met", "met in part", "not met", "within noise", "one seed"]
Verdict = Literal["met", "met in part", "not met", "not testable here"]

NO_RECORD = "no record of it yet"

_FROM_WORST: tuple[Outcome, ...] = ("not met", "within noise", "met in part", "met")

RULE = (
    "A verdict is worked out from the records whenever this page is made; nobody types it in. A claim is written down "
    "as comparisons of rows of the leaderboard, seed by seed from the same dense network: accuracies by their "
    "difference in points, costs by how many times smaller they are.",
    f"Each of these has a {100 * CONFIDENCE:.0f} % interval. It holds the spread over seeds (Student's t) and, for an "
    "accuracy, what another draw of test samples could change: sample by sample where both records keep their "
    "answers, elsewhere as if each network had been tested on samples of its own. One seed has no spread: it is shown, "
    "and decides nothing.",
    "A comparison is met if its interval lies above the lesser mark and reaches the claimed figure; met in part if it "
    "lies above the lesser mark and below the figure; not met if it neither lies above the mark nor reaches the "
    "figure; within noise if it reaches both. The lesser mark is no effect at all (no difference, a factor of 1) "
    "unless another one stands beside the figure.",
    "What is claimed of one row at once has to hold at once: the worst of its comparisons counts. A claim is met if "
    "all its rows are; met in part if some are met or met in part; not met if none is and one at least is not met; "
    "not testable here if all are within noise or of one seed, or for the reason given. A claim without records "
    "behind it has no verdict.",
)


@dataclass(frozen=True)
class Side:
    """One of two rows that are compared: its method, budget, records by seed, and the measure's mean and spread."""

    method: str
    budget: str
    calibration_samples: int
    division: str
    runs: Mapping[int, str]
    spread: Spread


@dataclass(frozen=True)
class Measurement:
    """A comparison as it came out on one network and data set, at one budget.

    Args:
        measure: what is compared.
        data: the data set and its time steps, for people.
        model: the network, for people.
        samples: number of test samples.
        of: the row that something is claimed of.
        against: the other row.
        seeds: those that both have.
        value: the difference (share of test samples), or the factor.
        low: lower end of its interval; None with one seed.
        high: upper end.
        at_least: what is claimed, in the unit of ``value``.
        in_part: the lesser mark.
        outcome: by the rule.
    """

    measure: str
    data: str
    model: str
    samples: int
    of: Side
    against: Side
    seeds: tuple[int, ...]
    value: float
    low: float | None
    high: float | None
    at_least: float
    in_part: float
    outcome: Outcome


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured. ``verdict`` is None where there is no record; ``reason`` says what keeps it."""

    claim: Claim
    measured: tuple[Measurement, ...] = ()
    verdict: Verdict | None = None
    reason: str = NO_RECORD


def judged(claims: Sequence[Claim], board: Board) -> tuple[Judged, ...]:
    """Every claim with its measurements and its verdict."""
    return tuple(_judged(claim, board) for claim in claims)


def outcome(low: float | None, high: float | None, at_least: float, in_part: float) -> Outcome:
    """Where an interval lies, by the rule; that of one seed is not known."""
    if low is None or high is None:
        return "one seed"
    if low > in_part:
        return "met" if high >= at_least else "met in part"
    return "within noise" if high >= at_least else "not met"


def verdict(outcomes: Iterable[Outcome], complete: bool = True) -> Verdict | None:
    """A claim's verdict from the outcomes of its rows; ``complete``: each of its comparisons has a record."""
    found = {*outcomes}
    if not found:
        return None
    decisive = found - {"one seed"}
    if decisive == {"met"} and complete:
        return "met"
    if decisive & {"met", "met in part"}:
        return "met in part"
    return "not met" if "not met" in decisive else "not testable here"


def by_row(measured: Iterable[Measurement]) -> list[Outcome]:
    """The outcome of each row that something is claimed of: the worst of its comparisons, those of one seed apart."""
    rows: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for measurement in measured:
        rows[tuple(measurement.of.runs.values())].append(measurement.outcome)
    return [next((worst for worst in _FROM_WORST if worst in found), "one seed") for found in rows.values()]


def _judged(claim: Claim, board: Board) -> Judged:
    if claim.untestable:
        return Judged(claim, verdict="not testable here", reason=claim.untestable)
    by_test = [tuple(_measurements(test, board)) for test in claim.tests]
    measured = tuple(measurement for found in by_test for measurement in found)
    outcomes = by_row(measured)
    return Judged(claim, measured, verdict(outcomes, all(by_test)), _reason(outcomes, all(by_test)))


def _reason(outcomes: Sequence[Outcome], complete: bool) -> str:
    """What keeps a claim from a verdict, or from a better one, beside what was measured."""
    if not outcomes:
        return NO_RECORD
    said = [] if complete else ["some of its comparisons have no record yet"]
    if {*outcomes} <= {"within noise", "one seed"}:
        noisy = "within noise" in outcomes
        said.append("within the noise of seeds and test samples" if noisy else "one seed has no spread")
    return "; ".join(said)


@dataclass(frozen=True)
class _Found:
    """A row that is meant, with its table and the record of one of its seeds."""

    table: Table
    row: Row
    record: RunRecord

    def value(self, measure: str, seed: int, board: Board) -> float | None:
        """A measure of one seed's run; None where its record does not know it."""
        record = board.runs[self.row.runs[seed]]
        if measure == "fit_seconds":
            return record.seconds.get("fit")
        return record.answer.cost.timesteps if measure == "timesteps" else self.row.values[seed].get(measure)


def _measurements(test: Comparison, board: Board) -> Iterator[Measurement]:
    of, against = (_found(rows, board) for rows in (test.left, test.right))
    for one, other in product(of, against):
        values = _by_seed(test.measure, one, other, board) if _comparable(test, one, other) else {}
        if values:
            yield _measurement(test, one, other, values)


def _found(rows: Rows, board: Board) -> list[_Found]:
    """The rows of a board that are meant."""
    every = (
        _Found(table, row, board.runs[next(iter(row.runs.values()))]) for table in board.tables for row in table.rows
    )
    return [found for found in every if _is_meant(rows, found)]


def _is_meant(rows: Rows, found: _Found) -> bool:
    question, row = found.record.question, found.row
    named = not rows.data or any(_covers(data, question.data) for data in rows.data)
    if not (named and _covers(rows.model, question.model)):
        return False
    method = rows.method
    if method is None or (method.name, method.options) != (question.compressor.name, question.compressor.options):
        return False
    if row.method == DENSE_FROM_SCRATCH:
        return False  # a control of its own, which no claim is about
    wanted: list[tuple[Any, Any]] = [(rows.timesteps, question.data.timesteps)]
    if not row.dense:
        plain = tuple(care for care in question.aftercare if care != "reconstruct")
        wanted += [(rows.division, found.record.division), (rows.aftercare, plain)]
        wanted += [(rows.calibration_samples, row.calibration_samples)]
    near = row.dense or rows.budget is None or _is_near(rows.budget, row.budget)
    return near and all(wish is None or wish == there for wish, there in wanted)


def _is_near(wanted: Budget, there: Budget) -> bool:
    """Whether a budget is the one that is meant: ladders of densities are rounded in many ways."""
    same = replace(there, density=wanted.density) == wanted
    return same and abs(log(there.density / wanted.density)) <= log(NEAR)


def _covers(wanted: Named | None, there: Named) -> bool:
    """Whether something is of this name and has these options; it may have others."""
    return wanted is None or (wanted.name == there.name and wanted.options.items() <= there.options.items())


def _comparable(test: Comparison, of: _Found, against: _Found) -> bool:
    """Whether two rows differ in nothing but what the comparison says."""
    crossing = test.own("division", "aftercare") and not against.row.dense
    if (of.table.setup != against.table.setup) if crossing else (of.table is not against.table):
        return False
    if against.row.dense:
        return True
    same_budget = test.own("budget") or of.row.budget == against.row.budget
    return same_budget and (
        test.own("calibration_samples") or of.row.calibration_samples == against.row.calibration_samples
    )


def _by_seed(measure: str, of: _Found, against: _Found, board: Board) -> dict[int, tuple[float, float]]:
    """Seed -> the measure of both, where both know it; a factor needs two numbers above zero."""
    pairs = {
        seed: (of.value(measure, seed, board), against.value(measure, seed, board))
        for seed in sorted(of.row.runs.keys() & against.row.runs.keys())
    }
    known = {seed: (a, b) for seed, (a, b) in pairs.items() if a is not None and b is not None}
    return known if measure == GAIN else {seed: pair for seed, pair in known.items() if min(pair) > 0}


def _measurement(
    test: Comparison, of: _Found, against: _Found, values: Mapping[int, tuple[float, float]]
) -> Measurement:
    samples = of.record.answer.cost.samples
    left, right = ([pair[side] for pair in values.values()] for side in (0, 1))
    if test.measure == GAIN:
        error = sampling_error(of.row, against.row, tuple(values))
        value, low, high = _interval([a - b for a, b in values.values()], error)
        at_least, in_part = test.at_least / 100, test.in_part / 100
    else:
        value, low, high = _interval([log(b) - log(a) for a, b in values.values()], 0.0)
        value = _factor(value)
        low, high = (None if end is None else _factor(end) for end in (low, high))
        at_least, in_part = test.at_least, test.in_part
    return Measurement(
        measure=test.measure,
        data=f"{of.table.data or of.table.setup.data}, T = {of.table.setup.timesteps}",
        model=of.table.network or of.table.setup.model,
        samples=samples,
        of=_side(of, left),
        against=_side(against, right),
        seeds=tuple(values),
        value=value,
        low=low,
        high=high,
        at_least=at_least,
        in_part=in_part,
        outcome=outcome(low, high, at_least, in_part),
    )


def _factor(logarithm: float) -> float:
    """A factor from its logarithm, as far as a number goes."""
    return exp(max(-700.0, min(700.0, logarithm)))


def _interval(differences: Sequence[float], error: float) -> tuple[float, float | None, float | None]:
    """Mean, and the ends of its interval: spread over seeds and standard error of the test, added as squares."""
    spread = Spread.of(differences)
    over_seeds = of_seeds(spread)
    if over_seeds is None:
        return spread.mean, None, None
    half = hypot(over_seeds, Z * error)
    return spread.mean, spread.mean - half, spread.mean + half


def _side(found: _Found, values: Sequence[float]) -> Side:
    row = found.row
    return Side(
        method=row.label,
        budget=row.budget.short,
        calibration_samples=row.calibration_samples,
        division="" if row.dense else found.record.division,
        runs=dict(row.runs),
        spread=Spread.of(values),
    )
