"""The leaderboard as CSV and JSON: raw numbers, in the units of :data:`benchmark.boards.measures.MEASURES`."""

import csv
import io
from dataclasses import asdict
from typing import Any

from benchmark.boards.measures import COSTS, MEASURES
from benchmark.boards.reported import beside
from benchmark.boards.standings import Board, Row, Table
from benchmark.boards.summary import MethodSummary, summarize
from hardware.table import inert

_IDENTITY = (
    "division", "condition", "data", "split", "timesteps", "model", "fingerprint", "training",
    "method", "budget", "calibration_samples", "control", "seeds", "records",
)  # fmt: skip
_SPREADS = tuple(f"{name}{end}" for name in MEASURES for end in ("", "_std"))
_FRONTS = tuple(f"pareto_{cost}" for cost in COSTS)


def as_csv(board: Board) -> str:
    """One line a row; a spread over seeds is ``<name>`` and ``<name>_std``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_IDENTITY, *_SPREADS, *_FRONTS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(inert(_flat(table, row)) for table in board.tables for row in table.rows)
    return text.getvalue()


def as_json(board: Board) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers."""
    return {
        "measures": MEASURES,
        "energy_profile": board.energy_profile,
        "tables": [_table(table) for table in board.tables],
        "apart": [asdict(item) for item in board.apart],
    }


def _flat(table: Table, row: Row) -> dict[str, Any]:
    means = {name: spread.mean for name, spread in row.measured.items()}
    deviations = {f"{name}_std": spread.std for name, spread in row.measured.items()}
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
        **means,
        **deviations,
        **{f"pareto_{cost}": cost in row.fronts for cost in COSTS},
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        **asdict(table.setup),
        "division": table.division,
        "condition": table.condition,
        "rows": [_row(row) for row in table.rows],
        "earlier": [{**_row(row), "version": row.version} for row in table.earlier],
        "summaries": [_summary(summary) for summary in summarize(table)],
        "reported": beside(table.setup.data_name, table.division),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "method": row.label,
        "budget": row.budget.short,
        "calibration_samples": row.calibration_samples,
        "control": row.control,
        "reported": row.reported,
        "runs": {str(seed): run for seed, run in row.runs.items()},
        "measured": {name: asdict(spread) for name, spread in row.measured.items()},
        "pareto": [cost for cost in COSTS if cost in row.fronts],
    }


def _summary(summary: MethodSummary) -> dict[str, Any]:
    return {
        "method": summary.method,
        "control": summary.control,
        "smallest_budget": {cost: row.budget.short for cost, row in summary.smallest.items()},
        "mean_accuracy": dict(summary.area),
    }
