"""Slow, plain versions of what the package does cleverly, and random problems to compare them on."""

import torch
from torch import Tensor

from compressors.second_order.elimination import EliminationTrace
from compressors.second_order.problem import Problem


def random_problem(
    rows: int, columns: int, groups: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """A weight ``[rows, d]`` and well-conditioned Hessians ``[groups, d, d]`` of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype)
    mixing = torch.randn(groups, columns, columns, generator=generator, dtype=dtype) / columns**0.5
    inputs = torch.randn(groups, 3 * columns, columns, generator=generator, dtype=dtype)
    inputs = inputs @ (torch.eye(columns, dtype=dtype) + mixing)
    return weight, 2 * inputs.mT @ inputs / inputs.shape[1] + 0.01 * torch.eye(columns, dtype=dtype)


def layer_problem(rows: int = 6, columns: int = 40, seed: int = 0) -> Problem:
    """A random problem whose rows have different factors of BatchNorm."""
    weight, hessian = random_problem(rows, columns, seed=seed)
    factor = torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    return Problem.of(weight, hessian, factor, damping=0.0)


def eliminate_one_by_one(weight: Tensor, hessian: Tensor, batch: int = 1) -> EliminationTrace:
    """ExactOBS by the book: after each removal the whole inverse is updated (Frantar and others, eq. 4)."""
    return fix_one_by_one(weight, hessian, lambda row, w: torch.zeros_like(w), weight.shape[1], batch=batch)


def fix_one_by_one(weight, hessian, nearest, steps, *, step_size=None, quota=None, batch=1) -> EliminationTrace:
    """Row by row, weight by weight: fix the one of least loss at ``nearest(row, weights)``, and update everything.

    ``step_size [rows]`` switches on OBQ's outlier rule; ``quota`` is (how many, of how many neighbours) may be fixed.
    """
    rows, columns = weight.shape
    order, losses, values = [], [], []
    for row in range(rows):
        w, inverse = weight[row].clone(), torch.linalg.inv(hessian[row // (rows // len(hessian))])
        free = torch.ones(columns, dtype=torch.bool)
        trace = []
        for step in range(steps):
            error = w - nearest(row, w)
            if step % batch == 0:
                score = (error.square() / inverse.diagonal()).masked_fill(~free, torch.inf)
                if quota:
                    most, of = quota
                    fixed = torch.zeros(-(-columns // of), dtype=torch.int64)
                    fixed.index_add_(0, torch.arange(columns) // of, (~free).long())
                    size = torch.bincount(torch.arange(columns) // of)
                    full = fixed >= (most - (of - size)).clamp(min=0)
                    score = score.masked_fill(full[torch.arange(columns) // of], torch.inf)
            pivot = int(score.argmin())
            if step_size is not None and w[pivot] != 0:
                far = error.abs().masked_fill(~free, 0.0)
                if far.max() > step_size[row] / 2 * (1 + 1e-9):
                    pivot = int(far.argmax())
            target = nearest(row, w)[pivot]
            trace.append((pivot, float(score[pivot]) / 2, float(target)))
            column = inverse[pivot] / inverse[pivot, pivot].sqrt()
            w = w - column * (w[pivot] - target) / column[pivot]
            inverse = inverse - torch.outer(column, column)
            inverse[pivot, pivot] = 1.0
            free[pivot] = False
            w[~free] = 0.0
            score[pivot] = torch.inf
        pivots, loss, value = zip(*trace, strict=True)
        order.append(pivots)
        losses.append(loss)
        values.append(value)
    return EliminationTrace(
        torch.tensor(order), torch.tensor(losses, dtype=torch.float64), torch.tensor(values).to(weight)
    )


def prune_blocks_one_by_one(weight: Tensor, hessian: Tensor, width: int) -> EliminationTrace:
    """Block pruning by the book: ``w_B^T (H^-1[B, B])^-1 w_B`` of every group anew after every removal."""
    rows, columns = weight.shape
    order, losses = [], []
    for row in range(rows):
        w, inverse = weight[row].clone(), torch.linalg.inv(hessian[row // (rows // len(hessian))])
        left = set(range(columns // width))
        trace = []
        while left:
            scores = {}
            for group in left:
                place = slice(group * width, (group + 1) * width)
                scores[group] = float(w[place] @ torch.linalg.solve(inverse[place, place], w[place]))
            group = min(scores, key=scores.__getitem__)
            place = slice(group * width, (group + 1) * width)
            reach = inverse[:, place] @ torch.linalg.inv(inverse[place, place])
            w, inverse = w - reach @ w[place], inverse - reach @ inverse[place]
            inverse[place, place] += torch.eye(width, dtype=w.dtype)
            left.remove(group)
            trace.append((group, scores[group] / 2))
        groups, loss = zip(*trace, strict=True)
        order.append(groups)
        losses.append(loss)
    return EliminationTrace(
        torch.tensor(order), torch.tensor(losses, dtype=torch.float64), torch.zeros(rows, columns // width)
    )
