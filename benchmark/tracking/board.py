"""The leaderboard in Weights & Biases: its tables, its pictures, who leads, and what became of papers' claims."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.boards.claims import pages
from benchmark.boards.claims.statements import load_claims
from benchmark.boards.claims.verdicts import judged
from benchmark.boards.columns import named, with_spread
from benchmark.boards.leaders import by_network, leaders
from benchmark.boards.markdown import markdown
from benchmark.boards.measures import COSTS
from benchmark.boards.plots import plot
from benchmark.boards.standings import Board, Table, standings
from benchmark.boards.tabular import as_csv
from benchmark.questions.suite import digest
from benchmark.records import RecordStore
from benchmark.tracking.artifacts import add_text
from benchmark.tracking.runs import Mode, SuiteLog, open_run, warn
from benchmark.wording import count, percent, size

if TYPE_CHECKING:
    import wandb

FRONT = (
    "data and network",
    "question",
    "method",
    "budget",
    "accuracy [%]",
    "memory",
    "operations",
    "as good within noise",
)
CLAIMS = ("method", "verdict", "claim", "source")


def log_board(board: Board, results: Path, *, mode: Mode | None = None) -> bool:
    """Log a leaderboard: who leads, its rows, its pictures, trade-offs and claims, and all rows as an artifact.

    The artifact ``leaderboard`` gets a new version, with the aliases ``latest`` and the board's digest, only where its
    content changed. Faults are warnings, as in :func:`benchmark.tracking.runs.log_run`.

    Returns:
        Whether it was logged.
    """
    try:
        import wandb

        with open_run(results, mode, id="leaderboard", name="leaderboard", job_type="leaderboard") as run:
            rows = _rows(board)
            run.log({"front": _front(board), "leaderboard": rows, "claims": _claims(board), **_trade_offs(board, rows)})
            artifact = wandb.Artifact("leaderboard", type="leaderboard")
            artifact.add(rows, "leaderboard")
            add_text(artifact, "leaderboard.md", markdown(board))
            run.log_artifact(artifact, aliases=["latest", digest(as_csv(board))])
    except Exception as error:  # whatever W&B raises must not cost the records
        warn("the leaderboard", error)
        return False
    return True


def sync(store: RecordStore, results: Path, checkpoints: Path, *, mode: Mode | None = None) -> tuple[int, int]:
    """Log all stored records and their leaderboard, as if their runs had just ended.

    Args:
        store: of the records.
        results: the results folder.
        checkpoints: folder of the dense networks; those that are there are logged and linked.
        mode: as for :func:`benchmark.tracking.runs.log_run`.

    Returns:
        How many records were logged, and how many were not.
    """
    records, log = list(store), SuiteLog(results, checkpoints, mode)
    logged = sum(map(log, records))
    if records:
        log_board(standings(records), results, mode=mode)
    return logged, len(records) - logged


def _rows(board: Board) -> "wandb.Table":
    import wandb

    lines = list(csv.reader(as_csv(board).splitlines()))
    return wandb.Table(columns=list(lines[0]), data=[list(map(_number, line)) for line in lines[1:]])


def _trade_offs(board: Board, rows: "wandb.Table") -> dict[str, Any]:
    """Charts over all rows, and of each table the picture that stands on the leaderboard's page."""
    import wandb

    title = "accuracy over {}".format
    charts = {title(cost): wandb.plot.scatter(rows, cost, "accuracy", title=title(cost)) for cost in COSTS}
    pictures = [wandb.Image(_picture(table), caption=table.title) for table in board.tables]
    return charts | {"trade-offs": pictures}


def _picture(table: Table) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(plot(table)))


def _front(board: Board) -> "wandb.Table":
    """The page's cards: of each network's first table who leads by which question."""
    import wandb

    return wandb.Table(
        columns=[*FRONT], data=[line for first, *_ in by_network(board.tables) for line in _leading(first)]
    )


def _leading(table: Table) -> list[list[str]]:
    lines = []
    for leader in leaders(table):
        row = leader.row
        if row is None:
            lines.append([table.title, leader.question, "no run yet", "", "", "", "", ""])
            continue
        measured = row.measured
        figures = [with_spread(measured["accuracy"], percent), size(measured["stored_bits"].mean)]
        figures.append(count(measured["synops"].mean))
        name = named(row.label, row.control, row.reported)
        lines.append([table.title, leader.question, name, row.budget.short, *figures, ", ".join(leader.ties)])
    return lines


def _claims(board: Board) -> "wandb.Table":
    import wandb

    found = judged(load_claims(), board)
    lines = [[one.claim.method, one.verdict or pages.UNJUDGED, one.claim.says, one.claim.source] for one in found]
    return wandb.Table(columns=[*CLAIMS], data=lines)


def _number(text: str) -> float | str | None:
    """A cell of the CSV; tables of W&B want numbers, and None where there is nothing."""
    try:
        return float(text) if text else None
    except ValueError:
        return text
