"""Verdicts follow from records by the rule, and change when they do."""

from collections.abc import Sequence
from math import exp, hypot, log, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmark.boards.claims.statements import Claim
from benchmark.boards.claims.verdicts import Judged, by_row, judged, outcome, verdict
from benchmark.boards.standings import standings
from benchmark.questions.suite import FineTuning
from benchmark.records import RunRecord, packed_answers
from tests.benchmark.factory import SAMPLES, make_record

SEEDS = (0, 1, 2)


def claim(*tests: dict[str, Any], **changes: Any) -> Claim:
    content = {"id": "a", "method": "sbc", "says": "s", "who": "w", "where": "a", "read": "note", "figure": "f"}
    return Claim.model_validate({**content, "tests": tests, **changes})


def test_of(at_least: float, **changes: Any) -> dict[str, Any]:
    return {"of": {"method": "sbc"}, "against": {"method": "obc"}, "at_least": at_least, **changes}


test_of.__test__ = False  # type: ignore[attr-defined]


def runs(method: Any, accuracies: Sequence[float], density: float = 0.1, **options: Any) -> list[RunRecord]:
    return [
        make_record(method, density, seed, accuracy=a, **options) for seed, a in zip(SEEDS, accuracies, strict=False)
    ]


def judge(one: Claim, *records: list[RunRecord]) -> Judged:
    (found,) = judged([one], standings([record for listed in records for record in listed]))
    return found


# the rule ------------------------------------------------------------------------------------------------------------

NUMBER = st.floats(-100, 100, allow_nan=False)


@given(st.tuples(NUMBER, NUMBER).map(sorted), st.tuples(NUMBER, NUMBER).map(sorted))
def test_an_outcome_is_where_the_interval_lies(ends: list[float], marks: list[float]) -> None:
    (low, high), (in_part, at_least) = ends, marks
    above, reaches = low > in_part, high >= at_least
    wanted = {(1, 1): "met", (1, 0): "met in part", (0, 0): "not met", (0, 1): "within noise"}[above, reaches]
    assert outcome(low, high, at_least, in_part) == wanted


@given(NUMBER, st.floats(0, 50), st.floats(0, 50), st.tuples(NUMBER, NUMBER).map(sorted))
def test_more_noise_never_decides_what_less_noise_left_open(
    value: float, half: float, more: float, marks: list[float]
) -> None:
    narrow = outcome(value - half, value + half, marks[1], marks[0])
    wide = outcome(value - half - more, value + half + more, marks[1], marks[0])
    if narrow == "within noise":
        assert wide == "within noise"


def test_one_seed_decides_nothing() -> None:
    assert outcome(None, None, 0, 0) == "one seed"


OUTCOMES = ("met", "met in part", "not met", "within noise", "one seed")


@given(st.lists(st.sampled_from(OUTCOMES), max_size=6), st.booleans())
def test_a_verdict_follows_from_the_outcomes(found: list[Any], complete: bool) -> None:
    reached = verdict(found, complete)
    decisive = [each for each in found if each != "one seed"]
    if not found:
        assert reached is None
    elif decisive and all(each == "met" for each in decisive) and complete:
        assert reached == "met"
    elif any(each.startswith("met") for each in decisive):
        assert reached == "met in part"
    elif "not met" in decisive:
        assert reached == "not met"
    else:
        assert reached == "not testable here"


# from records --------------------------------------------------------------------------------------------------------

SLIGHT = (0.900, 0.901, 0.902)


@pytest.mark.parametrize(
    ("worse", "at_least", "wanted"),
    [
        (0.30, 20, "met"),  # by 30 points, of which 20 are claimed
        (0.30, 28, "met"),
        (0.30, 60, "met in part"),  # better, and far from by as much
        (0.00, 40, "not met"),  # no better, and the claimed figure is out of reach
        (-0.30, 20, "not met"),
        (0.01, 2, "not testable here"),  # a point, where the test's noise is eight
    ],
)
def test_the_verdict_flips_when_the_records_do(worse: float, at_least: float, wanted: str) -> None:
    base = [accuracy - 0.3 for accuracy in SLIGHT] if worse < 0 else SLIGHT
    found = judge(claim(test_of(at_least)), runs("sbc", base), runs("obc", [accuracy - worse for accuracy in base]))
    assert found.verdict == wanted
    assert len(found.measured) == 1


def test_spread_over_seeds_undoes_a_verdict() -> None:
    steady = judge(claim(test_of(20)), runs("sbc", SLIGHT), runs("obc", (0.60, 0.60, 0.60)))
    shaky = judge(claim(test_of(20)), runs("sbc", SLIGHT), runs("obc", (0.40, 0.60, 0.80)))
    assert (steady.verdict, shaky.verdict) == ("met", "not testable here")
    assert "noise" in shaky.reason


def test_the_interval_is_of_students_t_and_of_the_test_samples() -> None:
    one, other = (0.9, 0.92, 0.94), (0.5, 0.55, 0.53)
    (measured,) = judge(claim(test_of(1)), runs("sbc", one), runs("obc", other)).measured
    differences = np.array(one) - other
    seeds = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    error = sqrt(sum(p * (1 - p) for p in (np.mean(one), np.mean(other))) / SAMPLES)
    half = hypot((seeds.high - seeds.low) / 2, stats.norm.ppf(0.975) * error)
    assert measured.value == pytest.approx(differences.mean())
    assert (measured.low, measured.high) == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert measured.samples == SAMPLES
    assert measured.seeds == SEEDS


def test_answers_to_the_same_samples_tell_what_independent_ones_cannot() -> None:
    right = {"sbc": [True] * 90 + [False] * 10, "obc": [True] * 78 + [False] * 22}  # wrong where the other is, and more

    def found(kept: bool) -> Judged:
        records = [
            make_record(method, 0.1, seed, accuracy=sum(correct) / SAMPLES,
                        **({"correct": packed_answers(correct)} if kept else {}))
            for method, correct in right.items() for seed in SEEDS
        ]  # fmt: skip
        return judge(claim(test_of(0)), records)

    assert (found(kept=False).verdict, found(kept=True).verdict) == ("met", "met")
    alone, paired = (found(kept).measured[0] for kept in (False, True))
    assert paired.value == alone.value == pytest.approx(0.12)
    assert alone.low is not None
    assert paired.low is not None
    assert paired.value - paired.low == pytest.approx(1.96 * sqrt(0.12 * 0.88 / SAMPLES), rel=0.01)
    assert alone.low < paired.low


def test_a_cost_is_compared_by_how_many_times_less_it_is() -> None:
    seconds = {"sbc": (2.0, 2.5, 3.0), "obc": (400.0, 600.0, 900.0)}
    records = [
        record.model_copy(update={"seconds": {"fit": value}})
        for method, values in seconds.items()
        for record, value in zip(runs(method, SLIGHT), values, strict=True)
    ]
    found = judge(claim(test_of(100, measure="fit_seconds")), records)
    logs = [log(b / a) for a, b in zip(*seconds.values(), strict=True)]
    ends = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    (measured,) = found.measured
    assert measured.value == pytest.approx(exp(np.mean(logs)))
    assert (measured.low, measured.high) == pytest.approx((exp(ends.low), exp(ends.high)))
    assert found.verdict == "met"
    faster = judge(claim(test_of(100, measure="fit_seconds"), method="obc"), [])
    assert faster.verdict is None


def test_a_factor_of_nothing_is_none_and_huge_ones_stay_numbers() -> None:
    never = [record.model_copy(update={"seconds": {}}) for record in runs("sbc", SLIGHT)]
    assert judge(claim(test_of(2, measure="fit_seconds")), never, runs("obc", SLIGHT)).verdict is None
    times = [
        record.model_copy(update={"seconds": {"fit": value}})
        for method, value in (("sbc", 1e-300), ("obc", 1e300))
        for record in runs(method, SLIGHT)
    ]
    (measured,) = judge(claim(test_of(2, measure="fit_seconds")), times).measured
    assert measured.value < float("inf")


def test_against_the_dense_network_and_with_a_lesser_mark() -> None:
    loses = {"of": {"method": "sbc"}, "against": {"method": "identity"}, "at_least": -1, "in_part": -30}
    dense = [make_record(seed=seed, accuracy=0.9) for seed in SEEDS]
    found = judge(claim(loses), dense, runs("sbc", (0.88, 0.88, 0.88)))
    assert found.verdict == "met"
    assert found.measured[0].against.method == "dense"
    assert judge(claim(loses), dense, runs("sbc", (0.75, 0.75, 0.75))).verdict == "met in part"
    assert judge(claim(loses), dense, runs("sbc", (0.30, 0.30, 0.30))).verdict == "not met"


def test_what_is_claimed_of_a_row_at_once_has_to_hold_at_once() -> None:
    records = [*runs("sbc", SLIGHT), *runs("obc", (0.5, 0.5, 0.5)), *runs("rtn", SLIGHT)]
    better = test_of(20)
    best = {**better, "against": {"method": "rtn"}, "at_least": 40}
    assert judge(claim(better), records).verdict == "met"
    assert judge(claim(better, best), records).verdict == "not met"
    assert by_row(judge(claim(better, best), records).measured) == ["not met"]


def test_a_part_without_records_keeps_a_claim_from_being_met() -> None:
    records = [*runs("sbc", SLIGHT), *runs("obc", (0.5, 0.5, 0.5))]
    found = judge(claim(test_of(20), {**test_of(20), "against": {"method": "rtn"}}), records)
    assert found.verdict == "met in part"
    assert "no record" in found.reason


# which rows are compared ---------------------------------------------------------------------------------------------


def test_without_a_record_there_is_no_verdict() -> None:
    for records in ([], runs("sbc", SLIGHT), runs("obc", SLIGHT)):
        found = judge(claim(test_of(1)), records)
        assert (found.verdict, found.measured, found.reason) == (None, (), "no record of it yet")


def test_what_cannot_be_tested_says_why() -> None:
    found = judge(claim(untestable="no such chip is here"), runs("sbc", SLIGHT))
    assert (found.verdict, found.reason) == ("not testable here", "no such chip is here")


def test_one_seed_is_shown_and_decides_nothing() -> None:
    found = judge(claim(test_of(20)), runs("sbc", SLIGHT[:1]), runs("obc", (0.5,)))
    assert found.verdict == "not testable here"
    assert found.reason == "one seed has no spread"
    assert found.measured[0].low is None
    more = judge(claim(test_of(20)), runs("sbc", SLIGHT), runs("obc", (0.5, 0.5, 0.5)),
                 runs("sbc", SLIGHT[:1], model="mlp"), runs("obc", (0.5,), model="mlp"))  # fmt: skip
    assert more.verdict == "met"


@pytest.mark.parametrize(
    ("differently", "compared"),
    [
        ({}, 1),
        ({"density": 0.2}, 0),
        ({"calibration_samples": 50}, 0),
        ({"model": "mlp"}, 0),
        ({"data": "digits_dvs"}, 0),
        ({"asked": {"finetuning": FineTuning()}, "division": "fine-tuned"}, 0),
        ({"asked": {"aftercare": ("batchnorm",)}}, 0),
        ({"method": {"name": "obc", "variant": "paper"}}, 0),
        ({"fingerprint": "a" * 64}, 0),
    ],
)
def test_rows_are_compared_that_differ_in_the_method_alone(differently: dict[str, Any], compared: int) -> None:
    other = runs(**{"method": "obc", "accuracies": (0.5, 0.5, 0.5), **differently})
    assert len(judge(claim(test_of(1)), runs("sbc", SLIGHT), other).measured) == compared


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ({}, 2),
        ({"data": "nmnist"}, 2),
        ({"data": "cifar100"}, 0),
        ({"data": {"name": "nmnist", "split": "pooled"}}, 0),
        ({"model": {"name": "conv", "width": 8}}, 0),
        ({"timesteps": 10}, 2),
        ({"timesteps": 20}, 0),
        ({"data": ["cifar100", "nmnist"]}, 2),
        ({"budget": {"density": 0.1}}, 1),
        ({"budget": {"density": 0.095}}, 1),
        ({"budget": {"density": 0.08}}, 0),
        ({"budget": {"density": 0.1, "bits": 4}}, 0),
        ({"budget": {"bits": 4}}, 0),
        ({"division": "fine-tuned"}, 0),
        ({"calibration_samples": 100}, 2),
        ({"aftercare": ["means"]}, 0),
    ],
)
def test_a_query_finds_what_it_asks_for(limit: dict[str, Any], found: int) -> None:
    records = [
        record for density in (0.1, 0.2) for method in ("sbc", "obc") for record in runs(method, SLIGHT, density)
    ]
    assert len(judge(claim(test_of(1, at=limit)), records).measured) == found


def test_divisions_and_calibration_sizes_are_crossed_where_the_claim_says_so() -> None:
    tuned = runs("lottery", (0.5, 0.5, 0.5), division="fine-tuned", asked={"finetuning": FineTuning()})
    across = {
        "of": {"method": "sbc", "division": "post-training"},
        "against": {"method": "lottery", "division": "fine-tuned"},
        "at_least": 20,
    }
    assert judge(claim(across), runs("sbc", SLIGHT), tuned).verdict == "met"
    few = {
        "of": {"method": "sbc", "calibration_samples": 10},
        "against": {"method": "sbc", "calibration_samples": 100},
        "at_least": -1,
        "in_part": -20,
    }
    found = judge(claim(few), runs("sbc", SLIGHT), runs("sbc", SLIGHT, calibration_samples=10))
    assert found.verdict == "met"
    assert (found.measured[0].of.calibration_samples, found.measured[0].against.calibration_samples) == (10, 100)


def test_reported_figures_never_stand_in_measured_columns() -> None:
    records = [*runs("sbc", SLIGHT), *runs("obc", (0.5, 0.5, 0.5))]
    one, other = (judge(claim(test_of(20), figure=figure), records) for figure in ("1 point", "99 points"))
    assert one.measured == other.measured
    sides = (one.measured[0].of, one.measured[0].against)
    assert [side.spread.mean for side in sides] == pytest.approx([np.mean(SLIGHT), 0.5])
