"""Slow, plain versions of what the package does cleverly, and random problems to compare them on."""

import torch
from torch import Tensor

from compressors.obs import Elimination


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


def eliminate_one_by_one(weight: Tensor, hessian: Tensor) -> Elimination:
    """ExactOBS by the book: after each removal the whole inverse is updated (Frantar and others, eq. 4)."""
    rows, columns = weight.shape
    weight = weight.clone()
    inverse = torch.linalg.inv(hessian).repeat_interleave(rows // len(hessian), dim=0)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    every = torch.arange(rows)
    order, losses = [], []
    for _ in range(columns):
        saliency = (weight.square() / inverse.diagonal(dim1=1, dim2=2)).masked_fill(gone, torch.inf)
        loss, pivot = saliency.min(dim=1)
        column = inverse[every, pivot]
        scaled = column / column[every, pivot][:, None]
        weight -= scaled * weight[every, pivot][:, None]
        inverse -= scaled[:, :, None] * column[:, None, :]
        inverse[every, pivot, pivot] = 1.0
        gone[every, pivot] = True
        weight[gone] = 0.0
        order.append(pivot)
        losses.append(loss / 2)
    return Elimination(torch.stack(order, 1), torch.stack(losses, 1))
