"""Masks of weights (bool, True is kept), and how they hold while a network is trained."""

from collections.abc import Mapping

import torch
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
