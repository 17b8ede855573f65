"""Magnitude pruning: the smallest weights go (control)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from compressors.base import Network
from compressors.budget import BudgetError
from compressors.calibration.activity import activities
from compressors.masks import largest
from compressors.network.layers import Layer
from compressors.weights.allocation import Allocation, densest
from compressors.weights.pruner import Pruner, Share


class Magnitude(Pruner):
    """Keeps each layer's largest weights; ``allocation`` says how many (often ``global`` or ``lamp``).

    With a SynOps budget the density is the largest whose weights would cost no more than that, at the input activity
    of the network as it was when it was pruned.
    """

    control = True
    budgets = ("density", "density+bits", "synops")

    def calibrate(self, network: Network) -> Mapping[str, Any]:
        """The input activity of every layer, where SynOps are limited; else nothing is looked at."""
        if self.budget.synops is None:
            return super().calibrate(network)
        return activities(network.module, network.layers, network.calibration)

    def rule(self, network: Network, statistics: Mapping[str, Any]) -> Allocation:
        """How a density is shared between the layers."""
        allocation: Allocation = self.allocations[self.allocation]
        return allocation

    def share(self, network: Network, statistics: Mapping[str, Any]) -> dict[str, Share]:
        """Each layer's share of the density, or of the largest density that the SynOps budget affords."""
        weights = {layer.name: layer.module.weight.detach() for layer in network.layers}
        rule, density = self.rule(network, statistics), self.budget.density
        if self.budget.synops is not None:
            costs = {name: statistics[name].synops(len(w)) for name, w in weights.items()}
            try:
                density = densest(rule, weights, costs, self.budget.synops)
            except ValueError as error:
                raise BudgetError(f"synops {self.budget.synops:g} cannot be met: {error}") from error
        return {name: Share(count, self.budget.bits) for name, count in rule(weights, density).items()}

    def prune(self, layer: Layer, keep: int, statistics: Any) -> tuple[Tensor, Tensor, None]:
        """Keep the ``keep`` largest weights of the layer."""
        mask = largest(layer.rows.abs(), keep)
        return layer.rows * mask, mask, None
