"""Unstructured pruning: share the budget between the layers, then choose and treat the weights of each layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compressors.allocation import ALLOCATIONS
from compressors.base import BudgetError, Compressor, LayerCompression, Network
from compressors.layers import Layer
from compressors.registry import suggestion


class Pruner(Compressor):
    """Base of the methods that remove single weights.

    Subclasses implement :meth:`prune`, and :meth:`calibrate` if they look at data.

    Args:
        density: share of weights to keep.
        allocation: how the budget is shared between layers: ``uniform``, ``erk``, ``global`` or ``lamp``.
        **base: see :class:`~compressors.base.Compressor`.
    """

    def __init__(self, density: float, *, allocation: str = "uniform", **base: Any) -> None:
        super().__init__(density, **base)
        if allocation not in ALLOCATIONS:
            raise BudgetError(f"unknown allocation {allocation!r}: {suggestion(allocation, ALLOCATIONS)}")
        self.allocation = allocation

    def calibrate(self, network: Network) -> Mapping[str, Any]:
        """What :meth:`prune` needs to know about each layer's inputs, by layer name."""
        return dict.fromkeys(layer.name for layer in network.layers)

    def prune(self, layer: Layer, keep: int, statistics: Any) -> tuple[Tensor, Tensor, float | None]:
        """The layer's new weight, its mask (both ``[rows, d]``, ``keep`` entries True) and the loss, where known."""
        raise NotImplementedError(f"{type(self).__name__} must implement prune()")

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Prune every layer to its share of the budget, in order of execution."""
        statistics = self.calibrate(network)
        weights = {layer.name: layer.module.weight.detach() for layer in network.layers}
        keep = ALLOCATIONS[self.allocation](weights, self.budget.density)
        return tuple(
            self._prune(layer, keep[layer.name], statistics[layer.name])
            for layer in network.track(network.layers, f"{type(self).__name__}: pruning")
        )

    def _prune(self, layer: Layer, keep: int, statistics: Any) -> LayerCompression:
        weight, mask, loss = self.prune(layer, keep, statistics)
        parameter = layer.module.weight
        with torch.no_grad():
            parameter.copy_(weight.view_as(parameter))
        return LayerCompression(layer.name, tuple(parameter.shape), mask.view_as(parameter), loss)


def largest(scores: Tensor, keep: int) -> Tensor:
    """A bool mask of the ``keep`` largest scores; of equal ones the first."""
    chosen = scores.flatten().argsort(descending=True, stable=True)[:keep]
    return (
        torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device).index_fill_(0, chosen, True).view_as(scores)
    )
