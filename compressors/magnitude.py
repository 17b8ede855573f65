"""Magnitude pruning: the smallest weights go (control)."""

from torch import Tensor

from compressors.layers import Layer
from compressors.pruning import Pruner, largest


class Magnitude(Pruner):
    """Keeps each layer's largest weights; ``allocation`` says how many (often ``global`` or ``lamp``)."""

    control = True

    def prune(self, layer: Layer, keep: int, statistics: None) -> tuple[Tensor, Tensor, None]:
        """Keep the ``keep`` largest weights of the layer."""
        mask = largest(layer.rows.abs(), keep)
        return layer.rows * mask, mask, None
