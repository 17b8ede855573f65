"""What a board would show otherwise with some records more."""

from collections.abc import Iterator

from benchmark.boards.columns import COLUMNS
from benchmark.boards.markdown import cell, line
from benchmark.boards.standings import Board, Row, Table

SHOWN = ("budget", "method", "accuracy", "Δ dense", "AC", "MAC", "memory", "seeds", "Pareto")
HEADS = ("what", "table", *SHOWN)

Place = tuple[str, str, str, int]


def changes(before: Board, after: Board) -> list[str]:
    """A Markdown table: the rows that come in, those that get other figures or another place on a front, and leave."""
    old, new = dict(_rows(before)), dict(_rows(after))
    lines = [
        _line("new" if place not in old else "changed", *found)
        for place, found in new.items()
        if place not in old or _shown(*old[place]) != _shown(*found)
    ]
    lines += [_line("gone", *found) for place, found in old.items() if place not in new]
    apart = {item.run: item for item in before.apart}
    kept_out = [item for item in after.apart if item.run not in apart]
    lines += [line(["not in a table", *([""] * len(SHOWN)), cell(f"{item.label}: {item.reason}")]) for item in kept_out]
    if not lines:
        return ["Nothing changes."]
    return [line([*HEADS]), line([":---"] * len(HEADS)), *lines]


def _rows(board: Board) -> Iterator[tuple[Place, tuple[Table, Row]]]:
    for table in board.tables:
        for row in table.rows:
            yield (table.key, row.label, row.budget.short, row.calibration_samples), (table, row)


def _shown(table: Table, row: Row) -> list[str]:
    return [cell(table.title), *(cell(COLUMNS[name](row)) for name in SHOWN)]


def _line(what: str, table: Table, row: Row) -> str:
    return line([what, *_shown(table, row)])
