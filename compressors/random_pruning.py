"""Random pruning: what any density costs when nothing is known about the weights (control)."""

from typing import Any

import torch
from torch import Tensor

from compressors.layers import Layer
from compressors.pruning import Pruner, largest


class RandomPruning(Pruner):
    """Keeps weights drawn at random, each as likely as any other of its layer.

    Args:
        density: share of weights to keep.
        seed: seed of the draw.
        **pruning: see :class:`~compressors.pruning.Pruner`.
    """

    control = True

    def __init__(self, density: float = 1.0, *, seed: int = 0, **pruning: Any) -> None:
        super().__init__(density, **pruning)
        self.generator = torch.Generator().manual_seed(seed)

    def prune(self, layer: Layer, keep: int, statistics: None) -> tuple[Tensor, Tensor, None]:
        """Keep ``keep`` weights of the layer."""
        mask = largest(torch.rand(layer.rows.shape, generator=self.generator), keep).to(layer.rows.device)
        return layer.rows * mask, mask, None
