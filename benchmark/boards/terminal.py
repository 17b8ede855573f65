"""The leaderboard in the terminal: what ``snnbench leaderboard`` prints."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table as RichTable

from benchmark.boards.columns import COLUMNS, LEGEND, SUMMARY_HEADS, TEXT, provenance, summary_cells
from benchmark.boards.standings import Apart, Board, Table

_DISPENSABLE = ("peak", "weights", "+ state", "bits", "energy", "calib.", "time", "seeds", "density")
"""Columns that a narrow terminal goes without, the first of them first."""


def terminal(board: Board) -> RenderableType:
    """All tables, each with its summary, and what stands in none; a budget's rows stand together."""
    if not board.tables and not board.apart:
        return "no records yet: `snnbench run demo` makes some"
    parts: list[RenderableType] = []
    for table in board.tables:
        parts += [_Fitted(table), "", _summary(table), ""]
    if board.apart:
        parts.append(_apart(board.apart))
    if board.tables:
        parts.append(f"[dim]{LEGEND}[/dim]")
    return Group(*parts)


class _Fitted:
    """A table that leaves out what can be looked up elsewhere, before a narrow terminal cuts what cannot."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = {name: max(map(cell_len, (name, *map(cell, self.table.rows)))) for name, cell in COLUMNS.items()}
        for left_out in range(len(_DISPENSABLE) + 1):
            without = _DISPENSABLE[:left_out]
            shown = [width for name, width in widths.items() if name not in without]
            if sum(shown) + len(shown) * _padding(without) + len(shown) - 1 <= options.max_width:
                break
        yield _table(self.table, without)


def _padding(without: Sequence[str]) -> int:
    """Spaces behind a cell, besides the one between two columns: none where every dispensable column is left out."""
    return int(len(without) < len(_DISPENSABLE))


def _table(table: Table, without: Sequence[str]) -> RichTable:
    columns = {name: cell for name, cell in COLUMNS.items() if name not in without}
    shown = RichTable(
        title=escape(table.title),
        caption=provenance(table),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, _padding(without), 0, 0),
        show_edge=False,
    )
    for name in columns:
        shown.add_column(name, justify="left" if name in TEXT else "right", no_wrap=name != "method")
    for row, following in zip(table.rows, (*table.rows[1:], None), strict=True):
        last_of_budget = following is None or following.budget != row.budget or row.dense
        cells = [escape(cell(row)) for cell in columns.values()]
        shown.add_row(*cells, style="dim" if row.control else None, end_section=last_of_budget)
    return shown


def _summary(table: Table) -> RichTable:
    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in SUMMARY_HEADS:
        shown.add_column(head, justify="left" if head == SUMMARY_HEADS[0] else "right")
    for cells in summary_cells(table):
        shown.add_row(*map(escape, cells))
    return shown


def _apart(apart: Sequence[Apart]) -> RichTable:
    shown = RichTable(title="not in a table", title_justify="left")
    for name in ("run", "question", "reason"):
        shown.add_column(name, overflow="fold")
    for item in apart:
        shown.add_row(escape(item.run), escape(item.label), escape(item.reason))
    return shown
