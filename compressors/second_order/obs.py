"""The second-order solver: Optimal Brain Surgeon on linear layers, as pure functions of tensors.

A layer maps inputs ``x`` to ``W x``; removing weights changes ``W`` by ``D`` and costs ``1/2 tr(D H D^T)``, where
``H = 2 E[x x^T]`` is the Hessian of the squared output error. ``H`` is the same for all rows (output units) of a
group, so every row is a problem of its own. ExactOBS (Frantar, Singh, Alistarh, "Optimal Brain Compression",
arXiv 2208.11580, section 4) solves it greedily: remove the weight whose loss ``w_p^2 / (2 [H^-1]_pp)`` is least,
let the others make up for it, and drop the removed index from ``H^-1``.

Shapes: ``weight [rows, d]``; ``hessian [groups, d, d]``, where row ``r`` belongs to group ``r // (rows / groups)``
(one group but for grouped convolutions).
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressors.quantization.grids import Grid
from compressors.second_order.elimination import Course, Rule, compiled, run

MAX_BYTES = 2**27  # of working memory: more would leave the processor's caches, and gain nothing


class HessianError(ValueError):
    """A Hessian that cannot be used: not finite, empty, or singular in spite of its damping."""


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


def eliminate(weight: Tensor, hessian: Tensor, *, batch: int = 1, max_bytes: int = MAX_BYTES) -> Course:
    """ExactOBS: remove every weight of every row, one at a time, always the one that costs least.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[groups, d, d]``, positive definite; see :func:`damped`.
        batch: steps between two looks at the losses. 1 is exact; SBC's public code takes several weights at once.
        max_bytes: bound on the working memory; rows are treated in chunks that keep to it, one row at least.

    Raises:
        HessianError: see :func:`inverse`.
    """
    return _in_chunks(weight, hessian, Rule.pruning(weight, batch=batch), weight.shape[1], max_bytes)


def eliminate_groups(weight: Tensor, hessian: Tensor, width: int, *, max_bytes: int = MAX_BYTES) -> Course:
    """As :func:`eliminate`, but ``width`` neighbouring columns leave together: OBC's block sparsity (section 4).

    The loss of a group ``B`` is ``1/2 w_B^T (H^-1[B, B])^-1 w_B``. Where the columns are no whole number of groups, the
    last one is smaller. The course is over groups: ``[rows, ceil(d / width)]``.

    Raises:
        HessianError: see :func:`inverse`.
    """
    missing = -weight.shape[1] % width
    weight = F.pad(weight.cpu(), (0, missing))
    hessian = F.pad(hessian, (0, missing, 0, missing)).cpu()
    hessian.diagonal(dim1=1, dim2=2)[:, hessian.shape[1] - missing :] = 1.0  # filled up: tied to nothing
    rule = Rule.pruning(weight, width=width)
    return _in_chunks(weight, hessian, rule, weight.shape[1] // width, max_bytes)


def mask_of_pattern(weight: Tensor, hessian: Tensor, kept: int, of: int, *, max_bytes: int = MAX_BYTES) -> Tensor:
    """N:M sparsity by ExactOBS: ``kept`` of every ``of`` neighbouring columns stay. Bool ``[rows, d]``, True is kept.

    A group that has lost its share is left alone (OBC, section 4). Where the columns are no whole number of groups, the
    last one is smaller, and keeps as many or all it has.

    Raises:
        HessianError: see :func:`inverse`.
    """
    columns = weight.shape[1]
    steps = columns // of * (of - kept) + max(0, columns % of - kept)
    rule = Rule.pruning(weight, most=of - kept, of=of)
    order = _in_chunks(weight, hessian, rule, steps, max_bytes).order
    return torch.ones_like(weight, dtype=torch.bool).scatter_(1, order, False)


def quantize(
    weight: Tensor, hessian: Tensor, grid: Grid, mask: Tensor | None = None, *, max_bytes: int = MAX_BYTES
) -> Tensor:
    """OBQ: round every weight of every row to its grid, one at a time, the others making up for it.

    Always the weight whose rounding costs least, but for outliers: weights that drifted beyond the grid's range go
    first (arXiv 2208.11580, section 5 and reference code).

    Args:
        weight: ``[rows, d]``, zero off the mask.
        hessian: ``[groups, d, d]``, positive definite.
        grid: the levels, of the weight's dtype.
        mask: bool ``[rows, d]``: the weights that are left; the others stay zero and make up for nothing.
        max_bytes: bound on the working memory.

    Raises:
        HessianError: see :func:`inverse`.
    """
    rows = len(weight)
    rule = Rule(grid.scale.expand(rows, 1)[:, 0], grid.zero.expand(rows, 1)[:, 0], top=2**grid.bits - 1)
    rule = replace(rule, scale=rule.scale.contiguous(), zero=rule.zero.contiguous())
    if mask is None or bool(mask.all()):
        course = _in_chunks(weight, hessian, rule, weight.shape[1], max_bytes)
        return torch.zeros_like(weight).scatter_(1, course.order, course.values)
    result = torch.zeros_like(weight)
    for part, places, _, systems in kept_systems(hessian, mask, max_bytes):
        memory = inverse(systems).flatten(1)
        course = run(weight[part].gather(1, places), places, memory, rule.of_rows(part), places.shape[1])
        result[part] = torch.zeros_like(weight[part]).scatter_(1, course.order, course.values)
    return result


def _in_chunks(weight: Tensor, hessian: Tensor, rule: Rule, steps: int, max_bytes: int) -> Course:
    """The course of all rows, as many of them at once as the memory allows."""
    rows, columns = weight.shape
    inverses = inverse(hessian).flatten(1)
    group = torch.arange(rows, device=weight.device) // (rows // len(hessian))
    chunk = min(rows, max(1, max_bytes // (columns * columns * weight.element_size())))
    memory = weight.new_empty(chunk, columns * columns)
    index = torch.arange(columns, device=weight.device)
    parts = []
    for start in range(0, rows, chunk):
        part = slice(start, min(rows, start + chunk))
        own = torch.index_select(inverses, 0, group[part], out=memory[: len(group[part])])
        parts.append(run(weight[part], index.repeat(len(own), 1), own, rule.of_rows(part), steps))
    return Course.joined(parts, 0)


def kept_systems(
    hessian: Tensor, mask: Tensor, max_bytes: int, order: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The Hessians of each row's kept weights; rows that keep about as many come together.

    Yields the rows ``[n]``, their kept columns ``[n, k]`` (in the group's ``order [groups, d]``, or as they stand),
    where these only fill up a shorter row (bool ``[n, k]``), and the Hessians ``[n, k, k]``, in which what fills up has
    unit curvature and is tied to nothing. Rows that keep nothing do not come.
    """
    group = torch.arange(len(mask), device=mask.device) // (len(mask) // len(hessian))
    count = mask.sum(1)
    left = count.argsort(descending=True)
    while len(left) and (size := int(count[left[0]])):
        rows, left = left.tensor_split([max(1, max_bytes // (3 * size * size * hessian.element_size()))])
        own = mask[rows] if order is None else mask[rows].gather(1, order[group[rows]])
        places = own.int().argsort(dim=1, descending=True, stable=True)[:, :size]
        if order is not None:
            places = order[group[rows]].gather(1, places)
        padding = torch.arange(size, device=mask.device) >= count[rows][:, None]
        systems = hessian[group[rows][:, None, None], places[:, :, None], places[:, None, :]]
        systems = systems.masked_fill_(padding[:, :, None] | padding[:, None, :], 0.0)
        systems.diagonal(dim1=1, dim2=2).add_(padding)
        yield rows, places, padding, systems


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

    This is where ExactOBS ends, whatever the order in which the weights left. On the CPU each thread holds one row's
    system; elsewhere as many rows are solved for together as ``max_bytes`` hold.

    Raises:
        HessianError: a Hessian is not positive definite on the mask.
    """
    return _of_kept(weight, hessian, mask, max_bytes, judged=False)


def saliencies(weight: Tensor, hessian: Tensor, mask: Tensor, max_bytes: int = 2**30) -> Tensor:
    """Twice the loss of removing one more weight of the optimal ones on a mask: ``w_j^2 / [H_KK^-1]_jj``.

    ``[rows, d]``, zero off the mask. OBS's saliencies, of each row in the Hessian of what it has left.

    Raises:
        HessianError: a Hessian is not positive definite on the mask.
    """
    return _of_kept(weight, hessian, mask, max_bytes, judged=True)


def _of_kept(weight: Tensor, hessian: Tensor, mask: Tensor, max_bytes: int, *, judged: bool) -> Tensor:
    """The optimal weights on a mask, or what each of them is worth: ``[rows, d]``."""
    groups, columns = len(hessian), weight.shape[1]
    target = torch.einsum("grd,gde->gre", weight.view(groups, -1, columns), hessian).reshape(weight.shape)
    result = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    solve = _solve_one_by_one if compiled(weight) else partial(_solve_together, max_bytes=max_bytes)
    if not solve(hessian, mask, target, result, judged=judged):
        raise HessianError("the Hessian is singular on the mask: raise `damping`, or use more calibration samples")
    return result


def _solve_one_by_one(hessian: Tensor, mask: Tensor, target: Tensor, result: Tensor, *, judged: bool) -> bool:
    """Solve for the kept weights of each row, compiled; False where a Hessian is not positive definite."""
    kernels: Any = import_module("compressors.second_order.kernels")  # both are compiled at their first use
    systems: Any = import_module("compressors.second_order.systems")
    solve = systems.judge_kept if judged else systems.solve_kept
    with kernels.threads(torch.get_num_threads()):
        given = (tensor.contiguous().numpy() for tensor in (hessian, mask, target))
        solved = solve(*given, result.numpy())
    return bool(solved.all())


def _solve_together(
    hessian: Tensor, mask: Tensor, target: Tensor, result: Tensor, max_bytes: int, *, judged: bool
) -> bool:
    """The same as tensor operations, for devices that take many rows at once."""
    for part, places, padding, systems in kept_systems(hessian, mask, max_bytes):
        right = target[part].gather(1, places).masked_fill(padding, 0.0)[:, :, None]
        factor, failed = torch.linalg.cholesky_ex(systems)
        if failed.any():
            return False
        solved = torch.cholesky_solve(right, factor)[:, :, 0]
        if judged:
            solved = solved.square() / torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
        result[part] = result[part].scatter_(1, places, solved.masked_fill(padding, 0.0))
    return True


def layer_loss(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """``1/2 tr(D H D^T)`` with ``D = after - before``: the squared output error that the change causes."""
    delta = (after - before).view(len(hessian), -1, before.shape[1])
    return float(torch.einsum("grd,gde,gre->", delta, hessian, delta)) / 2
