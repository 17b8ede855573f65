"""Fixed-order pruning and quantisation against plain sequential elimination, closed forms and the exact solver."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.quantization.grids import fit_grid
from compressors.second_order import obs
from compressors.second_order.fixed_order import prune_fixed_order, prune_n_of_m, quantize_fixed_order
from tests.compressors.second_order.oracles import random_problem

SHAPES = [(1, 1, 1), (3, 7, 1), (8, 24, 1), (6, 33, 3), (4, 128, 1), (5, 300, 1), (12, 9, 12)]


def group_of(row, weight, hessian):
    return row // (len(weight) // len(hessian))


def decreasing_diagonal(hessian):
    return hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)


def quantize_one_by_one(weight, hessian, grid, mask, order):
    """OBS by the book, a row at a time: round a weight, let the rest make up for it, take it out of the inverse."""
    result = torch.zeros_like(weight)
    scale, zero = grid.scale.expand(len(weight), 1), grid.zero.expand(len(weight), 1)
    for row in range(len(weight)):
        group = group_of(row, weight, hessian)
        places = [int(column) for column in order[group] if mask[row, column]]
        inverse = torch.linalg.inv(hessian[group][places][:, places])
        current = weight[row, places].clone()
        for step, column in enumerate(places):
            code = torch.round(current[step] / scale[row, 0] + zero[row, 0]).clamp(0, 2**grid.bits - 1)
            value = scale[row, 0] * (code - zero[row, 0])
            result[row, column] = value
            pivot = inverse[:, step] / inverse[step, step]
            current -= (current[step] - value) * pivot
            inverse = inverse - torch.outer(pivot, inverse[step])
    return result


def prune_one_by_one(weight, hessian, keep, span):
    """SparseGPT by the book: the inverse of what is left after every column, and no product over blocks."""
    rows, columns = weight.shape
    current, mask = weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    groups = torch.tensor([group_of(row, weight, hessian) for row in range(rows)])
    inverses = [torch.linalg.inv(hessian[:, column:, column:]) for column in range(columns)]
    for start in range(0, columns, span):
        stop = min(start + span, columns)
        pivots = torch.stack([inverses[column][groups, 0, 0] for column in range(start, stop)], 1)
        saliency = current[:, start:stop].square() / pivots
        share = keep * stop // columns - keep * start // columns
        threshold = saliency.flatten().sort(descending=True).values[share - 1] if share else torch.inf
        mask[:, start:stop] = saliency >= threshold
        for column in range(start, stop):
            inverse = inverses[column][groups]
            removed = torch.where(mask[:, column], 0.0, current[:, column]) / inverse[:, 0, 0]
            current[:, column:] -= removed[:, None] * inverse[:, 0]
    return current * mask, mask


def problem(rows, columns, groups=1, seed=0, bits=3):
    weight, hessian = random_problem(rows, columns, groups, seed)
    return weight, hessian, fit_grid(weight, bits)


def uneven_problem(rows, columns, seed=0):
    """Inputs that share causes and differ in activity, as the inputs of trained layers do."""
    generator = torch.Generator().manual_seed(seed)
    weight, causes, mixing, noise, activity = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in [(rows, columns), (4 * columns, 40), (40, columns), (4 * columns, columns), (columns,)]
    )
    inputs = (causes @ mixing / 40**0.5 + noise / 2) * activity
    return weight, obs.damped((2 * inputs.mT @ inputs / len(inputs))[None], 0.01)


def random_mask(weight, density, seed=0):
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < density


# Quantisation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "groups"), SHAPES)
@pytest.mark.parametrize("bits", [2, 4])
def test_gptq_gives_the_codes_of_sequential_elimination(rows, columns, groups, bits):
    weight, hessian, grid = problem(rows, columns, groups, bits=bits)
    dense = torch.ones_like(weight, dtype=torch.bool)
    plain = quantize_one_by_one(weight, hessian, grid, dense, decreasing_diagonal(hessian))
    assert torch.equal(grid.codes(quantize_fixed_order(weight, hessian, grid)), grid.codes(plain))


@pytest.mark.parametrize(("rows", "columns", "groups"), SHAPES)
@pytest.mark.parametrize("density", [0.7, 0.2])
def test_gptq_on_a_mask_is_sequential_elimination_of_what_is_kept(rows, columns, groups, density):
    weight, hessian, _ = problem(rows, columns, groups)
    mask = random_mask(weight, density)
    pruned = obs.least_squares(weight, hessian, mask)
    grid = fit_grid(pruned, 3, symmetric=False, mask=mask)
    plain = quantize_one_by_one(pruned, hessian, grid, mask, decreasing_diagonal(hessian))
    quantized = quantize_fixed_order(pruned, hessian, grid, mask=mask)
    assert torch.equal(grid.codes(quantized), grid.codes(plain))
    assert not quantized[~mask].any()


def test_order_given_is_the_order_taken():
    weight, hessian, grid = problem(6, 40, 2)
    order = obs.inverse(hessian).diagonal(dim1=1, dim2=2).argsort(dim=1)
    mask = random_mask(weight, 0.6)
    for kept in (torch.ones_like(mask), mask):
        plain = quantize_one_by_one(weight, hessian, grid, kept, order)
        assert torch.equal(quantize_fixed_order(weight, hessian, grid, mask=kept, order=order), plain)
    shared = torch.arange(40)
    plain = quantize_one_by_one(weight, hessian, grid, torch.ones_like(mask), shared.expand(2, -1))
    assert torch.equal(quantize_fixed_order(weight, hessian, grid, order=shared), plain)


def test_a_full_mask_changes_nothing():
    weight, hessian, grid = problem(6, 150, 2)
    full = torch.ones_like(weight, dtype=torch.bool)
    dense = quantize_fixed_order(weight, hessian, grid)
    assert torch.equal(quantize_fixed_order(weight, hessian, grid, mask=full), dense)


@pytest.mark.parametrize("max_bytes", [1, 10**5])
def test_memory_bound_changes_nothing(max_bytes):
    weight, hessian, grid = problem(9, 40, 3)
    mask = random_mask(weight, 0.5)
    whole = quantize_fixed_order(weight, hessian, grid, mask=mask)
    assert torch.equal(quantize_fixed_order(weight, hessian, grid, mask=mask, max_bytes=max_bytes), whole)


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("masked", [False, True])
def test_quantised_weights_lie_on_their_grid_to_the_bit(per, masked):
    weight, hessian, _ = problem(6, 40)
    mask = random_mask(weight, 0.4) if masked else None
    narrow = fit_grid(weight.float(), 4, per=per, symmetric=False, mask=mask)
    quantized = quantize_fixed_order(weight, hessian, narrow.to(weight), mask=mask).float()
    assert torch.equal(narrow.values(narrow.codes(quantized)), quantized)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_without_correlations_gptq_is_rounding(density):
    weight, hessian, grid = problem(6, 20)
    hessian = torch.diag_embed(hessian.diagonal(dim1=1, dim2=2))
    mask = random_mask(weight, density)
    assert torch.equal(quantize_fixed_order(weight, hessian, grid, mask=mask), grid.nearest(weight) * mask)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
def test_gptq_loses_less_than_rounding(bits, density):
    rounding = fast = 0.0
    for seed in range(4):
        weight, hessian, _ = problem(16, 96, seed=seed)
        mask = random_mask(weight, density, seed)
        pruned = obs.least_squares(weight, hessian, mask)
        grid = fit_grid(pruned, bits, mask=mask)
        rounding += obs.layer_loss(pruned, grid.nearest(pruned) * mask, hessian)
        fast += obs.layer_loss(pruned, quantize_fixed_order(pruned, hessian, grid, mask=mask), hessian)
    assert fast < rounding


# Pruning --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "groups"), SHAPES)
@pytest.mark.parametrize("span", [16, 32, 128, 150])
def test_sparsegpt_follows_the_same_trace_as_the_plain_one(rows, columns, groups, span):
    weight, hessian = random_problem(rows, columns, groups)
    keep = round(0.4 * weight.numel())
    plain, plain_mask = prune_one_by_one(weight, hessian, keep, span)
    pruned, mask = prune_fixed_order(weight, hessian, keep, span=span)
    assert torch.equal(mask, plain_mask)
    torch.testing.assert_close(pruned, plain, rtol=0, atol=1e-9)


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 40),
    groups=st.integers(1, 3),
    share=st.floats(0, 1),
    span=st.integers(1, 200),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_exactly_as_many_weights_are_kept_as_asked(rows, columns, groups, share, span, seed):
    weight, hessian = random_problem(rows * groups, columns, groups, seed)
    keep = round(share * weight.numel())
    pruned, mask = prune_fixed_order(weight, hessian, keep, span=span)
    assert int(mask.sum()) == keep
    assert torch.equal(pruned != 0, mask)
    for part in mask.split(span, dim=1):
        assert abs(int(part.sum()) - keep / weight.numel() * part.numel()) < 1


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (4, 8), (1, 4), (3, 8), (0, 2), (5, 5), (2, 200)])
@pytest.mark.parametrize("columns", [16, 33, 400])
def test_every_group_keeps_exactly_n_of_m(kept, group, columns):
    weight, hessian = random_problem(4, columns, 2)
    pruned, mask = prune_n_of_m(weight, hessian, kept, group)
    assert torch.equal(pruned != 0, mask)
    for part in mask.split(group, dim=1):
        assert (part.sum(1) == min(kept, part.shape[1])).all()


def test_a_group_is_chosen_by_the_weights_as_they_are_when_it_is_reached():
    weight, hessian = random_problem(5, 24)
    pruned, mask = prune_n_of_m(weight, hessian, 2, 4)
    by_hand, current = torch.zeros_like(mask), weight.clone()
    for start in range(0, 24, 4):
        inverse = torch.stack(
            [torch.linalg.inv(hessian[0, column:, column:])[0, 0] for column in range(start, start + 4)]
        )
        best = (current[:, start : start + 4].square() / inverse).topk(2, dim=1).indices + start
        by_hand.scatter_(1, best, True)
        gone = ~by_hand[:, : start + 4]
        for row in range(5):  # what is left and not yet reached makes up for what is gone; what was reached is frozen
            for column in range(start, start + 4):
                if gone[row, column]:
                    rest = torch.linalg.inv(hessian[0, column:, column:])[0]
                    current[row, column:] -= current[row, column] / rest[0] * rest
    assert torch.equal(mask, by_hand)
    torch.testing.assert_close(pruned, current * by_hand, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kept", "group"), [(3, 2), (-1, 4)])
def test_impossible_patterns_are_refused(kept, group):
    with pytest.raises(ValueError, match=f"keep between 0 and {group}"):
        prune_n_of_m(*random_problem(2, 8), kept, group)


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1])
def test_losses_rank_exact_fast_with_least_squares_fast_magnitude(density):
    for seed in range(5):
        weight, hessian = uneven_problem(16, 160, seed)
        keep = round(density * weight.numel())
        elimination = obs.eliminate(weight, hessian)
        mask = obs.mask_after(elimination.order, obs.steps_per_row(elimination.losses, weight.numel() - keep))
        fast, fast_mask = prune_fixed_order(weight, hessian, keep)
        largest = weight.abs() >= weight.abs().flatten().topk(keep).values[-1]
        ranked = [
            obs.least_squares(weight, hessian, mask),
            obs.least_squares(weight, hessian, fast_mask),
            fast,
            weight * largest,
        ]
        losses = [obs.layer_loss(weight, result, hessian) for result in ranked]
        assert losses[0] < losses[1] < losses[2] < losses[3]


def test_the_finer_a_pattern_the_more_it_costs():
    weight, hessian = uneven_problem(16, 128, seed=3)
    losses = [obs.layer_loss(weight, prune_n_of_m(weight, hessian, n, 2 * n)[0], hessian) for n in (16, 4, 2, 1)]
    assert losses[0] < losses[1] < losses[2] < losses[3]


@pytest.mark.parametrize("pattern", [False, True])
def test_pruning_and_rounding_in_one_pass_gives_zeros_and_levels(pattern):
    weight, hessian = uneven_problem(16, 160, seed=1)
    grid = fit_grid(weight, 3)

    def prune(**options):
        if pattern:
            return prune_n_of_m(weight, hessian, 2, 4, **options)
        return prune_fixed_order(weight, hessian, weight.numel() // 2, **options)

    joint, mask = prune(grid=grid)
    assert torch.equal(grid.nearest(joint), joint)
    assert not joint[~mask].any()
    pruned, mask = prune()
    assert obs.layer_loss(weight, joint, hessian) < obs.layer_loss(weight, grid.nearest(pruned) * mask, hessian)


def test_without_correlations_sparsegpt_is_weighted_magnitude():
    weight, hessian = random_problem(6, 20)
    hessian = torch.diag_embed(hessian.diagonal(dim1=1, dim2=2))
    pruned, mask = prune_fixed_order(weight, hessian, 30)
    score = weight.square() * hessian[0].diagonal()
    assert torch.equal(mask, score >= score.flatten().topk(30).values[-1])
    assert torch.equal(pruned, weight * mask)


# Both -----------------------------------------------------------------------------------------------------------------

METHODS = {
    "prune": lambda weight, hessian, grid: prune_fixed_order(weight, hessian, weight.numel() // 3)[0],
    "n of m": lambda weight, hessian, grid: prune_n_of_m(weight, hessian, 2, 4)[0],
    "quantize": quantize_fixed_order,
    "quantize kept": lambda weight, hessian, grid: quantize_fixed_order(
        weight, hessian, grid, mask=random_mask(weight, 0.5)
    ),
    "prune and quantize": lambda weight, hessian, grid: prune_fixed_order(
        weight, hessian, weight.numel() // 3, grid=grid
    )[0],
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@methods
def test_scale_of_the_hessian_changes_nothing(method):
    weight, hessian, grid = problem(6, 40, 2)
    torch.testing.assert_close(method(weight, 7.3 * hessian, grid), method(weight, hessian, grid), rtol=0, atol=1e-10)


@methods
@pytest.mark.parametrize(("rows", "columns", "groups"), SHAPES)
def test_arguments_are_left_alone(method, rows, columns, groups):
    weight, hessian, grid = problem(rows, columns, groups)
    before = weight.clone(), hessian.clone()
    method(weight, hessian, grid)
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


@methods
def test_float32_loses_what_float64_loses(method):
    weight, hessian = uneven_problem(16, 160, seed=2)
    grid = fit_grid(weight, 4)
    double = obs.layer_loss(weight, method(weight, hessian, grid), hessian)
    single = method(weight.float(), hessian.float(), grid.to(torch.float32))
    assert single.dtype == torch.float32
    assert obs.layer_loss(weight, single.double(), hessian) == pytest.approx(double, rel=0.02)


@methods
def test_a_singular_hessian_names_damping_as_the_remedy(method):
    weight, _, grid = problem(2, 8)
    with pytest.raises(obs.HessianError, match="damping"):
        method(weight, torch.ones(1, 8, 8, dtype=weight.dtype), grid)


@pytest.mark.parametrize("masked", [False, True])
def test_groups_are_layers_of_their_own(masked):
    weight, hessian, _ = problem(6, 30, 3)
    mask = random_mask(weight, 0.5) if masked else None
    grid = fit_grid(weight, 3, per="tensor")
    parts = [
        quantize_fixed_order(weight[rows], hessian[i : i + 1], grid, mask=None if mask is None else mask[rows])
        for i, rows in enumerate(torch.arange(6).split(2))
    ]
    assert torch.equal(quantize_fixed_order(weight, hessian, grid, mask=mask), torch.cat(parts))


@given(seed=st.integers(0, 1000), masked=st.booleans())
@settings(max_examples=20, deadline=None)
def test_permuting_columns_permutes_the_result(seed, masked):
    weight, hessian, grid = problem(4, 12, seed=seed)
    mask = random_mask(weight, 0.5, seed) if masked else None
    new = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed + 1))
    plain = quantize_fixed_order(weight, hessian, grid, mask=mask, order=order)
    permuted = quantize_fixed_order(
        weight[:, new],
        hessian[:, new][:, :, new],
        grid,
        mask=None if mask is None else mask[:, new],
        order=new.argsort()[order],
    )
    assert torch.equal(permuted, plain[:, new])


def test_empty_rows_stay_empty():
    weight, hessian, grid = problem(3, 8)
    mask = torch.zeros_like(weight, dtype=torch.bool)
    assert not quantize_fixed_order(weight, hessian, grid, mask=mask).any()
    mask[1, :4] = True
    result = quantize_fixed_order(weight, hessian, grid, mask=mask)
    assert not result[[0, 2]].any()
    assert torch.equal(result[1], quantize_one_by_one(weight, hessian, grid, mask, decreasing_diagonal(hessian))[1])
