"""Masks of weights (bool, True is kept), and how they hold while a network is trained."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

Masks = Mapping[str, Tensor]
"""Layer name -> bool mask of its weight's shape."""


def largest(scores: Tensor, keep: int) -> Tensor:
    """A bool mask of the ``keep`` largest scores, of the scores' shape; of equal ones the first."""
    chosen = scores.flatten().argsort(descending=True, stable=True)[:keep]
    return (
        torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device).index_fill_(0, chosen, True).view_as(scores)
    )


def largest_of_groups(kept: int, of: int, scores: Tensor) -> Tensor:
    """A bool mask ``[rows, d]`` of the ``kept`` largest of every ``of`` neighbouring scores of a row.

    Where d is no multiple of ``of``, the last group is smaller, and keeps as many or all it has.
    """
    missing = -scores.shape[1] % of
    groups = F.pad(scores, (0, missing), value=-torch.inf).unflatten(1, (-1, of))
    rank = groups.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    return (rank < kept).flatten(1)[:, : scores.shape[1]]


def enforce(module: nn.Module, masks: Masks) -> None:
    """Set the pruned weights of a module to zero."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = module.get_parameter(f"{name}.weight")
            weight.mul_(mask.to(weight.device))


def mask_gradients(module: nn.Module, masks: Masks) -> None:
    """Set the gradients of pruned weights to zero."""
    for name, mask in masks.items():
        gradient = module.get_parameter(f"{name}.weight").grad
        if gradient is not None:
            gradient.mul_(mask.to(gradient.device))


def forget(module: nn.Module, masks: Masks, optimizer: Optimizer) -> None:
    """Set what an optimizer remembers of pruned weights to zero: momentum, Adam's moments."""
    for name, mask in masks.items():
        weight = module.get_parameter(f"{name}.weight")
        for moment in optimizer.state.get(weight, {}).values():
            if isinstance(moment, Tensor) and moment.shape == mask.shape:
                moment.mul_(mask.to(moment.device))
