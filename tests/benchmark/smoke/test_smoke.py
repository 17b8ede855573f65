"""The smoke benchmark notices what it is there to notice."""

import copy

import pytest

from benchmark import smoke
from benchmark.catalog import suite_path
from benchmark.questions.build import questions_of
from benchmark.questions.suite import FromScratch, load_suite
from compressors.registry import COMPRESSORS
from tests.benchmark.factory import make_failed, make_record

RECORDS = [make_record(suite="ci", accuracy=0.9), make_record("magnitude", 0.2, suite="ci", accuracy=0.8)]


@pytest.fixture
def bounds():
    return copy.deepcopy(smoke.as_bounds(RECORDS))


def test_what_was_recorded_is_as_recorded(bounds):
    assert list(smoke.differences(RECORDS, bounds)) == []


def test_accuracy_may_rise_and_fall_within_its_tolerance(bounds):
    bounds["methods"]["identity"]["accuracy"] = 0.915
    bounds["methods"]["magnitude"]["accuracy"] = 0.5
    assert list(smoke.differences(RECORDS, bounds)) == []
    bounds["methods"]["identity"]["accuracy"] = 0.93
    assert list(smoke.differences(RECORDS, bounds)) == [
        "identity: accuracy is 90.00 %, 3.00 points below the 93.00 % recorded"
    ]


@pytest.mark.parametrize("figure", ["weights_kept", "synops", "stored_bits"])
def test_a_single_count_is_a_difference(bounds, figure):
    bounds["methods"]["magnitude"][figure] += 1
    (line,) = smoke.differences(RECORDS, bounds)
    assert line.startswith(f"magnitude: {figure} is ")


def test_other_arithmetic_may_move_counts_a_little_but_not_the_weights_kept(bounds):
    bounds["arithmetic"]["instructions"] = "another"
    recorded = bounds["methods"]["magnitude"]
    recorded["synops"] *= 1.01
    assert list(smoke.differences(RECORDS, bounds)) == []
    recorded["synops"] *= 1.05
    recorded["weights_kept"] += 1
    assert [line.split()[1] for line in smoke.differences(RECORDS, bounds)] == ["weights_kept", "synops"]


def test_what_is_trained_from_scratch_is_compared_wholly_on_the_same_arithmetic_alone():
    records = [make_record("dst", 0.2, asked={"from_scratch": FromScratch(epochs=2)})]
    bounds = copy.deepcopy(smoke.as_bounds(records))
    recorded = bounds["methods"]["dst from scratch"]
    recorded["synops"] *= 3
    recorded["accuracy"] = 1.0
    assert [line.split()[3] for line in smoke.differences(records, bounds)] == ["accuracy", "synops"]
    bounds["arithmetic"]["instructions"] = "another"
    assert list(smoke.differences(records, bounds)) == []
    recorded["weights_kept"] += 1
    assert [line.split()[3] for line in smoke.differences(records, bounds)] == ["weights_kept"]


def test_failures_and_strangers_are_differences(bounds):
    quantised = make_record("rtn", asked={"bits": 4})
    records = [*RECORDS, make_failed("obc", 0.2), make_record("sbc", 0.2), quantised]
    bounds["methods"]["lost"] = bounds["methods"]["identity"]
    assert list(smoke.differences(records, bounds)) == [
        "obc: failed with ValueError: broken",
        "sbc: no figures recorded; once they are right, run python -m benchmark.smoke --record",
        "rtn to 4 bits: no figures recorded; once they are right, run python -m benchmark.smoke --record",
        "lost: recorded, and not registered any more",
    ]


OWN = sorted(name for name, entry in COMPRESSORS.items() if entry.origin == "snnbench")


@pytest.mark.parametrize("name", OWN)
def test_every_compressor_is_run_once_for_each_budget_that_it_meets(name):
    control = name == "identity"  # once more from scratch, beside the methods that begin there
    asked = [
        question.budget.kind
        for question in smoke.questions()
        if question.compressor.name == name and not (control and question.from_scratch)
    ]
    met = set(COMPRESSORS[name].load().budgets) & {"density", "bits"} or {"none"}
    assert sorted(asked) == sorted(met), f"list {name} in benchmark/suites/smoke.yaml"


def test_the_suite_of_that_name_is_what_is_run():
    """There is one smoke: what `snnbench run smoke` asks is what `make smoke` compares with its figures."""
    suite = load_suite(suite_path("smoke"))
    assert smoke.questions() == questions_of(suite)
    assert {*smoke.load_bounds()["methods"]} == {*map(smoke.named, questions_of(suite))}


def test_the_shipped_figures_are_worth_comparing_with():
    """Above chance, or an accuracy that has become one would not be noticed."""
    methods = smoke.load_bounds()["methods"]
    assert {name for name in ("identity", "obc", "sbc") if methods[name]["accuracy"] < 0.7} == set()
