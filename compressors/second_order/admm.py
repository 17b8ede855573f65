"""ALPS: a layer's mask by the alternating direction method of multipliers, as pure functions of tensors.

Meng and others, "ALPS" (arXiv 2406.07831). Exact elimination takes ``2 d^3 / 3`` operations a row; here one
eigendecomposition of the Hessian, ``9 d^3`` or so, serves all rows and all steps, and a step is three products of a
``[rows, d]`` with a ``[d, d]``.

The layer's problem, to change ``W`` to the ``B`` with at most k entries that costs ``1/2 tr((B - W) H (B - W)^T)``
least, is split into two that are easy: ``B`` is free but has to cost little, ``D`` has k entries, and a multiplier
``V`` drives them together. With the penalty rho, a step is

    B = (W H - V + rho D) (H + rho I)^-1
    D = the k largest entries of B + V / rho
    V = V + rho (B - D)

and rho grows until the entries of D stay where they are. Before, inputs are scaled so that the Hessian has ones on
its diagonal: entries are compared by what they do.
"""

from collections.abc import Callable

import torch
from torch import Tensor

FIRST_PENALTY = 0.1
GROW_EVERY = 3
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""Where more than such a share of the entries moved since the last look, rho is multiplied by the number behind it."""

MAX_STEPS = 300

Project = Callable[[Tensor], Tensor]
"""Scores ``[rows, d]`` -> the bool mask ``[rows, d]`` of the largest ones that a pattern admits."""


def admm_mask(weight: Tensor, hessian: Tensor, project: Project) -> Tensor:
    """The mask on which the method of multipliers comes to rest: bool ``[rows, d]``, True is kept.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[groups, d, d]``, positive definite; see :func:`~compressors.second_order.obs.damped`.
        project: which entries may stay.
    """
    groups, columns = len(hessian), weight.shape[1]
    unit = hessian.diagonal(dim1=1, dim2=2).sqrt()
    hessian = hessian / (unit[:, :, None] * unit[:, None, :])
    weight = weight.view(groups, -1, columns) * unit[:, None]
    values, vectors = torch.linalg.eigh(hessian)

    def kept(scores: Tensor) -> Tensor:
        return project(scores.view(-1, columns)).view_as(scores)

    target, penalty = weight @ hessian, FIRST_PENALTY
    free, dual = weight, torch.zeros_like(weight)
    mask = seen = kept(weight.abs())
    sparse = weight * mask
    for step in range(1, MAX_STEPS + 1):
        free = (target - dual + penalty * sparse) @ vectors / (values + penalty)[:, None] @ vectors.mT
        pulled = free + dual / penalty
        mask = kept(pulled.abs())
        sparse = pulled * mask
        dual = dual + penalty * (free - sparse)
        if step % GROW_EVERY == 0:
            moved = float((mask ^ seen).sum()) / max(1, int(mask.sum()))
            if moved == 0:
                break
            penalty *= next(factor for share, factor in GROWTH if moved > share)
            seen = mask
    return mask.view(-1, columns)


def least_squares_by_gradients(weight: Tensor, hessian: Tensor, mask: Tensor, steps: int = 30) -> Tensor:
    """The best weights on a mask, nearly: conjugate gradients for all rows at once (``[rows, d]``, zero off the mask).

    For layers where a linear system a row (:func:`~compressors.second_order.obs.least_squares`) takes too long: a step
    is one product with the Hessian. Scaled by the Hessian's diagonal, as ALPS does.
    """
    groups, columns = len(hessian), weight.shape[1]
    rows, mask = weight.view(groups, -1, columns), mask.view(groups, -1, columns)
    scale = hessian.diagonal(dim1=1, dim2=2)[:, None].reciprocal()
    solution = rows * mask
    residual = ((rows - solution) @ hessian) * mask
    direction = scaled = residual * scale
    size = (residual * scaled).sum(-1, keepdim=True)
    for _ in range(steps):
        product = (direction @ hessian) * mask
        length = size / (direction * product).sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        solution = solution + length * direction
        residual = residual - length * product
        scaled = residual * scale
        size, before = (residual * scaled).sum(-1, keepdim=True), size
        direction = scaled + size / before.clamp_min(torch.finfo(weight.dtype).tiny) * direction
    return solution.view_as(weight)
