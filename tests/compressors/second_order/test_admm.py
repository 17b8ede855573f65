"""The mask of ALPS against exact elimination, brute force and closed forms."""

from functools import partial
from itertools import combinations

import pytest
import torch

from compressors.masks import largest, largest_of_groups
from compressors.second_order import obs, solvers
from compressors.second_order.admm import admm_mask, least_squares_by_gradients
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import ADMM, Exact
from tests.compressors.second_order.oracles import layer_problem, random_problem


def sparse_inputs(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A problem of inputs as spikes make them: seldom, correlated, some far more often than others."""
    generator = torch.Generator().manual_seed(seed)
    random = partial(torch.rand, generator=generator, dtype=torch.float64)
    spikes = (random(4 * columns, columns) < 0.1).double()
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64) / columns**0.5
    x = torch.relu(spikes + spikes @ mixing) * random(columns)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight, 2 * x.T @ x[None] / len(x)


def lost(solver, problem, keep):
    """The loss behind BatchNorm, by which weights of different rows are compared."""
    weight, mask = solver(SolutionCache(None)).prune(problem, keep, Pattern())
    assert int(mask.sum()) == keep
    factor = problem.batchnorm_factor[:, None]
    return obs.layer_loss(problem.weight * factor, weight * factor, problem.hessian)


@pytest.mark.parametrize("make", [random_problem, sparse_inputs])
@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.05])
@pytest.mark.parametrize("columns", [64, 144, 512])
def test_it_loses_at_most_a_twentieth_more_than_exact_elimination(make, density, columns):
    weight, hessian = make(16, columns, seed=columns)
    factor = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    problem = Problem.of(weight, hessian, factor, damping=0.01)
    keep = round(density * weight.numel())
    assert lost(ADMM, problem, keep) < 1.05 * lost(Exact, problem, keep)


@pytest.mark.parametrize("keep", [3, 6, 9])
def test_of_a_few_weights_it_lies_between_the_best_of_all_masks_and_the_largest_weights(keep):
    found = by_size = 0.0
    for seed in range(20):
        weight, hessian = random_problem(2, 6, seed=seed)
        problem = Problem.of(weight, hessian, torch.ones(2, dtype=torch.float64), damping=0.01)

        def loss(mask, problem=problem):
            return problem.loss(obs.least_squares(problem.weight, problem.hessian, mask))

        masks = (largest(torch.eye(12)[[*kept]].sum(0).view(2, 6), keep) for kept in combinations(range(12), keep))
        assert min(map(loss, masks)) <= lost(ADMM, problem, keep) * (1 + 1e-9)
        found, by_size = found + lost(ADMM, problem, keep), by_size + loss(largest(weight.abs(), keep))
    assert found < 0.95 * by_size


@pytest.mark.parametrize("keep", [15, 40, 75, 120])
def test_inputs_that_know_nothing_of_each_other_leave_about_the_weights_that_weigh_most(keep):
    """Where the best mask is known; the multipliers swap entries that weigh about the same."""
    weight = random_problem(5, 30)[0]
    diagonal = torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    mask = admm_mask(weight, torch.diag(diagonal)[None], partial(largest, keep=keep))
    gone, least = (
        float((weight.square() * diagonal)[~kept].sum()) for kept in (mask, largest(weight.square() * diagonal, keep))
    )
    assert int(mask.sum()) == keep
    assert gone < 1.02 * least


def test_groups_of_a_convolution_are_seen_through_their_own_hessians():
    weight, hessian = random_problem(8, 20, groups=2)
    mask = admm_mask(weight, hessian, partial(largest, keep=80))
    scaled = weight.clone()
    scaled[4:] *= 1e-6  # so that nothing of the second group may stay
    alone = admm_mask(weight[:4], hessian[:1], partial(largest, keep=60))
    assert torch.equal(admm_mask(scaled, hessian, partial(largest, keep=60))[:4], alone)
    assert int(mask.sum()) == 80


@pytest.mark.parametrize("columns", [24, 26])
def test_a_pattern_keeps_so_many_of_every_group_and_loses_less_than_magnitudes(columns):
    problem = layer_problem(8, columns)
    weight, mask = ADMM(SolutionCache(None)).prune(problem, 0, Pattern("2:4"))
    for start in range(0, columns, 4):
        assert (mask[:, start : start + 4].sum(1) == 2).all()
    magnitudes = largest_of_groups(2, 4, problem.weight.abs())
    assert problem.loss(weight) < problem.loss(obs.least_squares(problem.weight, problem.hessian, magnitudes))


@pytest.mark.parametrize("groups", [1, 2])
def test_conjugate_gradients_come_to_the_best_weights_on_a_mask(groups):
    weight, hessian = random_problem(8, 40, groups=groups)
    mask = torch.rand(8, 40, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[3] = False
    found = least_squares_by_gradients(weight, hessian, mask)
    torch.testing.assert_close(found, obs.least_squares(weight, hessian, mask), rtol=1e-5, atol=1e-6)


def test_a_layer_too_large_for_systems_of_its_own_ends_about_as_well(monkeypatch):
    problem = layer_problem(8, 64)
    solved = lost(ADMM, problem, 200)
    monkeypatch.setattr(solvers, "SOLVING_OPERATIONS", 0)
    assert solved <= lost(ADMM, problem, 200) < 1.001 * solved
