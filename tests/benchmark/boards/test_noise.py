"""Ties: what neither seeds nor test samples tell apart, with predictions kept and without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from benchmark.boards.leaders import leaders
from benchmark.boards.noise import of_seeds, of_test_set, tied
from benchmark.boards.page.content import content
from benchmark.boards.standings import Spread, standings
from benchmark.records import packed_answers
from tests.benchmark.factory import SAMPLES, make_record


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_over_test_samples_is_wilsons(right, more):
    samples = right + more
    half = of_test_set(right / samples, samples)
    interval = binomtest(right, samples).proportion_ci(0.95, "wilson")
    expected = max(interval.high - right / samples, right / samples - interval.low)
    assert half == pytest.approx(expected, rel=1e-4)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda values: np.std(values) > 1e-3))
def test_the_interval_over_seeds_is_students(values):
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert of_seeds(Spread.of(values)) == pytest.approx((interval.high - interval.low) / 2)


def test_one_seed_says_nothing_of_seeds():
    assert of_seeds(Spread.of([0.5])) is None


def rows(answers: dict[str, list[list[bool]]], kept: bool):
    """A table's rows of these methods, by name; answers by seed."""
    records = [
        make_record(
            method,
            0.1,
            seed=seed,
            accuracy=sum(correct) / len(correct),
            **({"correct": packed_answers(correct)} if kept else {}),
        )
        for method, seeds in answers.items()
        for seed, correct in enumerate(seeds)
    ]
    (table,) = standings(records).tables
    return {row.label: row for row in table.rows}


def samples(wrong: range) -> list[bool]:
    return [sample not in wrong for sample in range(SAMPLES)]


def test_methods_that_err_on_the_same_samples_are_told_apart_by_them_alone():
    answers = {"sbc": [samples(range(10))], "obc": [samples(range(20))]}  # ten points, and never the other way
    by_sample, alone = rows(answers, kept=True), rows(answers, kept=False)
    assert not tied(by_sample["sbc"], by_sample["obc"])
    assert tied(alone["sbc"], alone["obc"])


def test_methods_that_err_on_others_are_not():
    answers = {"sbc": [samples(range(10))], "obc": [samples(range(50, 70))]}
    found = rows(answers, kept=True)
    assert tied(found["sbc"], found["obc"])


def test_the_spread_over_seeds_counts_as_well():
    answers = {
        "sbc": [samples(range(wrong)) for wrong in (5, 30)],
        "obc": [samples(range(wrong)) for wrong in (20, 20)],
    }
    found = rows(answers, kept=True)
    assert tied(found["sbc"], found["obc"])


answers = st.lists(st.lists(st.booleans(), min_size=SAMPLES, max_size=SAMPLES), min_size=2, max_size=2)


@settings(max_examples=15, deadline=None)
@given(answers, answers)
def test_a_tie_is_mutual_and_everyone_ties_with_oneself(a, b):
    found = rows({"sbc": a, "obc": b}, kept=True)
    assert tied(found["sbc"], found["sbc"])
    assert tied(found["sbc"], found["obc"]) == tied(found["obc"], found["sbc"])


def test_ties_are_shown_as_such():
    answers = {
        "sbc": [samples(range(10))],
        "obc": [samples(range(50, 61))],
        "magnitude": [samples(range(80))],
    }
    records = [
        make_record(method, 0.1, accuracy=sum(correct) / SAMPLES, correct=packed_answers(correct))
        for method, (correct,) in answers.items()
    ]
    board = standings([*records, make_record(accuracy=0.95)])
    (table,) = content(board)["tables"]
    places = {row["method"]: row["place"] for row in table["rows"]}
    assert places == {"dense": "", "sbc": "1 =", "obc": "1 =", "magnitude": "3"}
    tenth = next(leader for leader in leaders(board.tables[0]) if leader.question == "a tenth of the weights")
    assert tenth.row is not None
    assert (tenth.row.label, tenth.ties) == ("sbc", ("obc",))
