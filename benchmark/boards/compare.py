"""Two runs side by side: what was asked, what came out, layer by layer, and if the difference is more than chance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table as RichTable
from scipy import stats

from benchmark.boards.origins import same_origin
from benchmark.questions.suite import digest
from benchmark.records import RunRecord
from benchmark.wording import points, precise, rounded

CONFIDENCE = 0.95


class CompareError(ValueError):
    """Runs that cannot be compared; says which and why."""

    exit_status = 2


@dataclass(frozen=True)
class Significance:
    """The difference of accuracy, B minus A, over seeds.

    Args:
        seeds: seeds that both have.
        paired: whether all of them share their dense checkpoint, so that differences are taken seed by seed.
        mean: mean difference of accuracy (share of test samples).
        low: lower end of its 95 % confidence interval, by Student's t; None with fewer than two seeds.
        high: the upper end.
        p: two-sided p value of the t test (paired, or Welch's); None with fewer than two seeds.
    """

    seeds: tuple[int, ...]
    paired: bool
    mean: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def text(self) -> str:
        """In plain words."""
        if self.low is None or self.high is None or self.p is None:
            return f"{points(self.mean)} points on one seed: no more can be said before there are others"
        test = "paired by dense checkpoint" if self.paired else "not paired: the dense checkpoints differ"
        verdict = "a difference" if self.p < 1 - CONFIDENCE else "no difference that outlives the choice of seeds"
        return (
            f"{points(self.mean)} points [{points(self.low)}, {points(self.high)}] (95 %, {len(self.seeds)} seeds, "
            f"{test}; p = {rounded(self.p)}): {verdict}"
        )


@dataclass(frozen=True)
class Comparison:
    """Two runs. Of ``config``, ``results`` and ``layers`` each entry is (value of A, value of B); None: not there.

    Args:
        a: record id.
        b: record id.
        config: what differs in the question, the data, the versions: dotted name -> values.
        results: accuracy, operations per sample, bits, seconds.
        layers: layer -> count -> values.
        significance: accuracy of B minus that of A over the seeds that both questions were asked with.
    """

    a: str
    b: str
    config: Mapping[str, tuple[Any, Any]]
    results: Mapping[str, tuple[float | None, float | None]]
    layers: Mapping[str, Mapping[str, tuple[float | None, float | None]]]
    significance: Significance

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)


def compare(records: Iterable[RunRecord], a: str, b: str) -> Comparison:
    """Compare the runs whose ids begin with ``a`` and ``b``.

    Raises:
        CompareError: there is no such run, or several, or one that failed.
    """
    known = {record.id: record for record in records}
    first, second = _find(known, a), _find(known, b)
    return Comparison(
        a=first.id,
        b=second.id,
        config=_differences(_config(first), _config(second)),
        results=_side_by_side(_results(first), _results(second)),
        layers=_layers(first, second),
        significance=significance(_over_seeds(known, first), _over_seeds(known, second)),
    )


def significance(a: Mapping[int, RunRecord], b: Mapping[int, RunRecord]) -> Significance:
    """The difference B minus A of accuracy, over the seeds in both."""
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        raise CompareError("the two questions share no seed: run one of them with the other's seeds")
    left = np.array([a[seed].answer.metrics.accuracy for seed in seeds])
    right = np.array([b[seed].answer.metrics.accuracy for seed in seeds])
    paired = all(same_origin(a[seed], b[seed]) for seed in seeds)
    mean = float(right.mean() - left.mean())
    if len(seeds) < 2:
        return Significance(seeds, paired, mean, None, None, None)
    if (
        np.ptp(right - left if paired else np.stack((left, right)), axis=-1).max() == 0
    ):  # the tests divide by the spread
        return Significance(seeds, paired, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    test = stats.ttest_rel(right, left) if paired else stats.ttest_ind(right, left, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return Significance(seeds, paired, mean, float(low), float(high), float(test.pvalue))


def show(comparison: Comparison) -> RenderableType:
    """What ``snnbench compare`` prints."""
    parts: list[RenderableType] = [f"accuracy of B minus A: {comparison.significance.text}", ""]
    parts.append(_table("what differs in the question and its circumstances", comparison, comparison.config))
    parts.append(_table("results", comparison, comparison.results))
    for name, counts in comparison.layers.items():
        parts.append(_table(f"layer {name}", comparison, counts))
    return Group(*parts)


def _find(known: Mapping[str, RunRecord], wanted: str) -> RunRecord:
    matches = [run_id for run_id in known if run_id.startswith(wanted)] if wanted else []
    if not matches:
        raise CompareError(f"no run {wanted!r} among {len(known)} records: leaderboard.csv and the page have the ids")
    if len(matches) > 1:
        raise CompareError(f"{len(matches)} runs begin with {wanted!r}: give more of the id")
    record = known[matches[0]]
    if record.status == "failed":
        raise CompareError(f"run {record.id} failed ({record.error}): it has no results to compare")
    return record


def _over_seeds(known: Mapping[str, RunRecord], run: RunRecord) -> dict[int, RunRecord]:
    """The runs that differ from this one in nothing but the seed."""
    wanted = _but_seed(run)
    same = [record for record in known.values() if record.status == "done" and _but_seed(record) == wanted]
    return {record.question.seed: record for record in same}


def _but_seed(record: RunRecord) -> str:
    question = record.question.model_dump(mode="json", exclude={"seed"})
    return digest([question, record.version, record.data.get("fingerprint"), record.division])


def _checkpoint(record: RunRecord) -> str | None:
    return None if record.dense is None else record.dense.sha256


def _config(record: RunRecord) -> dict[str, Any]:
    content = record.model_dump(mode="json", include={"question", "version", "division", "data", "environment"})
    content["dense checkpoint"] = _checkpoint(record)
    return _flat(content)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: pair for name, pair in _side_by_side(a, b).items() if pair[0] != pair[1]}


def _side_by_side(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])}


def _results(record: RunRecord) -> dict[str, float]:
    answer = record.answer
    return {
        **answer.metrics.model_dump(),
        "density": answer.compression.density,
        **answer.cost.totals(),
        "seconds to compress": answer.compression.seconds,
    }


def _layers(a: RunRecord, b: RunRecord) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    left, right = _layer_counts(a), _layer_counts(b)
    return {name: _side_by_side(x or {}, y or {}) for name, (x, y) in _side_by_side(left, right).items()}


def _layer_counts(record: RunRecord) -> dict[str, dict[str, float]]:
    report, densities = record.answer.cost, record.answer.densities
    return {
        layer.name: {
            "nonzero weights": layer.nonzero,
            "density": densities[layer.name],
            "AC per sample": layer.ac / report.samples,
            "MAC per sample": layer.mac / report.samples,
            "stored bits": layer.stored_bits if layer.memory_bits else 0,
        }
        for layer in report.layers
    }


def _table(title: str, comparison: Comparison, pairs: Mapping[str, Sequence[Any]]) -> RichTable:
    shown = RichTable(title=escape(title), title_justify="left")
    shown.add_column("")
    for label, run in (("A", comparison.a), ("B", comparison.b)):
        shown.add_column(f"{label} {run}", justify="right", overflow="fold")
    for name, pair in pairs.items():
        shown.add_row(escape(name), *(escape(_text(value)) for value in pair))
    return shown


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return precise(value) if isinstance(value, float) else str(value)
