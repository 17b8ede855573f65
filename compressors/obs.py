"""The second-order solver: Optimal Brain Surgeon on linear layers, as pure functions of tensors.

A layer maps inputs ``x`` to ``W x``; removing weights changes ``W`` by ``D`` and costs ``1/2 tr(D H D^T)``, where
``H = 2 E[x x^T]`` is the Hessian of the squared output error. ``H`` is the same for all rows (output units) of a
group, so every row is a problem of its own. ExactOBS (Frantar, Singh, Alistarh, "Optimal Brain Compression",
arXiv 2208.11580, section 4) solves it greedily: remove the weight whose loss ``w_p^2 / (2 [H^-1]_pp)`` is least,
let the others make up for it, and drop the removed index from ``H^-1``.

Shapes: ``weight [rows, d]``; ``hessian [groups, d, d]``, where row ``r`` belongs to group ``r // (rows / groups)``
(one group but for grouped convolutions).
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

BLOCK = 32  # pivots between two updates of the trailing matrix
SHRINK = 0.8  # survivors are gathered into a smaller matrix when they fill less than this share of it


class HessianError(ValueError):
    """A Hessian that cannot be used: not finite, empty, or singular in spite of its damping."""


@dataclass(frozen=True)
class Elimination:
    """The whole course of ExactOBS: which weight left in which step, and at what loss.

    ``order[r, k]`` is the column that row ``r`` lost in step ``k`` (int64) and ``losses[r, k]`` the loss of that step
    (float64); both ``[rows, d]``. One elimination serves every density.
    """

    order: Tensor
    losses: Tensor


def damped(hessian: Tensor, damping: float) -> Tensor:
    """``H + damping * mean(diag H) * I`` for each group: ``[groups, d, d]``.

    Inputs that were never active get curvature from the damping alone, so their weights cost what it charges and no
    more, and no other weight makes up for them.

    Raises:
        HessianError: a group has entries that are not finite, or no active input at all.
    """
    if not torch.isfinite(hessian).all():
        raise HessianError(
            "the Hessian has NaN or infinite entries: check the calibration data and the network's weights"
        )
    scale = hessian.diagonal(dim1=-2, dim2=-1).mean(-1)
    if (scale <= 0).any():
        raise HessianError("no input was active during calibration: use more or other calibration samples")
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return hessian + damping * scale[:, None, None] * identity


def inverse(hessian: Tensor) -> Tensor:
    """The inverse of each group's Hessian by Cholesky: ``[groups, d, d]``.

    Raises:
        HessianError: a Hessian is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed.any():
        raise HessianError("the Hessian is singular: raise `damping`, or use more calibration samples than inputs")
    return torch.cholesky_inverse(factor)


def eliminate(weight: Tensor, hessian: Tensor, max_bytes: int = 2**28) -> Elimination:
    """ExactOBS: remove every weight of every row, one at a time, always the one that costs least.

    The pivots and their order are those of the textbook algorithm, but the rank-one updates of ``H^-1`` are put off:
    inside a block of pivots only the diagonal, the weights and the pivot columns are kept current, and the trailing
    matrix takes the block's updates as one matrix product (2 d^3 / 3 operations a row, many rows side by side).

    Args:
        weight: ``[rows, d]``.
        hessian: ``[groups, d, d]``, positive definite; see :func:`damped`.
        max_bytes: bound on the working memory; rows are treated in chunks that keep to it, one row at least.

    Raises:
        HessianError: see :func:`inverse`.
    """
    rows, columns = weight.shape
    inverses = inverse(hessian)
    group = torch.arange(rows, device=weight.device) // (rows // len(hessian))
    chunk = min(rows, max(1, max_bytes // (2 * columns * columns * weight.element_size())))
    workspace = weight.new_empty(2, chunk * columns * columns)
    parts = [
        _eliminate_rows(part, inverses, owner, workspace)
        for part, owner in zip(weight.split(chunk), group.split(chunk), strict=True)
    ]
    return Elimination(torch.cat([p.order for p in parts]), torch.cat([p.losses for p in parts]))


def _eliminate_rows(weight: Tensor, inverses: Tensor, group: Tensor, workspace: Tensor) -> Elimination:
    """:func:`eliminate` for rows that fit into the workspace ``[2, >= rows * d * d]``."""
    rows, columns = weight.shape
    weight = weight.clone()
    inverse = torch.index_select(inverses, 0, group, out=_view(workspace[0], rows, columns, columns))
    index = torch.arange(columns, device=weight.device).repeat(
        rows, 1
    )  # [rows, size]: the column each place stands for
    gone = torch.zeros_like(weight, dtype=torch.bool)
    order, losses = [], []
    for start in range(0, columns, BLOCK):
        alive = columns - start
        if alive < SHRINK * weight.shape[1]:
            keep = (~gone).nonzero()[:, 1].view(rows, alive)
            inverse = _submatrices(inverse, keep, workspace)
            weight, index, gone = (tensor.gather(1, keep) for tensor in (weight, index, gone))
        steps = min(BLOCK, alive)
        pivots, block_losses, updates = _block(weight, inverse, gone, steps)
        order.append(index.gather(1, pivots))
        losses.append(block_losses)
        if start + steps < columns:
            inverse.baddbmm_(updates.mT, updates, alpha=-1)
    return Elimination(torch.cat(order, 1), torch.cat(losses, 1).double())


def _block(weight: Tensor, inverse: Tensor, gone: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Remove ``steps`` weights from every row; ``weight`` and ``gone`` are updated in place.

    Returns the pivots and losses ``[rows, steps]``, and the scaled pivot columns ``u [rows, steps, size]``, with which
    the inverse after the block is ``inverse - u^T u``.
    """
    rows, size = weight.shape
    every = torch.arange(rows, device=weight.device)
    diagonal = inverse.diagonal(dim1=1, dim2=2).clone()
    updates = weight.new_zeros(rows, steps, size)
    pivots, losses = [], []
    for step in range(steps):
        saliency = (weight.square() / diagonal).masked_fill_(gone, torch.inf)
        loss, pivot = saliency.min(dim=1)
        column = _rows(inverse, pivot[:, None])
        if step:
            past = updates[:, :step]
            column = column.unsqueeze(1).baddbmm_(past[every, :, pivot].unsqueeze(1), past, alpha=-1).squeeze(1)
        root = column[every, pivot].sqrt()
        column = column.div_(root[:, None]).masked_fill_(gone, 0.0)
        weight.addcmul_(column, (weight[every, pivot] / root)[:, None], value=-1)
        gone[every, pivot] = True
        weight[every, pivot] = 0.0
        diagonal.addcmul_(column, column, value=-1)
        updates[:, step] = column
        pivots.append(pivot)
        losses.append(loss / 2)
    return torch.stack(pivots, 1), torch.stack(losses, 1), updates


def _submatrices(matrices: Tensor, keep: Tensor, workspace: Tensor) -> Tensor:
    """Rows and columns ``keep [rows, k]`` of each matrix ``[rows, n, n]``: ``[rows, k, k]``.

    ``matrices`` lies in the first half of the workspace and the result takes its place: fresh memory of this size would
    cost more than the copies.
    """
    count, size, _ = matrices.shape
    alive = keep.shape[1]
    halfway = _view(workspace[1], count, alive, size)
    _rows(matrices, keep, out=halfway.view(-1, size))
    columns = keep[:, None, :].expand(-1, alive, -1)
    return torch.gather(halfway, 2, columns, out=_view(workspace[0], count, alive, alive))


def _view(memory: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat piece of memory as a tensor of ``shape``."""
    return memory[: prod(shape)].view(shape)


def _rows(matrices: Tensor, places: Tensor, out: Tensor | None = None) -> Tensor:
    """Rows ``places [rows, k]`` of each matrix ``[rows, n, m]``: ``[rows * k, m]``, copied as whole rows."""
    count, height, width = matrices.shape
    first = torch.arange(count, device=matrices.device)[:, None] * height
    return torch.index_select(matrices.view(-1, width), 0, (first + places).flatten(), out=out)


def steps_per_row(losses: Tensor, remove: int) -> Tensor:
    """OBC's global step: how many elimination steps each row takes so that the layer loses ``remove`` weights.

    The ``remove`` smallest of all step losses are taken, wherever they stand; each row takes as many steps as it has
    among them. ``losses [rows, d]`` -> ``[rows]`` int64.
    """
    taken = torch.zeros(losses.numel(), dtype=torch.int64, device=losses.device)
    taken[losses.flatten().argsort(stable=True)[:remove]] = 1
    return taken.view_as(losses).sum(1)


def mask_after(order: Tensor, steps: Tensor) -> Tensor:
    """The weights left when row ``r`` has taken ``steps[r]`` steps: bool ``[rows, d]``, True is kept."""
    columns = torch.arange(order.shape[1], device=order.device)
    return torch.empty_like(order, dtype=torch.bool).scatter_(1, order, columns >= steps[:, None])


def least_squares(weight: Tensor, hessian: Tensor, mask: Tensor, max_bytes: int = 2**30) -> Tensor:
    """The optimal weights on a given mask: ``w_K = H_KK^-1 H_K: w`` for each row (``[rows, d]``, zero off the mask).

    This is where ExactOBS ends, whatever the order in which the weights left. Rows with about as many survivors are
    solved together, padded to the longest of them.

    Raises:
        HessianError: a Hessian is not positive definite on the mask.
    """
    rows, columns = weight.shape
    group = torch.arange(rows, device=weight.device) // (rows // len(hessian))
    target = torch.einsum("grd,gde->gre", weight.view(len(hessian), -1, columns), hessian).reshape(rows, columns)
    kept = mask.sum(1)
    by_count = kept.argsort(descending=True)
    result = torch.zeros_like(weight)
    start = 0
    while start < rows and (size := int(kept[by_count[start]])):
        stop = start + max(1, max_bytes // (size * size * weight.element_size()))
        part = by_count[start:stop]
        places = mask[part].int().argsort(dim=1, descending=True, stable=True)[:, :size]
        padding = torch.arange(size, device=weight.device) >= kept[part][:, None]
        system = hessian[group[part][:, None, None], places[:, :, None], places[:, None, :]]
        system = system.masked_fill(padding[:, :, None] | padding[:, None, :], 0.0) + torch.diag_embed(
            padding.to(weight)
        )
        right = target[part].gather(1, places).masked_fill(padding, 0.0)
        factor, failed = torch.linalg.cholesky_ex(system)
        if failed.any():
            raise HessianError("the Hessian is singular on the mask: raise `damping`, or use more calibration samples")
        solved = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        result[part] = result[part].scatter_(1, places, solved.masked_fill(padding, 0.0))
        start = stop
    return result


def layer_loss(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """``1/2 tr(D H D^T)`` with ``D = after - before``: the squared output error that the change causes."""
    delta = (after - before).view(len(hessian), -1, before.shape[1])
    return float(torch.einsum("grd,gde,gre->", delta, hessian, delta)) / 2
