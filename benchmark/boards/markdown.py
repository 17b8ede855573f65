"""The leaderboard in GitHub's Markdown."""

from collections.abc import Sequence

from benchmark.boards.columns import (
    COLUMNS,
    EARLIER_HEADS,
    LEGEND,
    SUMMARY_HEADS,
    TEXT,
    earlier_cells,
    provenance,
    summary_cells,
)
from benchmark.boards.reported import beside
from benchmark.boards.standings import Apart, Board, Table

PICTURES = "leaderboard"
"""The folder of the pictures and of the page's parts, beside the file; a table's picture is ``<slug>.png``."""


def markdown(board: Board) -> str:
    """The tables, each followed by its summary, what papers report, and its picture."""
    lines = ["# Leaderboard", "", LEGEND, ""]
    for table in board.tables:
        lines += [f"## {cell(table.title)}", "", cell(provenance(table)), ""]
        lines += [*_table(table), "", *_summary(table), "", *_earlier(table), *_reported(table), ""]
        lines += [f"![Accuracy over synaptic operations and over memory]({PICTURES}/{table.slug}.png)", ""]
    return "\n".join([*lines, *_apart(board.apart)])


def _table(table: Table) -> list[str]:
    rules = [":---" if name in TEXT else "---:" for name in COLUMNS]
    rows = [line([cell(show(row)) for show in COLUMNS.values()]) for row in table.rows]
    return [line([*COLUMNS]), line(rules), *rows]


def _summary(table: Table) -> list[str]:
    rules = [":---", *["---:"] * (len(SUMMARY_HEADS) - 1)]
    rows = [line([cell(text) for text in cells]) for cells in summary_cells(table)]
    return [line(SUMMARY_HEADS), line(rules), *rows]


def _earlier(table: Table) -> list[str]:
    rows = [line([cell(text) for text in cells]) for cells in earlier_cells(table)]
    rules = [":---", *["---:"] * (len(EARLIER_HEADS) - 1)]
    return [line(EARLIER_HEADS), line(rules), *rows, ""] if rows else []


def _reported(table: Table) -> list[str]:
    return [f"- reported, not measured here: {cell(text)}" for text in beside(table.setup.data_name, table.division)]


def _apart(apart: Sequence[Apart]) -> list[str]:
    if not apart:
        return []
    items = [f"- {cell(f'`{item.run}` {item.label}: {item.reason}'.strip())}" for item in apart]
    return ["## Not in a table", "", *items, ""]


def line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Text that cannot end a cell, open a tag, or begin another line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
