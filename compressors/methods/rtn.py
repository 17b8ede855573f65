"""Round to nearest: what any bit width costs when no weight makes up for another (control)."""

from typing import ClassVar

import torch
from torch import Tensor

from compressors.network.layers import Layer
from compressors.weights.pruner import Pruner


class RTN(Pruner):
    """Rounds every weight to the nearest level of its grid."""

    control = True
    budgets: ClassVar[tuple[str, ...]] = ("bits",)

    def prune(self, layer: Layer, keep: int, statistics: None) -> tuple[Tensor, Tensor, None]:
        """Nothing is pruned."""
        weight = layer.rows
        return weight, torch.ones_like(weight, dtype=torch.bool), None
