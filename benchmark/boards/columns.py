"""What the tables for people show: their columns and those of their summaries, once for terminal and Markdown."""

from collections.abc import Callable

from benchmark.boards.measures import COSTS
from benchmark.boards.standings import Row, Spread, Table
from benchmark.boards.summary import MethodSummary, summarize
from benchmark.wording import count, joules, percent, points, rounded, seconds, size

LEGEND = (
    "Mean ± sample standard deviation over seeds. Accuracy in % of the test samples; Δ in points to the same dense "
    "checkpoint; density as achieved; operations per sample; memory as stored, index included (weights: "
    "nonzero weights alone; + state: with neuron states); energy is an estimate from the counts; peak: largest memory "
    "of the process that compressed and tested. "
    "Pareto: no other row is at least as accurate at lower cost (ops: operations, mem: memory). (c): control. "
    "(r): reported by its author, of what others do not have."
)

_FRONT_NAMES = {"synops": "ops", "stored_bits": "mem"}


def named(method: str, control: bool, reported: bool = False) -> str:
    """A method's name, with a mark if it is a yardstick rather than a method of its own, or its author's report."""
    return f"{method}{' (c)' if control else ''}{' (r)' if reported else ''}"


def with_spread(spread: Spread | None, form: Callable[[float], str]) -> str:
    """A mean and, where there are several seeds, the standard deviation of a share, in points."""
    if spread is None:
        return "–"
    return form(spread.mean) if spread.std is None else f"{form(spread.mean)} ± {percent(spread.std)}"


def _peak(row: Row) -> str:
    spread = row.measured.get("peak_memory_bytes")
    return "" if spread is None else size(8 * spread.mean)


COLUMNS: dict[str, Callable[[Row], str]] = {
    "budget": lambda row: row.budget.short,
    "method": lambda row: named(row.label, row.control, row.reported),
    "accuracy": lambda row: with_spread(row.measured["accuracy"], percent),
    "Δ dense": lambda row: "" if row.dense else with_spread(row.measured.get("difference"), points),
    "density": lambda row: rounded(row.measured["density"].mean),
    "bits": lambda row: rounded(row.measured["bits"].mean),
    "AC": lambda row: count(row.measured["synops_ac"].mean),
    "MAC": lambda row: count(row.measured["synops_mac"].mean),
    "memory": lambda row: size(row.measured["stored_bits"].mean),
    "weights": lambda row: size(row.measured["weight_bits"].mean),
    "+ state": lambda row: size(row.measured["total_bits"].mean),
    "energy": lambda row: joules(row.measured["energy_j"].mean),
    "time": lambda row: "" if row.dense else seconds(row.measured["compression_seconds"].mean),
    "peak": _peak,
    "calib.": lambda row: "" if row.dense else str(row.calibration_samples),
    "seeds": lambda row: str(len(row.runs)),
    "Pareto": lambda row: " ".join(name for cost, name in _FRONT_NAMES.items() if cost in row.fronts),
}
"""Heading -> the cell of a row."""

TEXT = frozenset({"method", "Pareto"})
"""Columns of words, which stand to the left; numbers stand to the right."""

SUMMARY_HEADS = (
    "in short",
    "fewest operations within 1 point of dense",
    "least memory within 1 point of dense",
    "mean accuracy over operations",
    "mean accuracy over memory",
)

_COST_FORMS: dict[str, Callable[[float], str]] = {"synops": count, "stored_bits": size}


EARLIER_HEADS = ("earlier", "version", "budget", "accuracy", "Δ dense", "AC", "MAC", "memory", "seeds")


def earlier_cells(table: Table) -> list[list[str]]:
    """A line for each row that an older version of its method gave, under :data:`EARLIER_HEADS`."""
    shown = EARLIER_HEADS[2:]
    return [
        [COLUMNS["method"](row), str(row.version), *(COLUMNS[name](row) for name in shown)] for row in table.earlier
    ]


def summary_cells(table: Table) -> list[list[str]]:
    """A line per method under :data:`SUMMARY_HEADS`; see :class:`benchmark.boards.summary.MethodSummary`."""
    return [
        [
            named(summary.method, summary.control),
            *(_smallest(summary, cost) for cost in COSTS),
            *(percent(summary.area[cost]) if cost in summary.area else "–" for cost in COSTS),
        ]
        for summary in summarize(table)
    ]


def _smallest(summary: MethodSummary, cost: str) -> str:
    row = summary.smallest.get(cost)
    return "none" if row is None else f"{_COST_FORMS[cost](row.measured[cost].mean)} (at {row.budget.short})"


def provenance(table: Table) -> str:
    """What tells a table from others of the same title: its key, and the data and training behind it."""
    setup = table.setup
    return f"Table {table.key}: data {setup.fingerprint[:8]}, dense training {setup.training[:8]}."
