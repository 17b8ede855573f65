"""The dense network: the control that every other entry is compared with."""

import torch

from compressors.base import Compressor, Network
from compressors.compression import LayerCompression


class Identity(Compressor):
    """Leaves the network as it is, and reports its layers as wholly kept."""

    control = True
    budgets = ("none",)

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Nothing is changed."""
        return tuple(
            LayerCompression(
                layer.name,
                tuple(layer.module.weight.shape),
                torch.ones_like(layer.module.weight, dtype=torch.bool),
                0.0,
            )
            for layer in network.layers
        )
