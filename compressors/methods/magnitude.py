"""Magnitude pruning: the smallest weights go (control)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from compressors.budget import BudgetError
from compressors.calibration.activity import activities
from compressors.calibration.network import Network
from compressors.masks import largest
from compressors.network.layers import Layer
from compressors.weights.allocation import ALLOCATIONS, Allocation, densest, weights_of
from compressors.weights.parts import LayerBudget
from compressors.weights.pruner import Pruner


class Magnitude(Pruner):
    """Keeps each layer's largest weights; ``allocation`` says how many (often ``global`` or ``lamp``).

    With a SynOps budget the density is the largest whose weights would cost no more than that, at the input activity
    of the network as it was when it was pruned.
    """

    control = True
    budgets: ClassVar[tuple[str, ...]] = ("density", "density+bits", "synops")

    def calibrate(self, network: Network) -> Mapping[str, Any]:
        """The input activity of every layer, where SynOps are limited; else nothing is looked at."""
        if self.budget.synops is None:
            return super().calibrate(network)
        return activities(network.module, network.layers, network.calibration)

    def rule(self, network: Network, statistics: Mapping[str, Any]) -> Allocation:
        """How a density is split between the layers."""
        return ALLOCATIONS[self.allocation]

    def split_budget(self, network: Network, statistics: Mapping[str, Any]) -> dict[str, LayerBudget]:
        """Each layer's part of the density, or of the largest density that the SynOps budget affords."""
        weights = weights_of(network.layers)
        rule, density = self.rule(network, statistics), self.budget.density
        if self.budget.synops is not None:
            costs = {name: statistics[name].synops(len(w)) for name, w in weights.items()}
            try:
                density = densest(rule, weights, costs, self.budget.synops)
            except ValueError as error:
                raise BudgetError(f"synops {self.budget.synops:g} cannot be met: {error}") from error
        return {name: LayerBudget(count, self.budget.bits) for name, count in rule(weights, density).items()}

    def prune(self, layer: Layer, keep: int, statistics: Any) -> tuple[Tensor, Tensor, None]:
        """Keep the ``keep`` largest weights of the layer."""
        mask = largest(layer.rows.abs(), keep)
        return layer.rows * mask, mask, None
