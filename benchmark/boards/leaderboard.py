"""Leaderboards from records, written to a folder: a page, Markdown, CSV and pictures, one module for each beside this.

Tables are those of :mod:`benchmark.boards.standings`. People read rounded numbers in handy units
(:mod:`benchmark.wording`); CSV and JSON have the raw ones.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmark.boards.claims import pages
from benchmark.boards.claims.statements import load_claims
from benchmark.boards.claims.verdicts import Judged, judged
from benchmark.boards.markdown import PICTURES, markdown
from benchmark.boards.page import NAME, render, render_folder
from benchmark.boards.plots import plot
from benchmark.boards.standings import Apart, Board, standings
from benchmark.boards.tabular import as_csv
from benchmark.files import write_together
from benchmark.records import RecordStore, RunRecord
from hardware.energy import DEFAULT_PROFILE


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
        UnknownName: there is no such energy profile.
    """

    def wanted(record: RunRecord) -> bool:
        question = record.question
        pairs = ((suite, record.suite), (data, question.data.name), (model, question.model.name))
        return all(wish is None or wish == name for wish, name in pairs)

    problems: list[str] = []
    with _without_collections():
        board = standings(filter(wanted, store.each(problems.append)), energy_profile)
    unreadable = tuple(Apart("", "unreadable", problem) for problem in problems)
    return replace(board, apart=board.apart + unreadable)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from looking again and again through ever more records for cycles, of which they have none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def claims(board: Board) -> tuple[Judged, ...]:
    """Every claim that the project knows, with its verdict by the records of a board."""
    return judged(load_claims(), board)


def claim_files(found: Sequence[Judged], out: Path) -> dict[Path, str | bytes]:
    """What is written of claims, by its place in a folder."""
    return {out / "claims.md": pages.markdown(found), out / "claims.html": pages.html(found)}


def write(board: Board, out: Path, whole: Board | None = None, *, single_file: bool = False) -> None:
    """Write ``leaderboard.md``, ``.csv`` and ``.html``, a picture per table, and the claims: all of them, or none.

    Args:
        board: the tables.
        out: the folder.
        whole: of all records, where ``board`` is of some: claims are judged by it.
        single_file: put the page's data and plotting library into it, and not beside it.

    Raises:
        StoreError: the folder is read-only or full.
    """
    pictures = {out / PICTURES / f"{table.slug}.png": plot(table) for table in board.tables}
    found = claims(whole or board)
    page = {NAME: render(board, found)} if single_file else render_folder(board, found)
    texts = {"leaderboard.csv": as_csv(board), "leaderboard.md": markdown(board), **page}
    boards = {out / name: text for name, text in texts.items()}
    write_together(pictures | boards | claim_files(found, out))
