"""Random pruning: what any density costs when nothing is known about the weights (control)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compressors.annotations import Seed
from compressors.calibration.network import Network
from compressors.masks import largest
from compressors.network.layers import Layer
from compressors.weights.pruner import Pruner


class RandomPruning(Pruner):
    """Keeps weights drawn at random, each as likely as any other of its layer.

    Args:
        seed: seed of the draw.

    The other options are those of :class:`~compressors.weights.pruner.Pruner`.
    """

    control = True

    seed: Seed = 0

    def calibrate(self, network: Network) -> Mapping[str, Tensor]:
        """A number for each weight, the same ones in every round, so that what is gone stays gone."""
        generator = torch.Generator().manual_seed(self.seed)
        return {layer.name: torch.rand(layer.rows.shape, generator=generator) for layer in network.layers}

    def prune(self, layer: Layer, keep: int, statistics: Tensor) -> tuple[Tensor, Tensor, None]:
        """Keep the ``keep`` weights of the layer that drew the largest numbers."""
        mask = largest(statistics, keep).to(layer.rows.device)
        return layer.rows * mask, mask, None
