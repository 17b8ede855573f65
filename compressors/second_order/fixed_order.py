"""Fast second-order pruning and quantisation: all rows give up their columns in one and the same order.

Exact elimination lets every row choose its own order, so every row needs inverse Hessians of its own. In an order that
all rows share, one triangular factor serves them all, and a layer costs ``O(d^3 + rows d^2)`` instead of
``O(rows d^3)``: GPTQ (Frantar and others, arXiv 2210.17323, section 3) for quantisation, SparseGPT (Frantar, Alistarh,
arXiv 2301.00774, section 3) for pruning.

With ``H = R R^T``, R upper triangular, the loss of a row is ``1/2 sum_i (sum_{j <= i} R_ji (q_j - w_j))^2``. Once the
columns before ``i`` are settled at their levels or zeros ``q_j``, the best real value of column ``i`` is therefore
``v_i = w_i - sum_{j < i} (R_ji / R_ii) (q_j - w_j)``, and settling it at ``q_i`` adds ``(R_ii (q_i - v_i))^2 / 2``.
These ``v_i`` are the compensated weights of the two papers, whose factor of the inverse Hessian is ``R^-1``; nothing
has to be inverted. The changes of a block of columns reach the columns behind it as one matrix product.

Shapes as in :mod:`compressors.second_order.obs`: ``weight [rows, d]``, ``hessian [groups, d, d]``, damped, of the
weight's dtype.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from compressors.masks import largest
from compressors.quantization.grids import Grid
from compressors.second_order.obs import SINGULAR, HessianError, kept_systems

BLOCK = 128  # columns between two updates of those behind
SPAN = 32  # columns among which saliencies are compared

Select = Callable[[Tensor, slice], Tensor]
"""Saliencies ``[groups, span, rows of a group]`` of the columns in a slice -> which are kept: bool, the same shape."""


def prune_fixed_order(
    weight: Tensor, hessian: Tensor, keep: int, *, grid: Grid | None = None, span: int = SPAN
) -> tuple[Tensor, Tensor]:
    """SparseGPT: of each span of columns the least saliencies ``(R_ii v_i)^2`` go, wherever in the rows they stand.

    Each span keeps a part of ``keep`` in proportion to its columns, and the total is exact. Columns before a removed
    weight do not make up for it: :func:`compressors.second_order.obs.least_squares` on the mask does better still.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[groups, d, d]``, positive definite; see :func:`compressors.second_order.obs.damped`.
        keep: weights to keep in the whole layer.
        grid: round the weights that are kept in the same pass.
        span: columns among which saliencies are compared. SparseGPT takes 128; with 32 the choice rests on weights that
            have taken up more of the losses before them: random layers of 96 to 512 columns, at densities 0.5 and 0.1,
            lost between 35 % less and 2 % more (after least squares on the mask).

    Returns:
        The new weight and the mask (bool, True is kept), both ``[rows, d]``.

    Raises:
        HessianError: a Hessian is not positive definite.
    """
    columns = weight.shape[1]

    def select(saliency: Tensor, place: slice) -> Tensor:
        keep_of_span = keep * place.stop // columns - keep * place.start // columns
        return largest(saliency, keep_of_span)

    return _pruned(weight, hessian, select, grid, span)


def prune_n_of_m(
    weight: Tensor, hessian: Tensor, kept: int, group: int, *, grid: Grid | None = None
) -> tuple[Tensor, Tensor]:
    """SparseGPT's N:M pattern: ``kept`` of every ``group`` consecutive weights of a row stay.

    They are chosen when the group's first column is reached. Where ``d`` is no multiple of ``group``, the last columns
    form a smaller group, which keeps as many or all it has. Else as :func:`prune_fixed_order`.

    Raises:
        ValueError: ``kept`` is not between 0 and ``group``.
    """
    if not 0 <= kept <= group:
        raise ValueError(f"{kept} weights kept of every {group}: keep between 0 and {group}")

    def select(saliency: Tensor, place: slice) -> Tensor:
        chosen = saliency.argsort(dim=1, descending=True, stable=True)[:, :kept]
        return torch.zeros_like(saliency, dtype=torch.bool).scatter_(1, chosen, True)

    return _pruned(weight, hessian, select, grid, group)


def quantize_fixed_order(
    weight: Tensor,
    hessian: Tensor,
    grid: Grid,
    *,
    mask: Tensor | None = None,
    order: Tensor | None = None,
    max_bytes: int = 2**28,
) -> Tensor:
    """GPTQ: each column goes to its nearest levels, and the columns behind it make up for the change.

    Pruned weights stay zero and make up for nothing. The weights that are left in a row then have a Hessian of their
    own, so rows no longer share a factor: this costs ``k^3 / 3`` operations for a row that keeps ``k`` weights, like
    :func:`compressors.second_order.obs.least_squares`. Cheaper, at more loss, is to round while pruning.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[groups, d, d]``, positive definite; see :func:`compressors.second_order.obs.damped`.
        grid: the levels, fitted beforehand; :meth:`~compressors.quantization.grids.Grid.to` the weight's dtype.
        mask: bool ``[rows, d]``: weights where it is False are pruned.
        order: the columns in the order in which they are rounded, int64 ``[d]`` or ``[groups, d]``. Default: by
            decreasing diagonal of the Hessian, the most active inputs first (GPTQ's "act order"). SBC's public code
            takes the increasing diagonal of the inverse.
        max_bytes: bound on the Hessians of single rows held at once, where there is a mask; one row at least.

    Returns:
        The weight on its grid: ``[rows, d]``.

    Raises:
        HessianError: a Hessian is not positive definite.
    """
    groups, columns, _ = hessian.shape
    if order is None:
        order = hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    order = order.expand(groups, columns)
    if mask is not None:
        return _quantize_kept(weight, hessian, grid, mask, order, max_bytes)
    places = order[:, :, None].expand(-1, -1, len(weight) // groups)
    values = _by_columns(weight, groups).gather(1, places)
    every = torch.arange(groups, device=weight.device)[:, None, None]
    _sweep(values, hessian[every, order[:, :, None], order[:, None, :]], grid)
    return _by_rows(torch.empty_like(values).scatter_(1, places, values))


def _quantize_kept(weight: Tensor, hessian: Tensor, grid: Grid, mask: Tensor, order: Tensor, max_bytes: int) -> Tensor:
    """GPTQ with a Hessian for each row, that of its kept weights."""
    scale, zero = (tensor.expand(len(weight), 1) for tensor in (grid.scale, grid.zero))
    result = torch.zeros_like(weight)
    for rows, places, padding, systems in kept_systems(hessian, mask, max_bytes, order):
        values = weight[rows].gather(1, places).masked_fill(padding, 0.0)[:, :, None]
        _sweep(values, systems, Grid(grid.bits, scale[rows], zero[rows]))
        result[rows] = result[rows].scatter_(1, places, values[:, :, 0])
    return result


def _pruned(weight: Tensor, hessian: Tensor, select: Select, grid: Grid | None, span: int) -> tuple[Tensor, Tensor]:
    values = _by_columns(weight, len(hessian))
    kept = _sweep(values, hessian, grid, select, span)
    return _by_rows(values), _by_rows(kept)


def _sweep(
    values: Tensor, hessian: Tensor, grid: Grid | None, select: Select | None = None, span: int = BLOCK
) -> Tensor:
    """Settle the columns in place, from the first to the last: ``values [groups, d, rows of a group]``.

    ``select`` chooses among ``span`` columns when the first of them is reached. Returns which entries are kept: bool,
    of the shape of ``values``.
    """
    columns = values.shape[1]
    block = span * max(1, BLOCK // span)
    diagonal, reach = _factor(hessian)
    kept = torch.ones_like(values, dtype=torch.bool)
    before = values.clone()
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for first in range(start, stop, span):
            place = slice(first, min(first + span, stop))
            if select is not None:
                ahead = _best_ahead(values[:, place], before[:, place], reach[:, place, place])
                kept[:, place] = select((ahead * diagonal[:, place, None]).square(), place)
            for column in range(first, place.stop):
                settled = _nearest(grid, values[:, column]).where(kept[:, column], 0.0)
                values[:, column] = settled
                change = settled - before[:, column]
                values[:, column + 1 : stop] -= reach[:, column, column + 1 : stop, None] * change[:, None]
        values[:, stop:] -= reach[:, start:stop, stop:].mT @ (values[:, start:stop] - before[:, start:stop])
    return kept


def _best_ahead(values: Tensor, before: Tensor, reach: Tensor) -> Tensor:
    """The best real values of columns ahead, all of them free: ``v_i`` takes those between as they were before."""
    return before + torch.linalg.solve_triangular(reach.mT, values - before, upper=False, unitriangular=True)


def _nearest(grid: Grid | None, column: Tensor) -> Tensor:
    """A column ``[groups, rows of a group]`` on its grid, or as it is without one."""
    return column if grid is None else grid.nearest(column.reshape(-1, 1)).view_as(column)


def _factor(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """``R_ii [groups, d]`` and ``R_ij / R_jj [groups, d, d]`` of ``H = R R^T``: a Cholesky factor read backwards."""
    factor, failed = torch.linalg.cholesky_ex(hessian.flip(1, 2))
    if failed.any():
        raise HessianError(SINGULAR)
    upper = factor.flip(1, 2)
    diagonal = upper.diagonal(dim1=1, dim2=2).clone()
    return diagonal, upper.div_(diagonal[:, None])


def _by_columns(matrix: Tensor, groups: int) -> Tensor:
    """``[rows, d]`` -> ``[groups, d, rows of a group]``, a copy in which a column's entries lie side by side."""
    return matrix.view(groups, -1, matrix.shape[1]).mT.clone(memory_format=torch.contiguous_format)


def _by_rows(columns: Tensor) -> Tensor:
    """``[groups, d, rows of a group]`` -> ``[rows, d]``."""
    return columns.mT.reshape(-1, columns.shape[1])
