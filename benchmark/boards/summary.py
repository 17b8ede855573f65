"""A table in a few numbers per method: what it saves at little harm, and how it does over the whole range of costs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from benchmark.boards.measures import COSTS
from benchmark.boards.standings import Row, Table

TOLERANCE = 0.01  # "within one point of dense"


@dataclass(frozen=True)
class MethodSummary:
    """A method over its budgets.

    Args:
        method: its label.
        control: a yardstick rather than a method of its own.
        smallest: cost -> the row of least cost whose mean accuracy is at most :data:`TOLERANCE` below dense; a cost is
            absent where no row is.
        area: cost -> mean accuracy over the range of log cost that all methods of the table reach: the area under the
            accuracy-over-cost curve, divided by its width. Absent where there is no such range.
    """

    method: str
    control: bool
    smallest: Mapping[str, Row]
    area: Mapping[str, float]


def summarize(table: Table) -> tuple[MethodSummary, ...]:
    """One summary per method but the dense network, which ends every method's curve; the best area first."""
    dense = [row for row in table.rows if row.dense]
    methods: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        if not row.dense:
            methods[row.label].append(row)
    curves = {cost: {name: _curve([*rows, *dense], cost) for name, rows in methods.items()} for cost in COSTS}
    areas = {cost: _areas(curves[cost]) for cost in COSTS}
    summaries = [
        MethodSummary(
            method=name,
            control=rows[0].control,
            smallest=_smallest(rows),
            area={cost: areas[cost][name] for cost in COSTS if areas[cost]},
        )
        for name, rows in methods.items()
    ]
    return tuple(sorted(summaries, key=lambda summary: (-summary.area.get(COSTS[0], 0.0), summary.method)))


def _smallest(rows: Sequence[Row]) -> dict[str, Row]:
    good = [row for row in rows if "difference" in row.measured and row.measured["difference"].mean >= -TOLERANCE]
    return {cost: min(good, key=lambda row: row.measured[cost].mean) for cost in COSTS} if good else {}


def _curve(rows: Sequence[Row], cost: str) -> list[tuple[float, float]]:
    """(log cost, accuracy) in order of cost; costs of zero have no logarithm and are left out."""
    means = [(row.measured[cost].mean, row.measured["accuracy"].mean) for row in rows]
    return sorted((log(value), accuracy) for value, accuracy in means if value > 0)


def _areas(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Mean of each piecewise linear curve over the range that all of them reach; empty if there is none."""
    if not all(curves.values()) or not curves:
        return {}
    low = max(curve[0][0] for curve in curves.values())
    high = min(curve[-1][0] for curve in curves.values())
    return {name: _mean(curve, low, high) for name, curve in curves.items()} if low < high else {}


def _mean(curve: Sequence[tuple[float, float]], low: float, high: float) -> float:
    x, y = np.array(curve).T
    inside = x[(x > low) & (x < high)]
    at = np.concatenate(([low], inside, [high]))
    return float(np.trapezoid(np.interp(at, x, y), at) / (high - low))
