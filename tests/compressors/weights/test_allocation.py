"""How budgets are shared: oracles of the LAMP paper, exact totals, and properties."""

import heapq
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.weights.allocation import (
    ALLOCATIONS,
    Curve,
    by_magnitude,
    erk,
    lamp,
    lamp_scores,
    over_living,
    split,
    uniform,
)

NET = {
    "a": torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)),
    "b": torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.2,
    "c": torch.randn(10, 64, generator=torch.Generator().manual_seed(2)) * 3,
}
TOTAL = sum(w.numel() for w in NET.values())


@pytest.mark.parametrize("allocate", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.01, 1e-6])
def test_every_layer_keeps_something_and_no_more_than_it_has(allocate, density):
    kept = allocate(NET, density)
    assert list(kept) == list(NET)
    assert all(1 <= kept[name] <= w.numel() for name, w in NET.items())
    assert sum(kept.values()) == pytest.approx(max(3, density * TOTAL), abs=2)


@pytest.mark.parametrize("allocate", [by_magnitude, lamp])
@pytest.mark.parametrize("density", [0.73, 0.2, 0.04])
def test_score_based_totals_are_exact(allocate, density):
    assert sum(allocate(NET, density).values()) == round(density * TOTAL)


def test_lamp_scores_of_the_paper():
    torch.testing.assert_close(lamp_scores(torch.tensor([3.0, -1, 2])), torch.tensor([1 / 14, 4 / 13, 1]).double())
    torch.testing.assert_close(lamp_scores(torch.tensor([0.3, 0.1, 0.2])), torch.tensor([1 / 14, 4 / 13, 1]).double())
    torch.testing.assert_close(lamp_scores(torch.ones(5)), torch.tensor([1 / 5, 1 / 4, 1 / 3, 1 / 2, 1]).double())


def test_lamp_scores_of_zeros_are_zero():
    torch.testing.assert_close(lamp_scores(torch.tensor([0.0, 0, 2])), torch.tensor([0, 0, 1]).double())
    assert not lamp_scores(torch.zeros(4)).any()


def test_lamp_keeps_one_of_each_where_global_magnitude_would_keep_two_of_the_first():
    net = {"large": torch.tensor([1.0, 2, 3]), "small": torch.tensor([0.1, 0.2, 0.3])}
    assert lamp(net, 2 / 6) == {"large": 1, "small": 1}
    assert by_magnitude(net, 3 / 6) == {"large": 2, "small": 1}


@given(density=st.floats(0.02, 1), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_lamp_is_the_greedy_removal_of_the_least_relative_error(density, seed):
    generator = torch.Generator().manual_seed(seed)
    net = {str(n): torch.rand(n, generator=generator).double() for n in (5, 20, 9)}
    keep = max(3, round(density * 34))
    left = {name: w.sort().values.tolist() for name, w in net.items()}
    queue = [(w[0] ** 2 / sum(v * v for v in w), name) for name, w in left.items()]
    heapq.heapify(queue)
    for _ in range(34 - keep):
        _, name = heapq.heappop(queue)
        left[name].pop(0)
        if left[name]:
            heapq.heappush(queue, (left[name][0] ** 2 / sum(v * v for v in left[name]), name))
    assert lamp(net, density) == {name: len(w) for name, w in left.items()}


def test_uniform_and_erk_shares():
    assert uniform(NET, 0.1) == {name: round(0.1 * w.numel()) for name, w in NET.items()}
    kept = erk(NET, 0.2)
    share = {name: kept[name] / sum(w.shape) for name, w in NET.items()}
    assert share["b"] == pytest.approx(share["c"], rel=0.02)


def test_erk_keeps_small_layers_dense_and_spends_what_is_left():
    net = {"tiny": torch.ones(2, 2), "large": torch.ones(100, 100)}
    kept = erk(net, 0.5)
    assert kept["tiny"] == 4
    assert sum(kept.values()) == pytest.approx(0.5 * 10004, abs=1)


# Dead weights ---------------------------------------------------------------------------------------------------------


def dead_of(**shares) -> dict[str, torch.Tensor]:
    """The first so many of each layer's weights."""
    return {name: torch.arange(w.numel()) < shares.get(name, 0) * w.numel() for name, w in NET.items()}


@pytest.mark.parametrize("allocate", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.parametrize("density", [0.9, 0.3, 0.1])
@pytest.mark.parametrize(
    "shares", [{"a": 1}, {"b": 0.5, "c": 0.25}, {"a": 1, "b": 1, "c": 0.9}, dict.fromkeys("abc", 1)]
)
def test_dead_weights_go_first_and_the_density_is_met_by_those_that_live(allocate, density, shares):
    dead = dead_of(**shares)
    living = {name: int((~gone).sum()) for name, gone in dead.items()}
    kept = over_living(allocate, NET, dead, density)
    assert list(kept) == list(NET)
    assert all(min(1, living[name]) <= count <= living[name] for name, count in kept.items())
    assert sum(kept.values()) == pytest.approx(min(sum(living.values()), density * TOTAL), abs=1.5)


@pytest.mark.parametrize("allocate", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.parametrize("density", [0.35, 0.1])
def test_where_nothing_is_dead_nothing_changes(allocate, density):
    assert over_living(allocate, NET, dead_of(), density) == allocate(NET, density)


@pytest.mark.parametrize("allocate", ALLOCATIONS.values(), ids=ALLOCATIONS)
def test_a_dead_layer_counts_as_if_it_were_not_there_but_for_what_it_gives_up(allocate):
    kept = over_living(allocate, NET, dead_of(a=1), 0.3)
    others = {name: w for name, w in NET.items() if name != "a"}
    rest = sum(w.numel() for w in others.values())
    assert kept == {"a": 0} | allocate(others, 0.3 * TOTAL / rest)


# Budgets split along curves -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_split_of_convex_curves_is_the_best_of_all_choices(seed, share):
    generator = torch.Generator().manual_seed(seed)
    curves = {}
    for name in "abc":
        losses = torch.rand(5, generator=generator, dtype=torch.float64).sort().values.cumsum(0)
        curves[name] = Curve(torch.arange(5, 0, -1).double(), losses)
    budget = 3 + round(12 * share)
    chosen = split(curves, budget)
    best = min(
        sum(float(curve.losses[i]) for curve, i in zip(curves.values(), choice, strict=True))
        for choice in itertools.product(range(5), repeat=3)
        if sum(float(c.costs[i]) for c, i in zip(curves.values(), choice, strict=True)) <= budget
    )
    assert sum(float(curves[n].costs[i]) for n, i in chosen.items()) <= budget
    assert sum(float(curves[n].losses[i]) for n, i in chosen.items()) == pytest.approx(best, abs=1e-9)


@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 1.2))
@settings(max_examples=60, deadline=None)
def test_split_of_any_curves_keeps_to_the_budget_and_leaves_no_better_single_step(seed, share):
    generator = torch.Generator().manual_seed(seed)
    curves = {n: Curve(*torch.rand(2, 6, generator=generator, dtype=torch.float64)) for n in "abcd"}
    least, most = (sum(float(getattr(c.costs, f)()) for c in curves.values()) for f in ("min", "max"))
    budget = least + share * (most - least)
    chosen = split(curves, budget)
    spent = sum(float(curves[n].costs[i]) for n, i in chosen.items())
    assert spent <= budget * (1 + 1e-9)
    for name, curve in curves.items():
        within = curve.costs <= curve.costs[chosen[name]] + budget - spent - 1e-9
        assert not (curve.losses[within] < curve.losses[chosen[name]] - 1e-12).any()


def test_a_budget_below_the_least_is_refused():
    with pytest.raises(ValueError, match="the least that can be had costs 2, the budget is 1"):
        split({n: Curve(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])) for n in "ab"}, 1.0)
