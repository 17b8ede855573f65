"""The solvers of a layer against their definitions and each other."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from compressors.quantization.grids import fit_grid, paper_grid
from compressors.second_order import obs, solvers
from compressors.second_order.problem import Pattern, PatternError
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import ADMM, SOLVERS, Exact, FixedOrder, Paper, Refined, SolverError, solver_for
from tests.compressors.second_order.oracles import fix_one_by_one, layer_problem


def test_the_papers_pruning_takes_the_smallest_recorded_losses_and_solves_from_the_original_weights(monkeypatch):
    monkeypatch.setattr(solvers, "PAPER_BATCHES", 10)  # so that 40 columns leave four at a time
    problem, keep = layer_problem(), 70
    weight, mask = Paper(SolutionCache(None)).prune(problem, keep, Pattern())
    plain = fix_one_by_one(problem.weight, problem.hessian, lambda row, w: torch.zeros_like(w), 40, batch=4)
    losses = torch.empty(6, 40, dtype=torch.float64).scatter_(1, plain.order, plain.losses)
    losses = losses * problem.batchnorm_factor.square()[:, None]
    expected = losses > losses.flatten().sort().values[240 - keep - 1]
    assert torch.equal(mask, expected)
    torch.testing.assert_close(weight, obs.least_squares(problem.weight, problem.hessian, expected))


def test_the_papers_quantisation_is_sequential_in_the_order_of_the_inverse_diagonal():
    problem = layer_problem(4, 24)
    grid = paper_grid(problem.weight, 3)
    everything = torch.ones_like(problem.weight, dtype=torch.bool)
    result = Paper(SolutionCache(None)).quantize(problem, everything, problem.weight, grid)
    weight, inverse = problem.weight.clone(), torch.linalg.inv(problem.hessian[0])
    for column in inverse.diagonal().argsort().tolist():
        target = grid.nearest(weight)[:, column]
        step = inverse[column] / inverse[column, column]
        free = step.clone()
        weight = weight - (weight[:, column] - target)[:, None] * free
        weight[:, column] = target
        inverse = inverse - torch.outer(inverse[:, column], step)
        inverse[column, :] = inverse[:, column] = 0.0
        inverse[column, column] = 1.0
    torch.testing.assert_close(result, weight)


@pytest.mark.parametrize("keep", [120, 50])
def test_exact_loses_less_than_the_paper_and_both_less_than_the_fast_solver(keep):
    losses = dict.fromkeys(("exact", "paper", "refined", "fast"), 0.0)
    for seed in range(6):
        problem = replace(layer_problem(seed=seed), batchnorm_factor=torch.ones(6, dtype=torch.float64))
        for name in losses:
            weight, mask = solver_for(name, problem, "a", SolutionCache(None)).prune(problem, keep, Pattern())
            assert int(mask.sum()) == keep
            losses[name] += problem.loss(weight)
    assert losses["exact"] < losses["paper"] < losses["fast"]
    assert losses["exact"] < losses["refined"] < losses["fast"]


def test_fast_pruning_ends_with_the_best_weights_on_its_mask_where_that_is_affordable(monkeypatch):
    problem = layer_problem()
    solved, mask = FixedOrder(SolutionCache(None)).prune(problem, 50, Pattern())
    gradient = (solved - problem.weight) @ problem.hessian[0]
    torch.testing.assert_close(gradient * mask, torch.zeros_like(gradient))
    monkeypatch.setattr(solvers, "SOLVING_OPERATIONS", 0)
    swept, again = FixedOrder(SolutionCache(None)).prune(problem, 50, Pattern())
    assert torch.equal(mask, again)
    assert problem.loss(solved) < problem.loss(swept)


@pytest.mark.parametrize("operations", [0, 10, 10**11])
def test_refining_keeps_as_many_as_asked_for_whatever_it_may_cost(monkeypatch, operations):
    problem = layer_problem()
    monkeypatch.setattr(solvers, "REFINING_OPERATIONS", operations)
    for keep in (1, 7, 50, 239, 240):
        weight, mask = Refined(SolutionCache(None)).prune(problem, keep, Pattern())
        assert int(mask.sum()) == keep
        assert not weight[~mask].any()
    fast, refined = (kind(SolutionCache(None)).prune(problem, 50, Pattern()) for kind in (FixedOrder, Refined))
    assert torch.equal(fast[1], refined[1]) == (operations < 10**11)


def test_auto_is_exact_as_long_as_it_can_afford_it_and_says_so(caplog, monkeypatch):
    small = layer_problem(6, 40)
    with caplog.at_level(logging.INFO, "compressors.second_order.solvers"):
        assert isinstance(solver_for("auto", small, "conv1", SolutionCache(None)), Exact)
        monkeypatch.setattr(solvers, "EXACT_OPERATIONS", small.operations / 2)
        assert isinstance(solver_for("auto", small, "conv2", SolutionCache(None)), Refined)
    assert "layer conv1 (6 x 40): exact solver" in caplog.text
    assert "layer conv2 (6 x 40): refined solver, since exact elimination takes 2.6e+05 operations" in caplog.text


def test_every_solver_goes_by_its_own_name():
    assert {name: type(make(SolutionCache(None))).name for name, make in SOLVERS.items()} == {n: n for n in SOLVERS}
    for name in SOLVERS:
        assert solver_for(name, layer_problem(), "conv1", SolutionCache(None)).name == name


def test_an_unknown_solver_is_refused_with_the_nearest_name():
    with pytest.raises(SolverError, match="unknown solver 'exakt': did you mean 'exact'") as caught:
        solver_for("exakt", layer_problem(), "conv1", SolutionCache(None))
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", ["4:2", "2:2", "0:4", "2:", ":4", "2:4:8", "-1:4", "block8", ""])
def test_an_unknown_pattern_is_refused(name):
    with pytest.raises(PatternError, match=f"unknown pattern '{name}': give 'unstructured', 'block4' or N:M") as caught:
        Pattern(name)
    assert caught.value.exit_status == 2


def test_an_n_of_m_pattern_is_read_as_its_two_numbers():
    assert Pattern("2:4").groups == (2, 4)
    assert Pattern("4:16").groups == (4, 16)
    assert Pattern("block4").groups is None


@pytest.mark.parametrize(
    ("solver", "pattern", "remedy"),
    [
        ("fast", "block4", "take solver='exact'"),
        ("refined", "block4", "take solver='exact'"),
        ("admm", "block4", "take solver='exact'"),
        ("paper", "block4", "take variant='exact'"),
        ("paper", "2:4", "take variant='exact'"),
    ],
)
def test_a_pattern_that_a_solver_cannot_prune_in_is_refused_with_the_remedy(solver, pattern, remedy):
    with pytest.raises(PatternError, match=remedy):
        solver_for(solver, layer_problem(), "conv1", SolutionCache(None)).prune(layer_problem(), 50, Pattern(pattern))


def test_losses_of_rows_are_compared_behind_batchnorm():
    problem = layer_problem()
    losses = torch.rand(6, 3, dtype=torch.float64)
    expected = torch.stack([loss * factor**2 for loss, factor in zip(losses, problem.batchnorm_factor, strict=True)])
    torch.testing.assert_close(problem.after_batchnorm(losses), expected)


@pytest.mark.parametrize(("limit", "rounded_as"), [(math.inf, Exact), (0, FixedOrder)])
def test_admm_rounds_exactly_where_that_is_affordable(limit, rounded_as, monkeypatch):
    problem = layer_problem()
    admm = ADMM(SolutionCache(None))
    weight, mask = admm.prune(problem, 120, Pattern())
    grid = fit_grid(weight.float(), 3, mask=mask).to(weight)
    monkeypatch.setattr(solvers, "SOLVING_OPERATIONS", limit)
    expected = rounded_as(SolutionCache(None)).quantize(problem, mask, weight, grid)
    assert torch.equal(admm.quantize(problem, mask, weight, grid), expected)
