"""The exact second-order solver: Optimal Brain Surgeon on linear layers, as pure functions of tensors.

A layer maps inputs ``x`` to ``W x``; removing weights changes ``W`` by ``D`` and costs ``1/2 tr(D H D^T)``, where
``H = 2 E[x x^T]`` is the Hessian of the squared output error. ``H`` is the same for all rows (output units) of a
group, so every row is a problem of its own. ExactOBS (Frantar, Singh, Alistarh, "Optimal Brain Compression",
arXiv 2208.11580, section 4) solves it greedily: remove the weight whose loss ``w_p^2 / (2 [H^-1]_pp)`` is least,
let the others make up for it, and drop the removed index from ``H^-1``.

The steps, in order:

1. :func:`damped`: the Hessian is made positive definite.
2. :func:`eliminate`: every weight of every row is removed, and the order and the losses are taken down. Each row begins
   with the :func:`inverse` of its group's Hessian; :func:`_in_chunks` hands the rows, as many as working memory holds,
   to :func:`compressors.second_order.elimination.fix_weights`, whose loops over single weights are compiled on the CPU
   (:func:`compressors.second_order.kernels.fix_singly`). One elimination serves every density.
3. :func:`steps_per_row`, :func:`mask_after`: the steps of least loss in the whole layer are taken, and give the mask.
4. :func:`least_squares`: the best weights on that mask, one linear system a row
   (:func:`compressors.second_order.kernels.solve_kept`).
5. :func:`quantize`: what is left is rounded, by the same elimination with levels of a grid in place of zeros.

:func:`eliminate_blocks` and :func:`mask_of_pattern` take the place of steps 2 and 3 for blocks and N:M patterns. On
other devices than the CPU, tensor operations over many rows take the place of the compiled loops.

Shapes: ``weight [rows, d]``; ``hessian [groups, d, d]``, where row ``r`` belongs to group ``r // (rows / groups)``
(one group but for grouped convolutions).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressors.quantization.grids import Grid
from compressors.second_order.elimination import EliminationTrace, Rule, compiled, fix_weights
from compressors.threads import threads

MAX_BYTES = 2**27  # of working memory: more would leave the processor's caches, and save no time

SINGULAR = "the Hessian is singular: raise `damping`, or use more calibration samples than inputs"
SINGULAR_ON_MASK = "the Hessian is singular on the mask: raise `damping`, or use more calibration samples"


class HessianError(ValueError):
    """A Hessian that cannot be used: not finite, empty, or singular in spite of its damping."""

    exit_status = 2


def damped(hessian: Tensor, damping: float) -> Tensor:
    """``H + damping * mean(diag H) * I`` for each group: ``[groups, d, d]``.

    Inputs that were never active get curvature from the damping alone, so their weights cost what it charges and no
    more, and no other weight makes up for them. Those that get none (:func:`without_curvature`) have 1 on the diagonal:
    whoever sets their weights to zero can go on, as the published code of OBC does.

    Raises:
        HessianError: a group has entries that are not finite.
    """
    if not torch.isfinite(hessian).all():
        raise HessianError(
            "the Hessian has NaN or infinite entries: check the calibration data and the network's weights"
        )
    scale = hessian.diagonal(dim1=-2, dim2=-1).mean(-1)
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    result = hessian + damping * scale[:, None, None] * identity
    result.diagonal(dim1=1, dim2=2)[without_curvature(hessian, damping)] = 1.0
    return result


def without_curvature(hessian: Tensor, damping: float) -> Tensor:
    """The inputs that were never active and that no damping gives curvature to: bool ``[groups, d]``.

    They are those never active where ``damping`` is 0, and all inputs of a group of which none was.
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    return diagonal + damping * diagonal.mean(-1, keepdim=True) == 0


def inverse(hessian: Tensor) -> Tensor:
    """The inverse of each group's Hessian by Cholesky: ``[groups, d, d]``.

    Raises:
        HessianError: a Hessian is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed.any():
        raise HessianError(SINGULAR)
    return torch.cholesky_inverse(factor)


def eliminate(weight: Tensor, hessian: Tensor, *, batch: int = 1, max_bytes: int = MAX_BYTES) -> EliminationTrace:
    """ExactOBS: remove every weight of every row, one at a time, always the one that costs least.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[groups, d, d]``, positive definite; see :func:`damped`.
        batch: steps between two looks at the losses. 1 is exact; SBC's public code takes several weights at once.
        max_bytes: bound on the working memory; rows are worked on in chunks that keep to it, one row at least.

    Returns:
        The order in which each row's weights leave and the losses of the steps, all ``[rows, d]``.

    Raises:
        HessianError: see :func:`inverse`.
    """
    return _in_chunks(weight, hessian, Rule.pruning(weight, batch=batch), weight.shape[1], max_bytes)


def eliminate_blocks(weight: Tensor, hessian: Tensor, width: int, *, max_bytes: int = MAX_BYTES) -> EliminationTrace:
    """As :func:`eliminate`, but ``width`` neighbouring columns leave together: OBC's block sparsity (section 4).

    The loss of a block ``B`` is ``1/2 w_B^T (H^-1[B, B])^-1 w_B``. Where the columns are no whole number of blocks, the
    last one is smaller. A step is one of a block: the trace is ``[rows, ceil(d / width)]``. Always on the CPU.

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

    A group that has lost ``of - kept`` loses no more (OBC, section 4). Where the columns are no whole number of groups,
    the last one is smaller, and keeps as many or all it has.

    Raises:
        HessianError: see :func:`inverse`.
    """
    columns = weight.shape[1]
    steps = columns // of * (of - kept) + max(0, columns % of - kept)
    rule = Rule.pruning(weight, max_fixed=of - kept, group_size=of)
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
    scale, zero = (tensor.expand(rows, 1)[:, 0].contiguous() for tensor in (grid.scale, grid.zero))
    rule = Rule(scale, zero, max_code=2**grid.bits - 1)
    if mask is None or bool(mask.all()):
        trace = _in_chunks(weight, hessian, rule, weight.shape[1], max_bytes)
        return torch.zeros_like(weight).scatter_(1, trace.order, trace.values)
    result = torch.zeros_like(weight)
    for part, places, _, systems in kept_systems(hessian, mask, max_bytes):
        inverses = inverse(systems).flatten(1)
        kept = weight[part].gather(1, places)
        trace = fix_weights(kept, places, inverses, rule.of_rows(part), places.shape[1])
        result[part] = torch.zeros_like(weight[part]).scatter_(1, trace.order, trace.values)
    return result


def _in_chunks(weight: Tensor, hessian: Tensor, rule: Rule, steps: int, max_bytes: int) -> EliminationTrace:
    """Fix ``steps`` weights of every row. Each row needs an inverse Hessian of its own, ``[d, d]``.

    So the rows are worked on in chunks, as large as ``max_bytes`` of inverses allow; one row at least.
    """
    rows, columns = weight.shape
    inverses = inverse(hessian).flatten(1)
    group = torch.arange(rows, device=weight.device) // (rows // len(hessian))
    chunk = min(rows, max(1, max_bytes // (columns * columns * weight.element_size())))
    buffer = weight.new_empty(chunk, columns * columns)
    index = torch.arange(columns, device=weight.device)
    parts = []
    for start in range(0, rows, chunk):
        part = slice(start, min(rows, start + chunk))
        own = torch.index_select(inverses, 0, group[part], out=buffer[: len(group[part])])
        parts.append(fix_weights(weight[part], index.repeat(len(own), 1), own, rule.of_rows(part), steps))
    return EliminationTrace.joined(parts, 0)


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
    if compiled(weight):
        from compressors.second_order import kernels

        return _row_by_row(kernels.solve_kept, weight, hessian, mask)
    return _rows_together(lambda solution, factor: solution, weight, hessian, mask, max_bytes)


def saliencies(weight: Tensor, hessian: Tensor, mask: Tensor, max_bytes: int = 2**30) -> Tensor:
    """Twice the loss of removing one more weight of the optimal ones on a mask: ``w_j^2 / [H_KK^-1]_jj``.

    ``[rows, d]``, zero off the mask. OBS's saliencies, of each row in the Hessian of what it has left.

    Raises:
        HessianError: a Hessian is not positive definite on the mask.
    """
    if compiled(weight):
        from compressors.second_order import kernels

        return _row_by_row(kernels.saliencies_of_kept, weight, hessian, mask)
    return _rows_together(_squares_over_variances, weight, hessian, mask, max_bytes)


def _squares_over_variances(solution: Tensor, factor: Tensor) -> Tensor:
    """``w_j^2 / [H^-1]_jj`` from ``w [n, k]`` and the Cholesky factors of ``H`` ``[n, k, k]``: ``[n, k]``."""
    return solution.square() / torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)


def _row_by_row(kernel: Callable[..., Any], weight: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    """What a compiled kernel makes of the system of each row's kept weights: ``[rows, d]``, zero off the mask."""
    target = _right_sides(weight, hessian)
    result = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    arrays = [tensor.contiguous().numpy() for tensor in (hessian, mask, target)]
    with threads(torch.get_num_threads()):
        solved = kernel(*arrays, result.numpy())
    if not solved.all():
        raise HessianError(SINGULAR_ON_MASK)
    return result


def _rows_together(
    finish: Callable[[Tensor, Tensor], Tensor], weight: Tensor, hessian: Tensor, mask: Tensor, max_bytes: int
) -> Tensor:
    """The same as tensor operations, for devices that take many rows at once.

    ``finish`` makes the result of the solutions ``[n, k]`` of ``n`` rows and their Cholesky factors ``[n, k, k]``.
    """
    target = _right_sides(weight, hessian)
    result = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    for part, places, padding, systems in kept_systems(hessian, mask, max_bytes):
        right = target[part].gather(1, places).masked_fill(padding, 0.0)[:, :, None]
        factor, failed = torch.linalg.cholesky_ex(systems)
        if failed.any():
            raise HessianError(SINGULAR_ON_MASK)
        values = finish(torch.cholesky_solve(right, factor)[:, :, 0], factor)
        result[part] = result[part].scatter_(1, places, values.masked_fill(padding, 0.0))
    return result


def _right_sides(weight: Tensor, hessian: Tensor) -> Tensor:
    """``W H``, row by row with the Hessian of its group: ``[rows, d]``."""
    rows = weight.view(len(hessian), -1, weight.shape[1])
    return torch.einsum("grd,gde->gre", rows, hessian).reshape(weight.shape)


def layer_loss(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """``1/2 tr(D H D^T)`` with ``D = after - before``: the squared output error that the change causes."""
    delta = (after - before).view(len(hessian), -1, before.shape[1])
    return float(torch.einsum("grd,gde,gre->", delta, hessian, delta)) / 2
