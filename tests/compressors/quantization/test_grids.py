"""Grids against brute force over their levels, the formulas of their sources, and their own codes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from compressors.quantization.grids import (
    ERROR_NORM,
    MAX_BITS,
    MIN_BITS,
    SHRINK_FACTORS,
    Grid,
    GridError,
    fit_grid,
    paper_grid,
)
from hardware.memory import WeightCoding

BITS = range(MIN_BITS, MAX_BITS + 1)
KINDS = [(per, symmetric, search) for per in ("channel", "tensor") for symmetric in (True, False) for search in (0, 1)]

weights = arrays(
    "float32", array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-1e4, 1e4, width=32)
).map(torch.from_numpy)
kinds = st.sampled_from(KINDS)
widths = st.sampled_from(BITS)


def fitted(weight, bits, kind, **options):
    per, symmetric, search = kind
    return fit_grid(weight, bits, per=per, symmetric=symmetric, search=bool(search), **options)


def gaussian(rows=6, columns=40, seed=0, dtype=torch.float64):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def error(weight, grid):
    return (grid.nearest(weight) - weight).abs().pow(ERROR_NORM).sum(1)


def bits_of(tensor):
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int64)


@given(weights, widths, kinds)
@settings(deadline=None)
def test_no_level_is_nearer_than_the_one_chosen(weight, bits, kind):
    grid = fitted(weight.double(), bits, kind)
    levels = grid.values(torch.arange(2**bits).expand(len(weight), -1))
    distances = (levels[:, None, :] - weight[:, :, None]).abs()
    chosen = (grid.nearest(weight) - weight).abs()
    torch.testing.assert_close(chosen, distances.amin(-1), rtol=1e-9, atol=1e-9)


@given(weights, widths, kinds, st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None)
def test_codes_restore_the_values_to_the_bit(weight, bits, kind, dtype):
    weight = weight.to(dtype)
    grid = fitted(weight, bits, kind)
    codes = grid.codes(weight)
    values = grid.values(codes)
    assert codes.dtype == torch.uint8
    assert values.dtype == dtype
    assert int(codes.max()) < 2**bits
    assert torch.equal(bits_of(values), bits_of(grid.nearest(weight)))
    assert torch.equal(grid.codes(values), codes)


@given(weights, widths, kinds)
@settings(deadline=None)
def test_a_float32_grid_widened_to_float64_rounds_back_to_its_own_values(weight, bits, kind):
    grid = fitted(weight, bits, kind)
    wide = grid.to(weight.double())
    elsewhere = weight.double().flip(0) * 0.7  # what a solver may have made of the weights
    back = wide.nearest(elsewhere).float()
    assert torch.equal(bits_of(back), bits_of(grid.values(wide.codes(elsewhere))))
    assert torch.equal(grid.codes(back), wide.codes(elsewhere))


@given(weights, widths, kinds)
@settings(deadline=None)
def test_zero_is_a_level_and_the_step_is_positive(weight, bits, kind):
    grid = fitted(weight, bits, kind)
    assert (grid.scale > 0).all()
    assert torch.equal(grid.zero, grid.zero.round())
    assert ((grid.zero >= 0) & (grid.zero < 2**bits)).all()
    zeros = grid.nearest(torch.zeros_like(weight))
    assert torch.equal(bits_of(zeros), torch.zeros_like(zeros, dtype=torch.int32))
    shape = (1 if kind[0] == "tensor" else len(weight), 1)
    assert grid.scale.shape == grid.zero.shape == shape


@given(weights, widths, st.sampled_from(["channel", "tensor"]), st.booleans())
@settings(deadline=None)
def test_search_is_never_worse_than_the_whole_range(weight, bits, per, symmetric):
    weight = weight.double()
    plain, searched = (fit_grid(weight, bits, per=per, symmetric=symmetric, search=s) for s in (False, True))
    if per == "channel":
        assert (error(weight, searched) <= error(weight, plain) * (1 + 1e-9) + 1e-12).all()
    else:
        assert error(weight, searched).sum() <= error(weight, plain).sum() * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_search_finds_the_best_factor_of_all(bits, symmetric):
    weight = gaussian(columns=400)
    plain = fit_grid(weight, bits, symmetric=symmetric, search=False)
    searched = fit_grid(weight, bits, symmetric=symmetric)
    every = torch.stack([error(weight, Grid(bits, f * plain.scale, plain.zero)) for f in SHRINK_FACTORS])
    torch.testing.assert_close(error(weight, searched), every.amin(0))
    assert torch.equal(searched.zero, plain.zero)
    if bits < 4:
        assert (searched.scale < plain.scale).all(), "a Gaussian row is better off without its extremes"


@pytest.mark.parametrize("bits", BITS)
def test_symmetric_grids_have_the_step_and_zero_point_of_the_papers(bits):
    weight = gaussian()
    grid = paper_grid(weight, bits)
    torch.testing.assert_close(grid.scale[:, 0], 2 * weight.abs().amax(1) / (2**bits - 1))
    assert (grid.zero == 2 ** (bits - 1)).all()
    assert grid.symmetric


@pytest.mark.parametrize("bits", BITS)
def test_asymmetric_grids_span_the_row(bits):
    weight = gaussian() + 1.0
    grid = fit_grid(weight, bits, symmetric=False, search=False)
    span = weight.amax(1).clamp_min(0) - weight.amin(1).clamp_max(0)
    torch.testing.assert_close(grid.scale[:, 0], span / (2**bits - 1))
    assert ((grid.nearest(weight) - weight).abs() <= grid.scale * (1 + 1e-12)).all()
    assert not grid.symmetric


@given(weights, widths, kinds, st.integers(-8, 8))
@settings(deadline=None)
def test_scaling_the_weights_scales_the_grid(weight, bits, kind, exponent):
    weight = weight.double().where(weight.abs() > 1e-20, 0.0)
    grid, scaled = fitted(weight, bits, kind), fitted(weight * 2.0**exponent, bits, kind)
    assert torch.equal(grid.codes(weight), scaled.codes(weight * 2.0**exponent))


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_weights_do_not_shape_the_grid(kind):
    weight = gaussian()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    wild = weight.where(mask, 100.0)
    expected, found = fitted(weight * mask, 3, kind), fitted(wild, 3, kind, mask=mask)
    assert torch.equal(found.scale, expected.scale)
    assert torch.equal(found.zero, expected.zero)


@pytest.mark.parametrize("kind", KINDS)
def test_per_tensor_is_one_row_of_all_weights(kind):
    weight = gaussian()
    _, symmetric, search = kind
    tensor = fitted(weight, 4, ("tensor", symmetric, search))
    row = fitted(weight.view(1, -1), 4, ("channel", symmetric, search))
    assert torch.equal(tensor.nearest(weight).view(1, -1), row.nearest(weight.view(1, -1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zeros_and_of_next_to_nothing_become_zeros(kind, dtype):
    weight = torch.zeros(3, 5, dtype=dtype)
    weight[1] = torch.finfo(dtype).smallest_normal / 2**20
    grid = fitted(weight, 4, kind)
    assert torch.equal(grid.scale, torch.ones_like(grid.scale))
    assert not grid.nearest(weight).any()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("bits", BITS)
def test_constant_rows_are_met_by_asymmetric_grids_and_by_half_a_symmetric_one(bits, sign):
    weight = torch.full((2, 6), sign * 0.3, dtype=torch.float64)
    exact = fit_grid(weight, bits, symmetric=False)
    torch.testing.assert_close(exact.nearest(weight), weight)
    searched = fit_grid(weight, bits)
    assert ((searched.nearest(weight) - weight).abs() <= searched.scale).all()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_rows_of_one_sign_spend_every_code_of_an_asymmetric_grid_on_it(sign):
    weight = sign * gaussian(columns=4000).abs()
    grid = fit_grid(weight, 3, symmetric=False, search=False)
    assert all(row.unique().numel() == 8 for row in grid.codes(weight))
    assert (grid.zero == (0 if sign > 0 else 7)).all()


def test_huge_weights_neither_overflow_nor_lose_their_sign():
    weight = torch.tensor([[1e38, -2e38, 0.0, 5e37]])
    for kind in KINDS:
        values = fitted(weight, 8, kind).nearest(weight)
        torch.testing.assert_close(values, weight, rtol=0.02, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused_by_row(bad):
    weight = gaussian()
    grid = fit_grid(weight, 4)
    weight[3, 7] = bad
    with pytest.raises(GridError, match="row 3 .* NaN or infinite"):
        fit_grid(weight, 4)
    with pytest.raises(GridError, match="row 3 .* NaN or infinite"):
        grid.codes(weight)


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 32])
def test_widths_out_of_range_are_refused(bits):
    with pytest.raises(GridError, match="2 to 8"):
        fit_grid(gaussian(), bits)


def test_grids_per_anything_else_are_refused():
    with pytest.raises(GridError, match="'row'.*channel, tensor"):
        fit_grid(gaussian(), 4, per="row")


@pytest.mark.parametrize(
    ("kind", "scales", "zero_points"),
    [(("channel", True, 1), 6, 0), (("channel", False, 1), 6, 6), (("tensor", True, 0), 1, 0)],
)
def test_hardware_counts_codes_scales_and_zero_points(kind, scales, zero_points):
    single = fitted(gaussian(dtype=torch.float32) + 0.5, 4, kind).coding()
    assert single == WeightCoding(
        bits=4, scales=scales, scale_bits=32, zero_points=zero_points, zero_point_bits=4, has_zero=True
    )
    assert fitted(gaussian() + 0.5, 4, kind).coding().scale_bits == 64
