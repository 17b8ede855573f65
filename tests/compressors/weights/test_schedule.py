"""Rounds of a schedule: what falls, how far, and when."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.budget import Budget, BudgetError
from compressors.weights.schedule import pruning_epochs, round_at, rounds


def densities(schedule, goal: float) -> list[float]:
    return [budget.density for budget in rounds(schedule, Budget(goal))]


def test_without_a_schedule_all_goes_at_once():
    assert rounds(None, Budget(0.1, bits=4)) == (Budget(0.1, bits=4),)


def test_a_factor_falls_like_its_powers_and_ends_at_the_goal():
    assert densities(0.8, 0.5) == pytest.approx([0.8, 0.64, 0.512, 0.5])
    assert densities(0.5, 0.125) == pytest.approx([0.5, 0.25, 0.125])
    assert densities(0.5, 1.0) == [1.0]


@given(factor=st.floats(0.05, 0.95), goal=st.floats(0.001, 1))
def test_a_factor_never_overshoots_nor_repeats(factor, goal):
    found = densities(factor, goal)
    assert found[-1] == goal
    assert all(after < before for before, after in pairwise(found))
    assert all(after >= before * factor * (1 - 1e-9) for before, after in pairwise([1.0, *found]))


def test_given_shares_are_kept_down_to_the_goal():
    assert densities([0.9, 0.4, 0.2, 0.05], 0.2) == [0.9, 0.4, 0.2]
    assert densities([0.9, 0.4], 0.2) == [0.9, 0.4, 0.2]


def test_with_a_synops_budget_the_share_of_synops_falls():
    assert rounds(0.5, Budget(synops=0.25)) == (Budget(synops=0.5), Budget(synops=0.25))


@pytest.mark.parametrize("schedule", [0, 1, 1.5, -0.2, float("nan"), [0.5, 0.5], [0.2, 0.4], [1.2, 0.5], ["half"]])
def test_what_does_not_fall_is_refused(schedule):
    with pytest.raises(BudgetError, match="schedule is"):
        rounds(schedule, Budget(0.1))


@given(epochs=st.integers(1, 60), data=st.data())
def test_rounds_share_the_epochs_equally_and_in_order(epochs, data):
    count = data.draw(st.integers(1, epochs))
    found = [round_at(epoch, epochs, count) for epoch in range(epochs)]
    assert found == sorted(found)
    sizes = [found.count(index) for index in range(count)]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("count", "begins"), [(1, 0), (2, 5), (5, 8), (10, 9), (15, 14), (20, 19)])
def test_rounds_of_pruning_end_in_the_middle_of_twenty_epochs_or_have_one_each(count, begins):
    found = [round_at(epoch, pruning_epochs(20, count), count) for epoch in range(20)]
    assert found.index(count - 1) == begins
    assert set(found) == set(range(count))
