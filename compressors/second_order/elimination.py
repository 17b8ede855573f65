"""The course of an elimination: fix the weights of many rows one after the other, with the updates put off in blocks.

The textbook step (Frantar, Singh, Alistarh, arXiv 2208.11580, section 4) fixes the weight ``p`` of least loss
``(w_p - t_p)^2 / (2 [H^-1]_pp)`` at its target ``t_p`` (0, or the next level of a grid), lets the others make up for
it, and drops ``p`` from ``H^-1`` by a rank-one update of the whole matrix, bound by memory traffic. The pivots
only need the diagonal, the weights and the pivots' own columns: inside a block these alone are kept current, and the
matrix, shrunk to what is left, takes the block's updates as one matrix product (2 d^3 / 3 operations a row in all).
"""

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

BLOCK = 64  # weights fixed between two updates of the matrices


@dataclass(frozen=True)
class Rule:
    """What the steps of an elimination may fix, and at which values.

    Args:
        scale, zero: levels of each row, ``[rows]``; a scale of 0 has the one level 0: the weight is pruned.
        top: the largest code of a level.
        most, of: at most ``most`` of any ``of`` neighbouring columns are fixed; 0 is no limit.
        batch: steps between two looks at the losses; 1 is exact.
        width: neighbouring columns that leave together, at least cost of the whole group.
    """

    scale: Tensor
    zero: Tensor
    top: int = 0
    most: int = 0
    of: int = 1
    batch: int = 1
    width: int = 1

    @classmethod
    def pruning(cls, rows: Tensor, *, most: int = 0, of: int = 1, batch: int = 1, width: int = 1) -> "Rule":
        """Every weight that is fixed becomes 0."""
        nothing = rows.new_zeros(len(rows))
        return cls(nothing, nothing, most=most, of=of, batch=batch, width=width)

    def of_rows(self, part: slice | Tensor) -> "Rule":
        """The rule of some of the rows."""
        return replace(self, scale=self.scale[part], zero=self.zero[part])

    def nearest(self, weight: Tensor) -> Tensor:
        """The level next to each weight ``[rows, size]``."""
        if not self.top:
            return torch.zeros_like(weight)
        scale, zero = self.scale[:, None], self.zero[:, None]
        codes = (weight / scale).round_().add_(zero).clamp_(0, self.top)
        return codes.sub_(zero).mul_(scale).masked_fill_(scale == 0, 0.0)


@dataclass(frozen=True)
class Course:
    """What was fixed, in which order: the columns (of a width above 1: the groups), the losses, the values.

    All ``[rows, steps]``: int64, float64, and the weights' dtype.
    """

    order: Tensor
    losses: Tensor
    values: Tensor

    @classmethod
    def joined(cls, parts: list["Course"], dim: int) -> "Course":
        """Courses one after the other (``dim`` 1), or of different rows (``dim`` 0)."""
        fields = zip(*((part.order, part.losses, part.values) for part in parts), strict=True)
        return cls(*(torch.cat(field, dim) for field in fields))


@dataclass
class _Block:
    """Rows in the course of their elimination. ``memory [rows, room]`` holds ``H^-1`` of what is left, row by row."""

    weight: Tensor  # [rows, size]
    alive: Tensor  # [rows, size]: 1 where the weight is not fixed yet
    index: Tensor  # [rows, size] int64: the column that each place stands for
    memory: Tensor
    counts: Tensor  # [rows, groups] int64: how many of each n:m group are fixed

    @property
    def inverse(self) -> Tensor:
        """``[rows, size, size]``, a view of the memory."""
        rows, size = self.weight.shape
        return self.memory.as_strided((rows, size, size), (self.memory.stride(0), size, 1))


def run(weight: Tensor, index: Tensor, memory: Tensor, rule: Rule, steps: int) -> Course:
    """Fix ``steps`` weights of every row (of a width above 1: groups).

    Args:
        weight: ``[rows, size]``.
        index: ``[rows, size]`` int64, the column that each weight stands in (all columns, for a rule of ``most``).
        memory: ``[rows, size * size]``, the inverse Hessian of each row; used up.
        rule: what may be fixed.
        steps: at most as many as the rule allows.
    """
    counts = index.new_zeros(len(weight), -(-weight.shape[1] // rule.of) if rule.most else 1)
    if weight.shape[1] % rule.of:  # the last group is smaller, and may lose as many fewer
        counts[:, -1] = min(rule.most, rule.of - weight.shape[1] % rule.of)
    block = _Block(weight.clone(), torch.ones_like(weight), index, memory, counts)
    parts: list[Course] = []
    unit = rule.width * rule.batch  # what belongs together stays together
    whole = rule.batch * max(1, BLOCK // unit)
    done = 0
    while done < steps:
        now = min(whole, steps - done)
        done += now
        course, past = _fix(block, rule, now)
        parts.append(course)
        if done < steps:
            _shrink(block, past)
    return Course.joined(parts, 1)


def compiled(tensor: Tensor) -> bool:
    """Whether the compiled loops can work on it."""
    return tensor.device.type == "cpu"


def _fix(block: _Block, rule: Rule, steps: int) -> tuple[Course, Tensor]:
    """Fix ``steps`` weights of every row; also gives the scaled pivot columns ``u [rows, steps * width, size]``.

    The inverse afterwards is ``inverse - u^T u``.
    """
    rows, size = block.weight.shape
    past = block.weight.new_empty(rows, steps * rule.width, size)
    if not compiled(block.weight):
        return _fix_with_tensors(block, rule, past)
    kernels: Any = import_module("compressors.second_order.kernels")  # compiled at their first use

    pivots, losses = block.index.new_empty(rows, steps), block.weight.new_empty(rows, steps)
    values = torch.zeros_like(losses)
    state = [tensor.numpy() for tensor in (block.weight, block.alive)]
    answer = [tensor.numpy() for tensor in (pivots, losses)]
    with kernels.threads(torch.get_num_threads()):
        if rule.width > 1:
            kernels.prune_groups(*state, block.memory.numpy(), past.numpy(), rule.width, *answer)
            columns = block.index[:, :: rule.width].gather(1, pivots) // rule.width
            return Course(columns, losses.double(), values), past
        kernels.fix_singly(
            *state,
            block.index.numpy(),
            block.memory.numpy(),
            past.numpy(),
            (rule.scale.numpy(), rule.zero.numpy(), rule.top),
            (rule.most, rule.of, block.counts.numpy()),
            rule.batch,
            *answer,
            values.numpy(),
        )
    return Course(block.index.gather(1, pivots), losses.double(), values), past


def _shrink(block: _Block, past: Tensor) -> None:
    """Drop what is fixed from the rows, and take the block's updates from what is left of the inverses."""
    rows, size = block.weight.shape
    keep = block.alive.nonzero()[:, 1].view(rows, -1)
    left = keep.shape[1]
    if not compiled(block.weight):
        kept_rows = block.inverse.gather(1, keep[:, :, None].expand(-1, -1, size))
        block.memory = kept_rows.gather(2, keep[:, None, :].expand(-1, left, -1)).flatten(1)
    else:
        kernels: Any = import_module("compressors.second_order.kernels")
        with kernels.threads(torch.get_num_threads()):
            kernels.compact(block.memory.numpy(), size, keep.numpy())
    block.weight, block.alive, block.index = (x.gather(1, keep) for x in (block.weight, block.alive, block.index))
    past = past.gather(2, keep[:, None, :].expand(-1, past.shape[1], -1))
    block.inverse.baddbmm_(past.mT, past, alpha=-1)


def _fix_with_tensors(block: _Block, rule: Rule, past: Tensor) -> tuple[Course, Tensor]:
    """:func:`_fix` as tensor operations, for devices that take many rows at once; a width of 1 only."""
    weight, alive, inverse = block.weight, block.alive, block.inverse
    rows, steps, _ = past.shape
    every = torch.arange(rows, device=weight.device)
    diagonal = inverse.diagonal(dim1=1, dim2=2).clone()
    fixed: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(steps):
        if step % rule.batch == 0:
            score, outlier = _scores(block, rule, diagonal)
        pivot = score.argmin(dim=1)
        if outlier is not None:
            far = (outlier >= 0) & (weight[every, pivot] != 0)
            pivot = torch.where(far, outlier, pivot)
        target = rule.nearest(weight)[every, pivot]
        fixed.append((pivot, score[every, pivot] / 2, target))
        score[every, pivot] = torch.inf
        if rule.most:
            block.counts[every, block.index[every, pivot] // rule.of] += 1
        column = inverse[every, pivot]
        if step:
            earlier = past[:, :step]
            column = column.unsqueeze(1).baddbmm(earlier[every, :, pivot].unsqueeze(1), earlier, alpha=-1).squeeze(1)
        root = column[every, pivot].sqrt()
        column = column / root[:, None] * alive
        weight.addcmul_(column, ((weight[every, pivot] - target) / root)[:, None], value=-1)
        alive[every, pivot] = 0
        weight[every, pivot] = 0
        diagonal.addcmul_(column, column, value=-1)
        past[:, step] = column
    pivots, losses, values = (torch.stack(field, 1) for field in zip(*fixed, strict=True))
    return Course(block.index.gather(1, pivots), losses.double(), values), past


def _scores(block: _Block, rule: Rule, diagonal: Tensor) -> tuple[Tensor, Tensor | None]:
    """Twice the loss of fixing each weight, infinite where the rule forbids it; and each row's outlier or -1.

    OBQ's outlier rule: a weight farther from its level than half a step, whose level is clamped, is fixed before it
    drifts farther.
    """
    error = (block.weight - rule.nearest(block.weight)).square().masked_fill(block.alive == 0, 0.0)
    score = (error / diagonal).masked_fill(block.alive == 0, torch.inf)
    if rule.most:
        full = block.counts.gather(1, block.index // rule.of) >= rule.most
        score = score.masked_fill(full, torch.inf)
    if not rule.top:
        return score, None
    farthest, place = error.max(dim=1)
    return score, torch.where(farthest > (rule.scale / 2).square() * (1 + 1e-9), place, -1)
