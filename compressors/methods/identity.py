"""The dense network: the control that every other entry is compared with."""

from typing import ClassVar

import torch

from compressors.base import Compressor
from compressors.calibration.network import Network
from compressors.compression import LayerCompression


class Identity(Compressor):
    """Leaves the network as it is, and reports its layers as wholly kept."""

    control = True
    budgets: ClassVar[tuple[str, ...]] = ("none",)

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
