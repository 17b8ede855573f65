"""The leaderboard in the terminal: what ``snnbench leaderboard`` prints."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.boards.columns import COLUMNS, LEGEND, SUMMARY_HEADS, TEXT, provenance, summary_cells
from benchmark.boards.standings import Apart, Board, Row, Table
from benchmark.boards.styles import style
from hardware.table import columns_that_fit

_DISPENSABLE = (
    *("peak", "weights", "+ state", "bits", "energy", "calib.", "time", "seeds", "density"),
    *("MAC", "Pareto", "AC", "Δ dense", "memory"),
)
"""Columns that a narrow terminal goes without, the first of them first."""

_TIGHT = 9
"""How many of them are left out before columns stand closer."""

WIDE = 1000
"""Characters that every column of every table has room in."""


def terminal(board: Board) -> RenderableType:
    """All tables, each with its summary, and what stands in none; a budget's rows stand together."""
    if not board.tables and not board.apart:
        return "no records yet: `snnbench run demo` makes some"
    parts: list[RenderableType] = []
    for table in board.tables:
        parts += [_Fitted(table), "", _Summary(table), "", *_earlier(table)]
    if board.apart:
        parts.append(_apart(board.apart))
    if board.tables:
        parts.append(f"[dim]{LEGEND}[/dim]")
    return Group(*parts)


def _earlier(table: Table) -> list[str]:
    """A line that says of which methods the pages have rows of older versions."""
    versions = sorted({(row.method, row.version) for row in table.earlier})
    said = ", ".join(f"{escape(method)} (version {version})" for method, version in versions)
    return [f"[dim]earlier, on the page and in JSON: {said}[/dim]", ""] if versions else []


class _Fitted:
    """A table that leaves out what can be looked up elsewhere, before a narrow terminal cuts what cannot.

    Where there are colours, methods have those that they have on the page, behind their families' marks.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        methods = [_marked(row, console) for row in self.table.rows]
        widths = {name: max(map(cell_len, (name, *map(cell, self.table.rows)))) for name, cell in COLUMNS.items()}
        widths["method"] = max(cell_len(text.plain) for text in (Text("method"), *methods))
        room = options.max_width
        kept, padding = columns_that_fit(widths, _DISPENSABLE[:_TIGHT], room - 1), 1
        if sum(widths[name] for name in kept) + 2 * len(kept) - 1 > room:
            kept, padding = columns_that_fit(widths, _DISPENSABLE, room, gap=1), 0
        yield _table(self.table, methods, kept, padding)


def _marked(row: Row, console: Console) -> Text:
    """A method's name, in a terminal with colours behind its family's mark and in its own colour."""
    name = COLUMNS["method"](row)
    if row.dense or console.color_system is None:
        return Text(name)
    look = style(row.family, row.control)
    return Text.assemble((f"{look.glyph} ", look.colour), (name, look.colour))


def _table(table: Table, methods: Sequence[Text], kept: Sequence[str], padding: int) -> RichTable:
    columns = {name: COLUMNS[name] for name in kept}
    shown = RichTable(
        title=escape(table.title),
        caption=provenance(table),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, padding, 0, 0),
        show_edge=False,
    )
    for name in columns:
        shown.add_column(name, justify="left" if name in TEXT else "right", no_wrap=True, overflow="fold")
    for row, method, following in zip(table.rows, methods, (*table.rows[1:], None), strict=True):
        last_of_budget = following is None or following.budget != row.budget or row.dense
        cells = [method if name == "method" else escape(cell(row)) for name, cell in columns.items()]
        shown.add_row(*cells, style="dim" if row.control else None, end_section=last_of_budget)
    return shown


class _Summary:
    """The table in a few numbers per method; a narrow terminal goes without the last of them, and breaks no name."""

    def __init__(self, table: Table) -> None:
        self.cells = summary_cells(table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [dict(zip(SUMMARY_HEADS, cells, strict=True)) for cells in self.cells]
        words = {head: max(map(cell_len, head.split())) for head in SUMMARY_HEADS}  # a heading may take several lines
        widths = {head: max(words[head], *(cell_len(line[head]) for line in lines)) for head in SUMMARY_HEADS}
        shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        room = options.max_width - 1
        kept = columns_that_fit(widths, SUMMARY_HEADS[:0:-1], room)
        spare = max(0, room - sum(widths[head] + 2 for head in kept)) // len(kept)  # for headings of fewer lines
        for head in kept:
            width = max(widths[head], min(cell_len(head), widths[head] + spare))
            shown.add_column(head, justify="left" if head == SUMMARY_HEADS[0] else "right", width=width)
        for line in lines:
            shown.add_row(*(escape(line[head]) for head in kept))
        yield shown


def _apart(apart: Sequence[Apart]) -> RichTable:
    shown = RichTable(title="not in a table", title_justify="left")
    for name in ("run", "question", "reason"):
        shown.add_column(name, overflow="fold")
    for item in apart:
        shown.add_row(escape(item.run), escape(item.label), escape(item.reason))
    return shown
