"""Leaderboards from records: for the terminal, as Markdown, CSV and JSON, and with plots in a folder.

Tables are those of :mod:`benchmark.boards.standings`. People read rounded numbers in handy units; CSV and JSON have
the raw ones, in the units of :data:`benchmark.boards.standings.MEASURES`.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from benchmark.boards.page import render
from benchmark.boards.plots import plot
from benchmark.boards.reported import beside
from benchmark.boards.standings import COSTS, MEASURES, Apart, Board, Row, Spread, Table, standings
from benchmark.boards.summary import MethodSummary, summarize
from benchmark.files import write_atomically
from benchmark.records import RecordStore, RunRecord
from benchmark.wording import count, joules, percent, points, seconds, size
from hardware.energy import DEFAULT_PROFILE

PLOTS = "leaderboard"  # folder of the pictures, beside leaderboard.md


def build(
    store: RecordStore,
    *,
    suite: str | None = None,
    data: str | None = None,
    model: str | None = None,
    energy_profile: str = DEFAULT_PROFILE,
) -> Board:
    """The tables of a store, or of the records of one suite, data set or network (by their plain names).

    Raises:
        ValueError: there is no such energy profile.
    """

    def wanted(record: RunRecord) -> bool:
        asked = record.question
        pairs = ((suite, record.suite), (data, asked.data.name), (model, asked.model.name))
        return all(wish is None or wish == found for wish, found in pairs)

    board = standings((record for record in store if wanted(record)), energy_profile)
    unreadable = tuple(Apart("", "unreadable", problem) for problem in store.problems())
    return replace(board, apart=board.apart + unreadable)


def write(board: Board, out: Path) -> None:
    """Write ``leaderboard.md``, ``.csv`` and ``.html`` and a picture per table, each file whole or not at all.

    Raises:
        StoreError: the folder is read-only or full.
    """
    for table in board.tables:
        write_atomically(out / PLOTS / f"{table.slug}.png", plot(table))
    write_atomically(out / "leaderboard.csv", as_csv(board))
    write_atomically(out / "leaderboard.html", render(board))
    write_atomically(out / "leaderboard.md", markdown(board))


def terminal(board: Board) -> RenderableType:
    """What ``snnbench leaderboard`` prints; a budget's rows stand together."""
    if not board.tables and not board.apart:
        return "no records yet: `snnbench run smoke` makes some"
    parts: list[RenderableType] = []
    for table in board.tables:
        parts += [_Fitted(table), "", _rich_summary(table), ""]
    if board.apart:
        parts.append(_rich_apart(board.apart))
    if board.tables:
        parts.append(f"[dim]{LEGEND}[/dim]")
    return Group(*parts)


def markdown(board: Board) -> str:
    """The tables in GitHub's Markdown, each followed by its picture."""
    lines = ["# Leaderboard", "", LEGEND, ""]
    for table in board.tables:
        lines += [f"## {_cell(table.title)}", "", _cell(_facts(table)), "", *_markdown_table(table), ""]
        lines += [_line(_SUMMARY_HEADS), _line([":---", *4 * ["---:"]]), *map(_line, _summary_cells(table)), ""]
        lines += [
            f"- reported, not measured here: {_cell(text)}" for text in beside(table.setup.data_name, table.division)
        ] + [""]
        lines += [f"![Accuracy over synaptic operations and over memory]({PLOTS}/{table.slug}.png)", ""]
    if board.apart:
        lines += ["## Not in a table", ""]
        lines += [f"- {_cell(f'`{item.run}` {item.label}: {item.reason}'.strip())}" for item in board.apart]
        lines.append("")
    return "\n".join(lines)


def as_csv(board: Board) -> str:
    """One line a row, raw numbers; a spread over seeds is ``<name>`` and ``<name>_std``."""
    out = io.StringIO()
    rows = [_flat(table, row) for table in board.tables for row in table.rows]
    writer = csv.DictWriter(
        out, [*_IDENTITY, *(f"{name}{end}" for name in MEASURES for end in ("", "_std")), *_FRONTS], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_json(board: Board) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers."""
    return {
        "measures": MEASURES,
        "energy_profile": board.energy_profile,
        "tables": [
            {
                **asdict(table.setup),
                "division": table.division,
                "condition": table.condition,
                "rows": [_row_dict(row) for row in table.rows],
                "summaries": [_summary_dict(summary) for summary in summarize(table)],
                "reported": beside(table.setup.data_name, table.division),
            }
            for table in board.tables
        ],
        "apart": [asdict(item) for item in board.apart],
    }


# numbers for people --------------------------------------------------------------------------------------------------


def _spread(spread: Spread | None, form: Callable[[float], str]) -> str:
    if spread is None:
        return "–"
    return form(spread.mean) if spread.std is None else f"{form(spread.mean)} ± {percent(spread.std)}"


# columns -------------------------------------------------------------------------------------------------------------

LEGEND = (
    "Mean ± sample standard deviation over seeds. Accuracy in % of the test samples; Δ in points to the same dense "
    "checkpoint; density as achieved; operations per sample; memory as stored, index included (weights: "
    "nonzero weights alone; + state: with neuron states); energy is an estimate from the counts; peak: largest memory "
    "of the process that compressed and tested. "
    "Pareto: no other row is at least as accurate at lower cost (ops: operations, mem: memory). (c): control."
)

_FRONT_NAMES = {"synops": "ops", "stored_bits": "mem"}

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "budget": lambda row: row.budget.short,
    "method": lambda row: f"{row.label} (c)" if row.control else row.label,
    "accuracy": lambda row: _spread(row.measured["accuracy"], percent),
    "Δ dense": lambda row: "" if row.dense else _spread(row.measured.get("difference"), points),
    "density": lambda row: f"{row.measured['density'].mean:.3g}",
    "bits": lambda row: f"{row.measured['bits'].mean:.3g}",
    "AC": lambda row: count(row.measured["synops_ac"].mean),
    "MAC": lambda row: count(row.measured["synops_mac"].mean),
    "memory": lambda row: size(row.measured["stored_bits"].mean),
    "weights": lambda row: size(row.measured["weight_bits"].mean),
    "+ state": lambda row: size(row.measured["total_bits"].mean),
    "energy": lambda row: joules(row.measured["energy_j"].mean),
    "time": lambda row: "" if row.dense else seconds(row.measured["compression_seconds"].mean),
    "peak": lambda row: size(8 * row.measured["peak_memory_bytes"].mean) if "peak_memory_bytes" in row.measured else "",
    "calib.": lambda row: "" if row.dense else str(row.calibration_samples),
    "seeds": lambda row: str(len(row.runs)),
    "Pareto": lambda row: " ".join(name for cost, name in _FRONT_NAMES.items() if cost in row.fronts),
}
_TEXT = {"method", "Pareto"}
_DISPENSABLE = ("peak", "weights", "+ state", "bits", "energy", "calib.", "time", "seeds", "density")

_SUMMARY_HEADS = [
    "in short",
    "fewest operations within 1 point of dense",
    "least memory within 1 point of dense",
    "mean accuracy over operations",
    "mean accuracy over memory",
]

_IDENTITY = (
    "division", "condition", "data", "split", "timesteps", "model", "fingerprint", "training",
    "method", "budget", "calibration_samples", "control", "seeds", "records",
)  # fmt: skip
_FRONTS = tuple(f"pareto_{cost}" for cost in COSTS)


def _facts(table: Table) -> str:
    setup = table.setup
    return f"Table {table.key}: data {setup.fingerprint[:8]}, dense training {setup.training[:8]}."


class _Fitted:
    """A table that leaves out what can be looked up elsewhere, before a narrow terminal cuts what cannot."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(width=1000)
        for left_out in range(len(_DISPENSABLE) + 1):
            shown = _rich_table(self.table, without=_DISPENSABLE[:left_out])
            if Measurement.get(console, unlimited, shown).maximum <= options.max_width:
                break
        yield shown


def _rich_table(table: Table, without: Sequence[str] = ()) -> RichTable:
    columns = {name: cell for name, cell in _COLUMNS.items() if name not in without}
    shown = RichTable(
        title=escape(table.title),
        caption=_facts(table),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0) if len(without) < len(_DISPENSABLE) else 0,
        show_edge=False,
    )
    for name in columns:
        shown.add_column(name, justify="left" if name in _TEXT else "right", no_wrap=name != "method")
    for row, following in zip(table.rows, (*table.rows[1:], None), strict=True):
        last_of_budget = following is None or following.budget != row.budget or row.dense
        cells = [escape(cell(row)) for cell in columns.values()]
        shown.add_row(*cells, style="dim" if row.control else None, end_section=last_of_budget)
    return shown


def _summary_cells(table: Table) -> list[list[str]]:
    """A line per method: see :class:`benchmark.boards.summary.MethodSummary`."""
    forms: dict[str, Callable[[float], str]] = {"synops": count, "stored_bits": size}

    def smallest(summary: MethodSummary, cost: str) -> str:
        row = summary.smallest.get(cost)
        return "none" if row is None else f"{forms[cost](row.measured[cost].mean)} (at {row.budget.short})"

    return [
        [
            _cell(f"{summary.method} (c)" if summary.control else summary.method),
            *(smallest(summary, cost) for cost in COSTS),
            *(percent(summary.area[cost]) if cost in summary.area else "–" for cost in COSTS),
        ]
        for summary in summarize(table)
    ]


def _rich_summary(table: Table) -> RichTable:
    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in _SUMMARY_HEADS:
        shown.add_column(head, justify="left" if head == _SUMMARY_HEADS[0] else "right")
    for cells in _summary_cells(table):
        shown.add_row(*map(escape, cells))
    return shown


def _rich_apart(apart: tuple[Apart, ...]) -> RichTable:
    shown = RichTable(title="not in a table", title_justify="left")
    for name in ("run", "question", "reason"):
        shown.add_column(name, overflow="fold")
    for item in apart:
        shown.add_row(escape(item.run), escape(item.label), escape(item.reason))
    return shown


def _markdown_table(table: Table) -> list[str]:
    rules = [":---" if name in _TEXT else "---:" for name in _COLUMNS]
    rows = [_line([_cell(cell(row)) for cell in _COLUMNS.values()]) for row in table.rows]
    return [_line(list(_COLUMNS)), _line(rules), *rows]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that cannot end a cell, open a tag, or begin another line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _flat(table: Table, row: Row) -> dict[str, Any]:
    spreads = {
        f"{name}{end}": value
        for name, spread in row.measured.items()
        for end, value in (("", spread.mean), ("_std", spread.std))
    }
    return {
        **asdict(table.setup),
        "division": table.division,
        "condition": table.condition,
        "method": row.label,
        "budget": row.budget.short,
        "calibration_samples": row.calibration_samples,
        "control": row.control,
        "seeds": " ".join(map(str, row.runs)),
        "records": " ".join(row.runs.values()),
        **spreads,
        **{f"pareto_{cost}": cost in row.fronts for cost in COSTS},
    }


def _summary_dict(summary: MethodSummary) -> dict[str, Any]:
    return {
        "method": summary.method,
        "control": summary.control,
        "smallest_budget": {cost: row.budget.short for cost, row in summary.smallest.items()},
        "mean_accuracy": dict(summary.area),
    }


def _row_dict(row: Row) -> dict[str, Any]:
    return {
        "method": row.label,
        "budget": row.budget.short,
        "calibration_samples": row.calibration_samples,
        "control": row.control,
        "runs": {str(seed): run for seed, run in row.runs.items()},
        "measured": {name: asdict(spread) for name, spread in row.measured.items()},
        "pareto": [cost for cost in COSTS if cost in row.fronts],
    }
