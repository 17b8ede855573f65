"""The dense network: the control that every other entry is compared with."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from compressors.base import Compressor
from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.network.layers import Layer, has_own_weight


class Identity(Compressor):
    """Leaves the network as it is, and reports its layers as wholly kept."""

    control = True
    budgets: ClassVar[tuple[str, ...]] = ("none",)

    def accepted(self, layers: Sequence[Layer]) -> Sequence[Layer]:
        """Layers whose weight is computed anew in every pass are left alone: the others' runs may exclude them."""
        return [layer for layer in layers if has_own_weight(layer)] or super().accepted(layers)

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
