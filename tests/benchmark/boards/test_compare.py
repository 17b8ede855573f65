"""Two runs side by side."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from benchmark.boards.compare import CompareError, compare, show, significance
from tests.benchmark.factory import make_failed, make_record


def runs_of(method: str, accuracies: dict[int, float], **options: object) -> dict:
    return {seed: make_record(method, 0.1, seed, accuracy=a, **options) for seed, a in accuracies.items()}


def test_paired_t_test_is_that_of_the_textbook() -> None:
    a = runs_of("obc", {0: 0.80, 1: 0.85, 2: 0.90})
    b = runs_of("sbc", {0: 0.82, 1: 0.88, 2: 0.91})
    found = significance(a, b)
    differences = [0.02, 0.03, 0.01]
    mean = sum(differences) / 3
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    t95 = 4.302652729911275  # Student's t with two degrees of freedom
    assert found.paired
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == (pytest.approx(mean - t95 * error), pytest.approx(mean + t95 * error))
    t = mean / error
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))  # closed form for two degrees of freedom
    assert "no difference" in found.text
    assert found.p > 0.05


def test_different_dense_checkpoints_are_not_paired() -> None:
    accuracies = {0: 0.80, 1: 0.85, 2: 0.90}
    b = {
        seed: make_record("sbc", 0.1, seed, accuracy=a + 0.001, checkpoint=f"other {seed}")
        for seed, a in accuracies.items()
    }
    found = significance(runs_of("obc", accuracies), b)
    assert not found.paired
    assert found.p is not None
    assert found.p > 0.9  # paired, the constant difference would have been certain
    assert (
        significance(runs_of("obc", accuracies), runs_of("sbc", {s: a + 0.001 for s, a in accuracies.items()})).p < 1e-6
    )


def test_equal_results_and_single_seeds_claim_nothing() -> None:
    same = significance(runs_of("obc", {0: 0.8, 1: 0.9}), runs_of("sbc", {0: 0.8, 1: 0.9}))
    assert (same.mean, same.p) == (0, 1)
    one = significance(runs_of("obc", {0: 0.8, 1: 0.9}), runs_of("sbc", {1: 0.95, 2: 0.9}))
    assert (one.seeds, one.p, one.mean) == ((1,), None, pytest.approx(0.05))
    assert "one seed" in one.text
    with pytest.raises(CompareError, match="share no seed"):
        significance(runs_of("obc", {0: 0.8}), runs_of("sbc", {1: 0.9}))


def test_config_results_and_layers() -> None:
    a, b = make_record("obc", 0.1, accuracy=0.8), make_record({"name": "sbc", "tau": 4}, 0.2, accuracy=0.7)
    found = compare([a, b, make_record("obc", 0.5)], a.id, b.id[:8])
    assert found.config == {
        "question.compressor.name": ("obc", "sbc"),
        "question.compressor.tau": (None, 4),
        "question.density": (0.1, 0.2),
    }
    assert found.results["accuracy"] == (0.8, 0.7)
    kept = [record.answer.cost.layers[1].nonzero for record in (a, b)]
    assert found.layers["fc"]["nonzero weights"] == tuple(kept)
    assert found.significance.mean == pytest.approx(-0.1)
    json.dumps(found.to_dict())


def test_a_layer_that_only_one_has() -> None:
    a, b = make_record("obc", 0.1), make_record("sbc", 0.1)
    b.cost = replace(b.answer.cost, layers=b.answer.cost.layers[:1])
    found = compare([a, b], a.id, b.id)
    assert set(found.layers) == {"conv1", "fc"}
    assert all(value is None for _, value in found.layers["fc"].values())


def test_only_the_seed_may_differ_within_a_question() -> None:
    a, b = runs_of("obc", {0: 0.8, 1: 0.8}), runs_of("sbc", {0: 0.9, 1: 0.9})
    strangers = [
        make_record("sbc", 0.1, 1, accuracy=0.1, calibration_samples=7),
        make_record("sbc", 0.2, 1, accuracy=0.1),
    ]
    found = compare([*a.values(), *b.values(), *strangers], a[0].id, b[0].id)
    assert found.significance.mean == pytest.approx(0.1)
    assert found.significance.seeds == (0, 1)


def test_runs_that_cannot_be_compared_are_named() -> None:
    good, failed = make_record("obc", 0.1), make_failed("sbc", 0.1, error="ValueError: broken")
    with pytest.raises(CompareError, match="no run 'zzz'"):
        compare([good], good.id, "zzz")
    with pytest.raises(CompareError, match="no run ''"):
        compare([good], good.id, "")
    with pytest.raises(CompareError, match="ValueError: broken"):
        compare([good, failed], good.id, failed.id)
    many = [make_record("obc", 0.1, seed) for seed in range(40)]
    twice = next(prefix for prefix in "0123456789abcdef" if sum(r.id.startswith(prefix) for r in many) > 1)
    with pytest.raises(CompareError, match="begin with"):
        compare(many, twice, twice)


def test_it_is_shown() -> None:
    a, b = make_record("obc", 0.1), make_record({"name": "sbc", "x": "y"}, 0.1)
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(show(compare([a, b], a.id, b.id)))
    text = console.export_text()
    for expected in ("compressor.x", "layer conv1", "MAC per sample", a.id, b.id, "one seed"):
        assert expected in text
