"""The second-order solver against closed forms, brute force and its own plain version."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.perf.solvers import eliminate_plain
from compressors.quantization.grids import fit_grid
from compressors.second_order import elimination, obs
from tests.compressors.second_order.oracles import (
    eliminate_one_by_one,
    fix_one_by_one,
    prune_blocks_one_by_one,
    random_problem,
)

SHAPES = [(1, 1, 1), (3, 7, 1), (8, 24, 1), (6, 33, 3), (16, 64, 1), (5, 130, 1), (12, 9, 12)]


def pruned(weight, hessian, density):
    elimination = obs.eliminate(weight, hessian)
    steps = obs.steps_per_row(elimination.losses, round((1 - density) * weight.numel()))
    mask = obs.mask_after(elimination.order, steps)
    return elimination, steps, mask, obs.least_squares(weight, hessian, mask)


@pytest.fixture(params=["compiled", "tensors"])
def both_ways(request, monkeypatch):
    """The compiled loops of the CPU, and the tensor operations of other devices."""
    for module in (elimination, obs):
        monkeypatch.setattr(module, "compiled", lambda tensor: request.param == "compiled")


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("rows", "columns", "groups"), SHAPES)
def test_blocked_elimination_follows_the_same_trace_as_the_plain_one(rows, columns, groups):
    weight, hessian = random_problem(rows, columns, groups)
    blocked, plain = obs.eliminate(weight, hessian), eliminate_one_by_one(weight, hessian)
    assert torch.equal(blocked.order, plain.order)
    torch.testing.assert_close(blocked.losses, plain.losses, rtol=1e-8, atol=1e-10)


def test_the_plain_version_that_times_are_compared_with_follows_the_same_trace_too():
    weight, hessian = random_problem(6, 70, 3, seed=10)
    assert torch.equal(eliminate_plain(weight, hessian).order, eliminate_one_by_one(weight, hessian).order)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("rows", "columns", "groups"), [(4, 30, 1), (6, 90, 3)])
def test_elimination_in_batches_follows_the_plain_trace(rows, columns, groups, batch):
    weight, hessian = random_problem(rows, columns, groups, seed=9)
    trace = obs.eliminate(weight, hessian, batch=batch)
    plain = eliminate_one_by_one(weight, hessian, batch)
    assert torch.equal(trace.order, plain.order)
    torch.testing.assert_close(trace.losses, plain.losses, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("kept", "of"), [(2, 4), (4, 8), (1, 4), (3, 5)])
@pytest.mark.parametrize("columns", [16, 83])
def test_n_of_m_follows_the_plain_trace_and_keeps_exactly_n(kept, of, columns):
    weight, hessian = random_problem(6, columns, 2, seed=11)
    mask = obs.mask_of_pattern(weight, hessian, kept, of)
    sizes = torch.bincount(torch.arange(columns) // of)
    found = torch.zeros(6, len(sizes), dtype=torch.int64).index_add_(1, torch.arange(columns) // of, mask.long())
    assert torch.equal(found, sizes.clamp(max=kept).expand(6, -1))
    gone = int((~mask[0]).sum())
    plain = fix_one_by_one(weight, hessian, lambda row, w: torch.zeros_like(w), gone, quota=(of - kept, of))
    assert torch.equal(mask, torch.ones_like(mask).scatter_(1, plain.order, False))


def test_a_pattern_loses_more_than_free_choice_and_less_than_magnitude():
    for seed in range(5):
        weight, hessian = random_problem(8, 64, seed=seed)

        def loss(mask, weight=weight, hessian=hessian):
            return obs.layer_loss(weight, obs.least_squares(weight, hessian, mask), hessian)

        order = weight.view(8, -1, 4).abs().argsort(2, descending=True)
        largest = torch.zeros(8, 16, 4, dtype=torch.bool).scatter_(2, order[:, :, :2], True).view(8, 64)
        free = pruned(weight, hessian, 0.5)[2]
        plain = obs.layer_loss(weight, weight * largest, hessian)
        assert loss(free) < loss(obs.mask_of_pattern(weight, hessian, 2, 4)) < plain


@pytest.mark.parametrize(("columns", "width"), [(40, 4), (96, 4), (30, 5), (150, 2)])
def test_blocks_follow_the_plain_trace(columns, width):
    weight, hessian = random_problem(4, columns, 2, seed=12)
    trace, plain = obs.eliminate_blocks(weight, hessian, width), prune_blocks_one_by_one(weight, hessian, width)
    assert torch.equal(trace.order, plain.order)
    torch.testing.assert_close(trace.losses, plain.losses, rtol=1e-8, atol=1e-10)


def test_a_last_block_that_is_smaller_is_a_block_of_its_own():
    weight, hessian = random_problem(5, 10, seed=13)
    trace = obs.eliminate_blocks(weight, hessian, 4)
    assert torch.equal(trace.order.sort(dim=1).values, torch.arange(3).expand(5, 3))
    total = obs.layer_loss(weight, torch.zeros_like(weight), hessian)
    assert float(trace.losses.sum()) == pytest.approx(total, rel=1e-9)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rows", "columns", "groups"), [(4, 24, 1), (6, 90, 3)])
def test_obq_follows_the_plain_trace_outliers_included(rows, columns, groups, bits, symmetric):
    weight, hessian = random_problem(rows, columns, groups, seed=14)
    grid = fit_grid(weight, bits, symmetric=symmetric)
    plain = fix_one_by_one(
        weight, hessian, lambda row, w: nearest_of_row(grid, row, w), columns, step_size=grid.scale[:, 0]
    )
    result = obs.quantize(weight, hessian, grid)
    torch.testing.assert_close(result, torch.zeros_like(weight).scatter_(1, plain.order, plain.values))
    assert torch.equal(grid.values(grid.codes(result)), result)


def nearest_of_row(grid, row, weights):
    scale, zero = grid.scale[row], grid.zero[row]
    return ((weights / scale).round().add(zero).clamp(0, 2**grid.bits - 1) - zero) * scale


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("bits", [2, 4])
def test_obq_on_a_mask_is_obq_on_each_rows_own_weights(bits):
    weight, hessian = random_problem(6, 40, 2, seed=15)
    mask = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) < 0.4
    mask[3] = False
    weight = obs.least_squares(weight, hessian, mask)
    grid = fit_grid(weight, bits, mask=mask)
    result = obs.quantize(weight, hessian, grid, mask)
    assert not result[~mask].any()
    for row in (0, 1, 2, 4, 5):
        kept = mask[row]
        own = type(grid)(bits, grid.scale[row : row + 1], grid.zero[row : row + 1])
        alone = obs.quantize(weight[row : row + 1, kept], hessian[row // 3, kept][:, kept][None], own)
        torch.testing.assert_close(result[row, kept], alone[0])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_obq_loses_less_than_rounding(bits):
    for seed in range(5):
        weight, hessian = random_problem(8, 64, seed=seed)
        grid = fit_grid(weight, bits)
        rounded = obs.layer_loss(weight, grid.nearest(weight), hessian)
        assert obs.layer_loss(weight, obs.quantize(weight, hessian, grid), hessian) < rounded


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("max_bytes", [1, 10**5])
def test_memory_bound_changes_nothing(max_bytes):
    weight, hessian = random_problem(9, 40, 3)
    whole, chunked = obs.eliminate(weight, hessian), obs.eliminate(weight, hessian, max_bytes=max_bytes)
    assert torch.equal(whole.order, chunked.order)
    mask = torch.rand(9, 40) < 0.4
    torch.testing.assert_close(
        obs.least_squares(weight, hessian, mask),
        obs.least_squares(weight, hessian, mask, max_bytes),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("rows", "columns", "groups"), SHAPES)
@pytest.mark.parametrize("density", [0.9, 0.5, 0.1])
def test_weights_are_the_closed_form_on_their_mask(rows, columns, groups, density):
    weight, hessian = random_problem(rows, columns, groups, seed=1)
    _, _, mask, result = pruned(weight, hessian, density)
    for row in range(rows):
        kept = mask[row]
        h = hessian[row // (rows // groups)]
        expected = torch.linalg.solve(h[kept][:, kept], h[kept] @ weight[row])
        torch.testing.assert_close(result[row][kept], expected, rtol=0, atol=1e-8)
        assert not result[row][~kept].any()


@pytest.mark.parametrize("density", [0.9, 0.5, 0.1])
def test_loss_trace_is_the_true_loss(density):
    weight, hessian = random_problem(10, 40, 2, seed=2)
    elimination, steps, _, result = pruned(weight, hessian, density)
    taken = torch.arange(40) < steps[:, None]
    assert obs.layer_loss(weight, result, hessian) == pytest.approx(float(elimination.losses[taken].sum()), rel=1e-9)


@pytest.mark.parametrize("remove", [0, 1, 57, 399, 400])
def test_global_step_removes_exactly_what_was_asked(remove):
    weight, hessian = random_problem(10, 40, seed=3)
    elimination = obs.eliminate(weight, hessian)
    steps = obs.steps_per_row(elimination.losses, remove)
    assert int(steps.sum()) == remove
    assert int((~obs.mask_after(elimination.order, steps)).sum()) == remove


def test_every_row_eliminates_every_column_once():
    weight, hessian = random_problem(7, 50, seed=4)
    order = obs.eliminate(weight, hessian).order
    assert torch.equal(order.sort(dim=1).values, torch.arange(50).expand(7, 50))


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_scale_of_the_hessian_changes_no_choice(scale, seed):
    weight, hessian = random_problem(4, 12, seed=seed)
    plain, scaled = obs.eliminate(weight, hessian), obs.eliminate(weight, scale * hessian)
    assert torch.equal(plain.order, scaled.order)
    torch.testing.assert_close(scaled.losses, scale * plain.losses)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_permuting_columns_permutes_the_result(seed):
    weight, hessian = random_problem(4, 12, seed=seed)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    _, _, mask, result = pruned(weight, hessian, 0.4)
    _, _, mask2, result2 = pruned(weight[:, order], hessian[:, order][:, :, order], 0.4)
    assert torch.equal(mask[:, order], mask2)
    torch.testing.assert_close(result[:, order], result2)


@pytest.mark.parametrize("keep", [1, 3, 6])
def test_greedy_loss_lies_between_the_exhaustive_optimum_and_magnitude(keep):
    columns = 9
    better = 0
    for seed in range(6):
        weight, hessian = random_problem(1, columns, seed=seed)

        def loss_of(kept, weight=weight, hessian=hessian):
            mask = torch.zeros(1, columns, dtype=torch.bool)
            mask[0, list(kept)] = True
            return obs.layer_loss(weight, obs.least_squares(weight, hessian, mask), hessian)

        best = min(loss_of(kept) for kept in itertools.combinations(range(columns), keep))
        _, _, _, result = pruned(weight, hessian, keep / columns)
        greedy = obs.layer_loss(weight, result, hessian)
        assert greedy >= best - 1e-9
        largest = weight.abs().topk(keep).indices[0]
        plain = torch.zeros_like(weight)
        plain[0, largest] = weight[0, largest]
        assert greedy <= obs.layer_loss(weight, plain, hessian) + 1e-9
        better += greedy <= best * 1.0001
    assert better >= 2, "greedy elimination should find the optimum of so small a row now and then"


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("rows", "columns", "groups"), [(4, 20, 1), (6, 16, 3)])
def test_a_saliency_is_twice_what_removing_the_weight_costs(rows, columns, groups):
    weight, hessian = random_problem(rows, columns, groups, seed=4)
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[1] = False
    found = obs.saliencies(weight, hessian, mask)
    assert not found[~mask].any()

    def loss(kept):
        return obs.layer_loss(weight, obs.least_squares(weight, hessian, kept), hessian)

    for row, column in mask.nonzero().tolist():
        without = mask.clone()
        without[row, column] = False
        assert 2 * (loss(without) - loss(mask)) == pytest.approx(float(found[row, column]), rel=1e-6, abs=1e-9)


@pytest.mark.usefixtures("both_ways")
def test_a_singular_hessian_on_the_mask_is_refused():
    weight, hessian = random_problem(6, 12, 2)
    hessian[1, 3], hessian[1, :, 3] = 0, 0
    mask = torch.ones(6, 12, dtype=torch.bool)
    with pytest.raises(obs.HessianError, match="singular on the mask"):
        obs.least_squares(weight, hessian, mask)
    mask[3:, 3] = False  # the second group's rows do without the column that is at fault
    assert torch.isfinite(obs.least_squares(weight, hessian, mask)).all()


@pytest.mark.usefixtures("both_ways")
def test_least_squares_keep_single_precision():
    weight, hessian = random_problem(6, 40, 2)
    mask = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    single = obs.least_squares(weight.float(), hessian.float(), mask)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, obs.least_squares(weight, hessian, mask).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("both_ways")
def test_empty_rows_are_zero():
    weight, hessian = random_problem(3, 8)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[1, :4] = True
    result = obs.least_squares(weight, hessian, mask)
    assert not result[0].any()
    assert result[1, :4].all()


def test_weights_of_dead_inputs_cost_what_the_damping_charges_and_are_not_made_up_for():
    weight, hessian = random_problem(5, 10, seed=5)
    dead = [2, 7]
    hessian[:, dead, :] = 0
    hessian[:, :, dead] = 0
    damped = obs.damped(hessian, 0.01)
    elimination = obs.eliminate(weight, damped)
    charge = damped[0, 2, 2]
    for column in dead:
        places = elimination.order == column
        torch.testing.assert_close(elimination.losses[places], charge * weight[:, column].square() / 2)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[:, dead] = False
    torch.testing.assert_close(obs.least_squares(weight, damped, mask), weight * mask)


def test_weights_that_are_zero_already_leave_first_and_at_no_loss():
    weight, hessian = random_problem(5, 10, seed=6)
    weight[:, [1, 4, 8]] = 0
    elimination = obs.eliminate(weight, hessian)
    assert {frozenset(row.tolist()) for row in elimination.order[:, :3]} == {frozenset([1, 4, 8])}
    assert not elimination.losses[:, :3].any()


@pytest.mark.parametrize(
    ("hessian", "message"),
    [
        (torch.full((1, 3, 3), torch.nan), "NaN or infinite"),
        (torch.full((1, 3, 3), torch.inf), "NaN or infinite"),
    ],
)
def test_unusable_hessians_are_refused_with_the_remedy(hessian, message):
    with pytest.raises(obs.HessianError, match=message):
        obs.damped(hessian, 0.01)


def test_a_singular_hessian_names_damping_as_the_remedy():
    with pytest.raises(obs.HessianError, match="damping"):
        obs.eliminate(torch.ones(2, 3), torch.ones(1, 3, 3))


def test_float32_finds_the_losses_of_float64():
    weight, hessian = random_problem(8, 96, seed=7)
    double, single = obs.eliminate(weight, hessian), obs.eliminate(weight.float(), hessian.float())
    torch.testing.assert_close(single.losses.sum(), double.losses.sum(), rtol=1e-4, atol=0)
