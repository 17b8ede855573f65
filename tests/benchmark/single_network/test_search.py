"""A search finds what trying everything would find, in few trials; what judged it is kept, and never the test part."""

import io
import json
from dataclasses import dataclass, replace
from math import log2
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from benchmark.questions.suite import Named
from benchmark.runs.run import ScoreError
from benchmark.single_network import path
from benchmark.single_network.paired import PairedChange
from benchmark.single_network.search import (
    DENSITIES,
    WIDTHS,
    SearchError,
    Step,
    Wish,
    attempting,
    best_of,
    lines_of,
    search,
)
from benchmark.single_network.searching import Space, _in_vain, _lines
from benchmark.single_network.trials import Bench, Candidate, Trial, TrialError
from compressors.budget import Budget, BudgetError
from compressors.registry import COMPRESSORS
from compressors.second_order import curvature
from datamodules.base import HeldOut
from hardware import HardwareCost
from tests.compressors.networks import QUIET, RandomEvents, classifier

METHODS = [Named(name="one"), Named(name="two")]


@dataclass(frozen=True)
class Surface:
    """Accuracy and costs over density and width: all of them fall with either, by random amounts."""

    lost: np.ndarray  # [methods, widths, densities], rising along both
    bits: np.ndarray  # falling along both
    synops: np.ndarray

    @classmethod
    def drawn(cls, seed: int) -> "Surface":
        random, shape = np.random.default_rng(seed), (len(METHODS), len(WIDTHS), len(DENSITIES))
        rising = [random.exponential(1, shape).cumsum(1).cumsum(2) for _ in range(3)]
        lost, bits, synops = (values / values.max() for values in rising)
        return cls(lost * 0.3, 2 - bits, 2 - synops)

    def step(self, candidate: Candidate, wish: Wish) -> Step:
        place = (
            METHODS.index(candidate.method),
            WIDTHS.index(candidate.budget.bits),
            DENSITIES.index(candidate.budget.density),
        )
        bits, synops, lost = (float(values[place]) for values in (self.bits, self.synops, self.lost))
        broken = ["memory"] if wish.max_memory_bits is not None and bits > wish.max_memory_bits else []
        broken += ["synops"] if wish.max_synops is not None and synops > wish.max_synops else []
        trial: Trial = SimpleNamespace(accuracy=1 - lost)
        price = bits if wish.minimise == "memory" else synops
        return Step(candidate, trial, None, price, tuple(broken), wish.max_drop is not None and lost > wish.max_drop)


LIMIT = st.none() | st.floats(1.0, 2.0)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_drop=st.none() | st.floats(0.0, 0.3),
    minimise=st.sampled_from(["memory", "synops"]),
    memory=LIMIT,
    synops=LIMIT,
)
def test_it_finds_what_trying_everything_finds(seed, max_drop, minimise, memory, synops):
    surface = Surface.drawn(seed)
    wish = Wish(max_drop, minimise, max_memory_bits=memory, max_synops=synops)
    lines = [lines_of(method, None, None, lambda candidate: True) for method in METHODS]
    everything = [surface.step(candidate, wish) for method in lines for line in method for candidate in line]
    steps = search(lines, lambda candidate: surface.step(candidate, wish), wish)
    wanted, found = best_of(everything, wish), best_of(steps, wish)
    assert (found is None) == (wanted is None)
    if wanted is not None and found is not None:
        assert (found.price, found.accuracy) == (wanted.price, wanted.accuracy)
    assert len(steps) <= len(METHODS) * len(WIDTHS) * (2 + log2(len(DENSITIES)))
    tried = [step.candidate for step in steps]
    assert all(tried.count(candidate) == 1 for candidate in tried)


def test_what_is_given_is_not_searched_and_what_cannot_be_is_left_out():
    def kinds(*known):
        return lambda candidate: candidate.budget.kind in known

    assert lines_of(METHODS[0], 0.3, None, kinds("density")) == [[Candidate(METHODS[0], Budget(0.3))]]
    assert lines_of(METHODS[0], 1.0, 4, kinds("bits")) == [[Candidate(METHODS[0], Budget(bits=4))]]
    widths = lines_of(METHODS[0], None, None, kinds("bits"))
    assert [[candidate.budget.bits for candidate in line] for line in widths] == [[bits] for bits in WIDTHS[1:]]
    assert lines_of(METHODS[0], None, None, kinds("synops")) == []


class Judged(RandomEvents):
    """Random events of which a share is held out, as benchmark data sets have it; tells its test loaders."""

    def __init__(self) -> None:
        super().__init__()
        self.tests = 0

    def held_out(self, count):
        return HeldOut(np.arange(min(count, 8)), np.arange(0))

    def held_out_dataloader(self, count):
        kept = min(count, 8)
        return DataLoader(TensorDataset(self.x[:kept], self.y[:kept]), batch_size=3)

    def test_dataloader(self):
        self.tests += 1
        return super().test_dataloader()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path))

    def made(samples=8, description=None, module=classifier, **options):
        subject = SimpleNamespace(
            data=Judged(),
            module=module,
            description=description or {"data": "random"},
            checkpoint=SimpleNamespace(sha256="0" * 64),
        )
        return Bench(subject, samples, **options)

    return made


HALF = Candidate(Named(name="random"), Budget(0.5))


def test_a_trial_is_the_compressed_network_on_the_held_out_samples(bench):
    made = bench()
    trial = made.trial(HALF)
    module, counter = classifier(), HardwareCost()
    Trainer(max_epochs=0, callbacks=[made.compressor(HALF)], **QUIET).fit(module, Judged())
    loader = Judged().held_out_dataloader(8)
    (metrics,) = Trainer(callbacks=[counter], **QUIET).test(module, loader, verbose=False)
    assert trial.cost == counter.report
    assert trial.accuracy == pytest.approx(metrics["test/accuracy"])
    assert trial.loss == pytest.approx(metrics["test/loss"])
    assert made.subject.data.tests == 0


def test_a_trial_is_found_again_and_only_the_same_one(bench, tmp_path):
    first = bench().trial(HALF)
    again = bench().trial(HALF)
    assert not first.reused
    assert again.reused
    assert replace(again, reused=False, correct=first.correct) == first
    assert torch.equal(again.correct, first.correct)

    def changed():
        """The same checkpoint under other code."""
        module = classifier()
        with torch.no_grad():
            module.network[7].weight.mul_(3)
        return module

    others = [bench(samples=5), bench(seed=1), bench(description={"data": "others"}), bench(module=changed)]
    made = bench(aftercare=["means"])
    calls = [(other, HALF) for other in (*others, made)]
    calls += [(made, replace(HALF, budget=Budget(0.4)))]
    calls += [(made, replace(HALF, method=Named(name="random", exclude="network.0")))]
    keys = {other._key(candidate, other.compressor(candidate)) for other, candidate in calls}
    assert len(keys) == len(calls)
    assert not any(tmp_path.joinpath(f"trials/{key}.json").exists() for key in keys)


def test_a_damaged_trial_is_named(bench, tmp_path):
    made = bench()
    made.trial(HALF)
    (path,) = tmp_path.glob("trials/*.json")
    whole = path.read_bytes()
    content = json.loads(whole)
    for broken in (
        whole[:-20],
        b"[]",
        json.dumps(content | {"correct": "zz"}).encode(),
        json.dumps(content | {"cost": {}}).encode(),
        json.dumps(content | {"samples": 7}).encode(),
        json.dumps(content | {"cost": content["cost"] | {"layers": [3]}}).encode(),
    ):
        path.write_bytes(broken)
        with pytest.raises(TrialError, match="delete it and run again"):
            made.trial(HALF)


def test_a_candidate_that_fails_is_a_step_and_the_search_goes_on(bench):
    dense = bench().dense

    def trial(candidate):
        if candidate.budget.density < 0.1:
            raise ScoreError("the network's loss is nan")
        return dense

    wish = Wish(max_drop=0.01)
    lines = lines_of(METHODS[0], None, 4, lambda candidate: True)
    steps = search([lines], attempting(trial, dense, wish), wish)
    failed = [step for step in steps if step.error]
    assert failed
    assert failed[0].verdict == "failed: the network's loss is nan"
    assert "change" not in failed[0].to_dict()
    assert best_of(steps, wish).candidate.budget.density >= 0.1


def test_of_what_failed_nobody_knows_the_price_so_that_its_line_is_searched_on():
    wish = Wish(max_drop=0.01)

    def attempt(candidate):
        if candidate.budget.bits == 4 and candidate.budget.density < 0.1:
            return Step(candidate, lossy=True, error="the network's loss is nan")
        return Step(candidate, SimpleNamespace(accuracy=1.0), None, candidate.budget.bits)

    lines = [line for bits in (8, 4) for line in lines_of(METHODS[0], None, bits, lambda candidate: True)]
    best = best_of(search([lines], attempt, wish), wish)
    assert best.candidate.budget.bits == 4


def test_limits_are_told_by_name_and_hopeless_ones_before_any_trial(bench):
    cost = bench().dense.cost
    wish = Wish(chip="loihi2", max_memory_bits=10, max_synops=1)
    assert wish.broken(cost) == ("loihi2 weight_bits", "memory", "synops")
    wish.check(cost)
    with pytest.raises(SearchError, match="cannot make the network fit: xylo inputs"):
        Wish(chip="xylo").check(cost)
    with pytest.raises(SearchError, match="nothing to compress"):
        Wish(max_synops=10**9).check(cost)
    Wish(max_drop=0.1, max_synops=10**9).check(cost)
    assert Wish(minimise="energy", max_drop=0.1).price(cost) < 1e-3
    assert Wish(minimise="synops", max_drop=0.1).price(cost) == cost.synops_per_sample


def test_budgets_that_a_method_refuses_are_left_out_or_told(bench):
    pattern = Named(name="obc", pattern="2:4")
    lines = _lines(pattern, Space([]), bench())
    assert {candidate.budget.density for line in lines for candidate in line} == {0.5, 1}
    with pytest.raises(ValueError, match="density"):
        _lines(pattern, Space([], density=0.3), bench())
    with pytest.raises(BudgetError, match="nothing to search for 'identity'"):
        _lines(Named(name="identity"), Space([]), bench())


def test_a_search_in_vain_says_how_near_it_came():
    trial, candidate = SimpleNamespace(accuracy=0.8), Candidate(METHODS[0], Budget(0.5, 4))
    lossy = Step(candidate, trial, PairedChange(100, 2, 12), 5.0, (), lossy=True)
    over = Step(replace(candidate, budget=Budget(0.02)), trial, PairedChange(100, 0, 0), 7.0, ("memory",))
    failed = Step(candidate, lossy=True, error="weights are nan")
    wish = Wish(max_drop=0.015)
    told = _in_vain([lossy, over, failed], wish)
    assert "loses at most 1.50 points within the limits; nearest is one density 0.5, bits 4: −10.00 points, 95%" in told
    assert _in_vain([over], wish).endswith("keeps within the limits; one density 0.02 is over memory")
    assert _in_vain([failed, failed], wish) == "nothing of 2 could be tried: weights are nan"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (PairedChange(1000, 1, 2), ["they decide: it loses at most 1 point"]),
        (PairedChange(100, 0, 1), ["100 samples cannot decide whether it loses at most 1 point"]),
        (PairedChange(200, 2, 3), ["200 samples cannot decide whether it loses at most 1 point; about"]),
    ],
)
def test_it_says_whether_its_samples_can_decide(change, told):
    lines = path.decided(change, 0.01)
    assert len(lines) == len(told)
    assert lines[0].startswith(told[0])
    assert path.decided(change, None) == []


@pytest.mark.parametrize("change", [PairedChange(200, 2, 3), PairedChange(1000, 10, 12), PairedChange(500, 3, 40)])
def test_as_many_samples_as_it_names_would_decide(change):
    """With the same shares of changed samples, more of them decide, and half as many do not."""
    needed = change.samples_to_decide(0.01)
    times = needed / change.samples
    many, few = (
        PairedChange(round(needed * k), round(change.gained * times * k), round(change.lost * times * k))
        for k in (1.5, 0.5)
    )
    assert many.verdict(0.01) != "undecided"
    assert few.verdict(0.01) == "undecided" or needed == change.samples


def test_the_path_is_a_table_that_fits_a_narrow_terminal():
    change = PairedChange(1000, 5, 11)
    cost = {"stored_bits": 8 * 2048.0, "synops": 12_300.0, "price": 1.5e-9, "reused": False, "change": change.to_dict()}
    steps = [
        {"method": {"name": "magnitude"}, "density": 0.025, "bits": 4, "verdict": "too lossy, over memory", **cost},
        {"method": {"name": "sbc"}, "bits": 3, "verdict": "ok", **cost},
        {"method": {"name": "sbc"}, "density": 0.02, "verdict": "failed: weights are nan"},
    ]
    account = {"path": steps, "best": 1, "samples": {"unseen": 220, "seen": 780}}
    for minimise in ("memory", "energy"):
        console = Console(width=100, file=io.StringIO())
        console.print(path.table({**account, "wish": {"minimise": minimise}}))
        told = console.file.getvalue().splitlines()
        assert told[0].startswith("3 candidates, judged on 1,000 held-out training samples, 780 of which the dense")
        rows = [line.split() for line in told if "magnitude" in line or "sbc" in line]
        price = ["1.5", "nJ"] if minimise == "energy" else ["12.3", "k"]
        assert rows[0][:8] == ["1", "magnitude", "0.025", "4", "2", "KiB", *price]
        assert rows[0][8:] == ["−0.60", "−1.52", "+0.21", "too", "lossy,", "over", "memory"]
        assert rows[1][:4] == ["*", "sbc", "1", "3"]
        assert rows[2] == ["3", "sbc", "0.02", "float", "failed"]
    more = {"wish": {"max_drop": None}, "test": change.to_dict(), "seconds": 1.0, "command": ""}
    assert path.lines(account | more)[0] == "3 failed: weights are nan"


@pytest.mark.parametrize("minimise", ["memory", "energy"])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_no_name_and_no_figure_is_cut_at_80_columns(minimise, name):
    change = PairedChange(1000, 5, 411)
    cost = {"stored_bits": 8e6, "synops": 123_400.0, "price": 1.534e-9, "reused": False, "change": change.to_dict()}
    verdict = "too lossy, over loihi1 mean_fan_out, over memory"
    step = {"method": {"name": name}, "density": 0.025, "verdict": verdict, **cost}
    account = {"path": [step] * 10, "best": 1, "samples": {"unseen": 220, "seen": 780}}
    console = Console(width=80, file=io.StringIO())
    console.print(path.table({**account, "wish": {"minimise": minimise}}))
    told = console.file.getvalue()
    price = "1.53 nJ" if minimise == "energy" else "123 k"
    figures = ["0.025", "float", "977 KiB", price, "−40.60", "−43.73", "−37.52"]
    assert "…" not in told
    assert all(f" {word} " in told for word in (name, *figures))


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        ({}, 1),
        ({"hessian": "fisher"}, 1),
        ({"max_memory": 1}, 18),
    ],  # three layers, held one at a time, for the split and again
)
def test_candidates_share_what_calibration_found(bench, options, measured, monkeypatch):
    """One bench measures Hessians once for all densities and widths, and finds what a bench for each would find."""
    sbc = Named(name="sbc", **options)
    candidates = [Candidate(sbc, budget) for budget in (Budget(0.5), Budget(0.3), Budget(0.5, 4))]
    alone = [bench()._tried(bench().compressor(candidate)) for candidate in candidates]
    calls = []
    for name in ("hessians", "fisher_hessians"):
        measure = getattr(curvature, name)
        told = lambda *given, measure=measure, **more: calls.append(1) or measure(*given, **more)  # noqa: E731
        monkeypatch.setattr(curvature, name, told)
    shared = bench()
    together = [shared._tried(shared.compressor(candidate)) for candidate in candidates]
    assert [trial.cost for trial in together] == [trial.cost for trial in alone]
    assert [trial.loss for trial in together] == [trial.loss for trial in alone]
    assert len(calls) == measured
    shared._tried(shared.compressor(Candidate(Named(name="obc", **options), Budget(0.5))))
    held = sum(len(problems) for problems in shared._problems.values())
    assert held == (0 if "max_memory" in options else 3), "one method's Hessians at a time"
