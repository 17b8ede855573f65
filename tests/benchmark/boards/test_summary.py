"""A table in a few numbers per method."""

import io
import math
from itertools import pairwise

import pytest
from rich.console import Console

from benchmark.boards.markdown import markdown
from benchmark.boards.measures import COSTS
from benchmark.boards.standings import standings
from benchmark.boards.summary import summarize
from benchmark.boards.tabular import as_json
from benchmark.boards.terminal import terminal
from tests.benchmark.factory import make_record, make_suite_records

BUDGETS = (0.5, 0.2, 0.1)


def summaries_of(curves: dict[str, tuple[float, ...]], dense: float = 0.9) -> dict:
    records = [make_record(accuracy=dense)]
    records += [make_record(m, d, accuracy=a) for m, line in curves.items() for d, a in zip(BUDGETS, line, strict=True)]
    (table,) = standings(records).tables
    return {summary.method: summary for summary in summarize(table)}


def test_smallest_within_a_point_of_dense() -> None:
    found = summaries_of({"sbc": (0.9, 0.891, 0.7), "magnitude": (0.88, 0.5, 0.2)})
    assert {cost: row.budget.density for cost, row in found["sbc"].smallest.items()} == dict.fromkeys(COSTS, 0.2)
    assert found["magnitude"].smallest == {}
    assert found["magnitude"].control


def test_the_area_of_a_flat_curve_is_its_height() -> None:
    found = summaries_of({"sbc": (0.9, 0.9, 0.9), "random": (0.9, 0.9, 0.9)})
    for summary in found.values():
        assert summary.area == {cost: pytest.approx(0.9) for cost in COSTS}


def test_the_area_is_the_trapezoids_over_log_cost() -> None:
    found = summaries_of({"sbc": (0.9, 0.8, 0.6)})
    (table,) = standings(
        [
            make_record(accuracy=0.9),
            *(make_record("sbc", d, accuracy=a) for d, a in zip(BUDGETS, (0.9, 0.8, 0.6), strict=True)),
        ]
    ).tables
    points = sorted((math.log(row.measured["synops"].mean), row.measured["accuracy"].mean) for row in table.rows)
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    assert found["sbc"].area["synops"] == pytest.approx(area / (points[-1][0] - points[0][0]))


def test_methods_are_compared_over_the_range_all_of_them_reach() -> None:
    """A method that was also asked for a very small budget is not punished for it."""
    short = [make_record(accuracy=0.9), *(make_record("obc", d, accuracy=0.8) for d in (0.5, 0.2))]
    long = [make_record("sbc", d, accuracy=a) for d, a in ((0.5, 0.8), (0.2, 0.8), (0.03, 0.1))]
    (table,) = standings(short + long).tables
    areas = {summary.method: summary.area for summary in summarize(table)}
    assert areas["obc"] == {cost: pytest.approx(value) for cost, value in areas["sbc"].items()}


def test_without_dense_or_overlap_nothing_is_claimed() -> None:
    (table,) = standings([make_record("sbc", 0.1), make_record("obc", 0.5)]).tables
    for summary in summarize(table):
        assert summary.smallest == {}
        assert summary.area == {}


def test_better_curves_come_first() -> None:
    (table,) = standings(make_suite_records()).tables
    assert [summary.method for summary in summarize(table)] == ["sbc", "obc", "magnitude", "random"]


def test_summaries_are_in_every_rendering() -> None:
    board = standings(make_suite_records())
    console = Console(width=240, file=io.StringIO(), record=True)
    console.print(terminal(board))
    assert "within 1 point" in console.export_text()
    assert "fewest operations within 1 point of dense" in markdown(board)
    content = as_json(board)["tables"][0]["summaries"]
    assert content[0]["method"] == "sbc"
    assert set(content[0]["mean_accuracy"]) == set(COSTS)
