"""The loop of an elimination: fix the weights of many rows one after the other, and keep every row's inverse current.

The textbook step (Frantar, Singh, Alistarh, arXiv 2208.11580, section 4) fixes the weight ``p`` of least loss
``(w_p - t_p)^2 / (2 [H^-1]_pp)`` at its target ``t_p`` (0, or the nearest level of a grid), lets the others make up
for it, and drops ``p`` from ``H^-1`` by a rank-one update ``H^-1 - u u^T`` of the whole matrix, which is bound by
memory traffic. But to choose and to fix, a step reads the diagonal, the weights and its own column of the matrix only.
So for :data:`LAZY_STEPS` steps these alone are kept current, by the ``u`` of the steps before; then the matrix is
shrunk to the weights that are left and takes all these updates as one matrix product (``2 d^3 / 3`` operations a row
from the first weight to the last).

The steps between two shrinkings are done twice here: by the compiled loops of
:mod:`compressors.second_order.kernels` on the CPU, and by tensor operations over all rows elsewhere.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressors.threads import threads

LAZY_STEPS = 64  # weights fixed between two updates of the inverses


@dataclass(frozen=True)
class Rule:
    """What the steps of an elimination may fix, and at which values.

    Args:
        scale, zero: step and zero point of each row's grid, ``[rows]``; a scale of 0 stands for the one level 0: the
            weight is pruned.
        max_code: the largest code of a grid; 0 where weights are pruned.
        max_fixed: of an N:M pattern: at most so many of ``group_size`` neighbouring columns are fixed; 0 is no limit.
        group_size: columns of an N:M group.
        batch: steps between two looks at the losses; 1 is exact.
        width: neighbouring columns that leave together, as a block: the one whose loss as a whole is least.
    """

    scale: Tensor
    zero: Tensor
    max_code: int = 0
    max_fixed: int = 0
    group_size: int = 1
    batch: int = 1
    width: int = 1

    @classmethod
    def pruning(
        cls, weight: Tensor, *, max_fixed: int = 0, group_size: int = 1, batch: int = 1, width: int = 1
    ) -> "Rule":
        """Every weight that is fixed becomes 0; for a weight ``[rows, d]``."""
        zeros = weight.new_zeros(len(weight))
        return cls(zeros, zeros, max_fixed=max_fixed, group_size=group_size, batch=batch, width=width)

    def of_rows(self, rows: slice | Tensor) -> "Rule":
        """The rule of some of the rows."""
        return replace(self, scale=self.scale[rows], zero=self.zero[rows])

    def nearest(self, weight: Tensor) -> Tensor:
        """The level next to each weight ``[rows, size]``."""
        if not self.max_code:
            return torch.zeros_like(weight)
        scale, zero = self.scale[:, None], self.zero[:, None]
        codes = (weight / scale).round_().add_(zero).clamp_(0, self.max_code)
        return codes.sub_(zero).mul_(scale).masked_fill_(scale == 0, 0.0)


@dataclass(frozen=True)
class EliminationTrace:
    """What each step of an elimination fixed, at which loss, and at which value; all ``[rows, steps]``.

    Args:
        order: int64, the column that each step fixed (of blocks: the block's number).
        losses: float64, what the step added to the row's loss.
        values: what the weight was fixed at, in the weights' dtype.
    """

    order: Tensor
    losses: Tensor
    values: Tensor

    @classmethod
    def joined(cls, parts: list["EliminationTrace"], dim: int) -> "EliminationTrace":
        """Later steps of the same rows (``dim`` 1), or the same steps of other rows (``dim`` 0), put together."""
        fields = zip(*((part.order, part.losses, part.values) for part in parts), strict=True)
        return cls(*(torch.cat(field, dim) for field in fields))


@dataclass
class _Rows:
    """Rows in the middle of their elimination, shrunk to the ``size`` weights that were left at the last update."""

    weight: Tensor  # [rows, size]
    free: Tensor  # [rows, size]: 1 where the weight is not fixed yet
    index: Tensor  # [rows, size] int64: the column that each place stands for
    buffer: Tensor  # [rows, >= size * size]: begins with the inverse Hessian of what is left, line by line
    counts: Tensor  # [rows, N:M groups] int64: how many of each group are fixed

    @property
    def inverse(self) -> Tensor:
        """``H^-1`` of each row, ``[rows, size, size]``: a view of the buffer."""
        rows, size = self.weight.shape
        return self.buffer.as_strided((rows, size, size), (self.buffer.stride(0), size, 1))


def fix_weights(weight: Tensor, index: Tensor, inverses: Tensor, rule: Rule, steps: int) -> EliminationTrace:
    """Fix ``steps`` weights of every row (for a rule with a width: blocks), always the one whose loss is least.

    Args:
        weight: ``[rows, size]``.
        index: ``[rows, size]`` int64, the column that each weight stands in; all columns, for a rule of an N:M pattern.
        inverses: ``[rows, size * size]``, the inverse Hessian of each row; overwritten.
        rule: what may be fixed.
        steps: at most as many as the rule allows.
    """
    groups = -(-weight.shape[1] // rule.group_size) if rule.max_fixed else 1
    counts = index.new_zeros(len(weight), groups)
    if weight.shape[1] % rule.group_size:  # the last group is smaller, and may lose as many fewer
        counts[:, -1] = min(rule.max_fixed, rule.group_size - weight.shape[1] % rule.group_size)
    rows = _Rows(weight.clone(), torch.ones_like(weight), index, inverses, counts)
    parts: list[EliminationTrace] = []
    lazy_steps = rule.batch * max(1, LAZY_STEPS // (rule.width * rule.batch))  # whole batches of whole blocks
    done = 0
    while done < steps:
        now = min(lazy_steps, steps - done)
        done += now
        trace, updates = _steps_compiled(rows, rule, now) if compiled(weight) else _steps_as_tensors(rows, rule, now)
        parts.append(trace)
        if done < steps:
            _shrink(rows, updates)
    return EliminationTrace.joined(parts, 1)


def compiled(tensor: Tensor) -> bool:
    """Whether the compiled loops can work on it."""
    return tensor.device.type == "cpu"


def _steps_compiled(rows: _Rows, rule: Rule, steps: int) -> tuple[EliminationTrace, Tensor]:
    """Take ``steps`` steps in every row; also gives their updates ``u [rows, steps * width, size]``."""
    from compressors.second_order import kernels

    updates = rows.weight.new_empty(len(rows.weight), steps * rule.width, rows.weight.shape[1])
    pivots, losses = rows.index.new_empty(len(rows.index), steps), rows.weight.new_empty(len(rows.weight), steps)
    values = torch.zeros_like(losses)
    weight, free, inverses = rows.weight.numpy(), rows.free.numpy(), rows.buffer.numpy()
    with threads(torch.get_num_threads()):
        if rule.width > 1:
            kernels.prune_blocks(weight, free, inverses, updates.numpy(), rule.width, pivots.numpy(), losses.numpy())
            order = rows.index[:, :: rule.width].gather(1, pivots) // rule.width
            return EliminationTrace(order, losses.double(), values), updates
        levels = (rule.scale.numpy(), rule.zero.numpy(), rule.max_code)
        quota = (rule.max_fixed, rule.group_size, rows.counts.numpy())
        written = (pivots.numpy(), losses.numpy(), values.numpy())
        index = rows.index.numpy()
        kernels.fix_singly(weight, free, index, inverses, updates.numpy(), levels, quota, rule.batch, *written)
    return EliminationTrace(rows.index.gather(1, pivots), losses.double(), values), updates


def _steps_as_tensors(rows: _Rows, rule: Rule, steps: int) -> tuple[EliminationTrace, Tensor]:
    """:func:`_steps_compiled` as tensor operations, for devices that take many rows at once; a width of 1 only."""
    weight, free, inverse = rows.weight, rows.free, rows.inverse
    updates = weight.new_empty(len(weight), steps, weight.shape[1])
    every = torch.arange(len(weight), device=weight.device)
    diagonal = inverse.diagonal(dim1=1, dim2=2).clone()
    fixed: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(steps):
        if step % rule.batch == 0:
            score, outlier = _scores(rows, rule, diagonal)
        pivot = score.argmin(dim=1)
        if outlier is not None:
            far = (outlier >= 0) & (weight[every, pivot] != 0)
            pivot = torch.where(far, outlier, pivot)
        target = rule.nearest(weight)[every, pivot]
        fixed.append((pivot, score[every, pivot] / 2, target))
        score[every, pivot] = torch.inf
        if rule.max_fixed:
            rows.counts[every, rows.index[every, pivot] // rule.group_size] += 1
        column = inverse[every, pivot]
        if step:
            earlier = updates[:, :step]
            column = column.unsqueeze(1).baddbmm(earlier[every, :, pivot].unsqueeze(1), earlier, alpha=-1).squeeze(1)
        root = column[every, pivot].sqrt()
        column = column / root[:, None] * free
        weight.addcmul_(column, ((weight[every, pivot] - target) / root)[:, None], value=-1)
        free[every, pivot] = 0
        weight[every, pivot] = 0
        diagonal.addcmul_(column, column, value=-1)
        updates[:, step] = column
    pivots, losses, values = (torch.stack(field, 1) for field in zip(*fixed, strict=True))
    return EliminationTrace(rows.index.gather(1, pivots), losses.double(), values), updates


def _scores(rows: _Rows, rule: Rule, diagonal: Tensor) -> tuple[Tensor, Tensor | None]:
    """Twice the loss of fixing each weight, infinite where the rule forbids it; and each row's outlier or -1.

    OBQ's outlier rule: a weight farther from its level than half a step, whose level is clamped, is fixed before it
    drifts farther.
    """
    error = (rows.weight - rule.nearest(rows.weight)).square().masked_fill(rows.free == 0, 0.0)
    score = (error / diagonal).masked_fill(rows.free == 0, torch.inf)
    if rule.max_fixed:
        full = rows.counts.gather(1, rows.index // rule.group_size) >= rule.max_fixed
        score = score.masked_fill(full, torch.inf)
    if not rule.max_code:
        return score, None
    farthest, place = error.max(dim=1)
    return score, torch.where(farthest > (rule.scale / 2).square() * (1 + 1e-9), place, -1)


def _shrink(rows: _Rows, updates: Tensor) -> None:
    """Drop what is fixed from the rows, and subtract the updates ``u [rows, n, size]`` from the rest of ``H^-1``."""
    size = rows.weight.shape[1]
    keep = rows.free.nonzero()[:, 1].view(len(rows.weight), -1)
    left = keep.shape[1]
    if compiled(rows.weight):
        from compressors.second_order import kernels

        with threads(torch.get_num_threads()):
            kernels.compact(rows.buffer.numpy(), size, keep.numpy())
    else:
        kept_lines = rows.inverse.gather(1, keep[:, :, None].expand(-1, -1, size))
        rows.buffer = kept_lines.gather(2, keep[:, None, :].expand(-1, left, -1)).flatten(1)
    rows.weight, rows.free, rows.index = (x.gather(1, keep) for x in (rows.weight, rows.free, rows.index))
    updates = updates.gather(2, keep[:, None, :].expand(-1, updates.shape[1], -1))
    rows.inverse.baddbmm_(updates.mT, updates, alpha=-1)
