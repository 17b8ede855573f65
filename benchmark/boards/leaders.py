"""Who leads a table at what people ask first: a point lost at most, a tenth of the weights, four bits."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.boards.noise import tied
from benchmark.boards.standings import Row, Setup, Table
from benchmark.boards.summary import TOLERANCE


@dataclass(frozen=True)
class Leader:
    """The best row of a table at one question.

    Args:
        question: in words.
        row: the best one; None where no row answers the question.
        ties: labels of other methods whose accuracy is no further from it than noise.
    """

    question: str
    row: Row | None
    ties: tuple[str, ...] = ()


AT: Mapping[str, Mapping[str, Any]] = {"a tenth of the weights": {"density": 0.1}, "4 bits": {"bits": 4}}
"""What budgets are asked for by name -> their limits; there, the most accurate row leads."""

WITHIN = {"within one point, least memory": "stored_bits", "within one point, fewest operations": "synops"}
"""Where the cheapest row leads that loses at most :data:`~benchmark.boards.summary.TOLERANCE`."""


def in_order(table: Table) -> tuple[bool, bool, str, str]:
    """The order of the tables of a data set and network: post-training ones first, fine-tuned ones apart."""
    return not table.division.startswith("post-training"), bool(table.condition), table.division, table.condition


def by_network(tables: Iterable[Table]) -> list[list[Table]]:
    """The tables of each data set and network, in the order of :func:`in_order`."""
    grouped: dict[Setup, list[Table]] = defaultdict(list)
    for table in tables:
        grouped[table.setup].append(table)
    return [sorted(own, key=in_order) for own in grouped.values()]


def leaders(table: Table) -> tuple[Leader, ...]:
    """The leader at each question, in the order in which they are asked."""
    rows = [row for row in table.rows if not row.dense]
    good = [row for row in rows if "difference" in row.measured and row.measured["difference"].mean >= -TOLERANCE]
    cheapest = [
        Leader(question, min(good, key=lambda row: row.measured[cost].mean, default=None))
        for question, cost in WITHIN.items()
    ]
    return (*cheapest, *(_most_accurate(question, rows, limits) for question, limits in AT.items()))


def _most_accurate(question: str, rows: list[Row], limits: Mapping[str, Any]) -> Leader:
    asked = [row for row in rows if row.budget.limits == limits]
    best = max(asked, key=lambda row: row.measured["accuracy"].mean, default=None)
    ties = [row.label for row in asked if best is not None and row.label != best.label and tied(row, best)]
    return Leader(question, best, tuple(dict.fromkeys(ties)))
