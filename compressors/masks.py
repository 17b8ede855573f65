"""Masks of weights: True is kept."""

import torch
from torch import Tensor


def largest(scores: Tensor, keep: int) -> Tensor:
    """A bool mask of the ``keep`` largest scores; of equal ones the first."""
    chosen = scores.flatten().argsort(descending=True, stable=True)[:keep]
    return (
        torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device).index_fill_(0, chosen, True).view_as(scores)
    )
