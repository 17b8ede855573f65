"""Wanda: weights by magnitude times the norm of their input; none makes up for another (control)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from compressors.budget import OptionError
from compressors.calibration.network import Network
from compressors.calibration.norms import input_norms
from compressors.masks import largest, largest_of_groups, largest_of_rows
from compressors.network.layers import Layer
from compressors.network.neurons import membrane_filter
from compressors.options import require_known
from compressors.second_order.budget_split import density_in, require_one_round
from compressors.second_order.problem import Pattern
from compressors.weights.parts import LayerBudget, LayerResult
from compressors.weights.pruner import Pruner

INPUTS: dict[str, Callable[[Layer], Tensor | None]] = {"plain": lambda layer: None, "membrane": membrane_filter}
RIVALS: dict[str, Callable[[Tensor, int], Tensor]] = {"row": largest_of_rows, "layer": largest}
FAINT = 1e-24  # of the strongest input's norm: what a silent one counts as, so that its weights still have an order


class Wanda(Pruner):
    """Keeps the weights whose magnitude times the norm of their input is largest, each row its own best.

    Sun, Liu, Bair and Kolter, "A Simple and Effective Pruning Approach for Large Language Models" (ICLR 2024, arXiv
    2306.11695): the score of a weight is ``|w_ij| ||x_j||_2`` with the norm of its input over the calibration data,
    scores compete within a row, and what is left stays as it is. Here the norm runs over time steps, positions and
    samples: it is the diagonal of the Hessian of :class:`~compressors.methods.obc.OBC`, and with ``inputs="membrane"``
    that of :class:`~compressors.methods.sbc.SBC`. So the difference to those two is what their update is worth, and
    the difference between the two norms what the filter over time is worth.

    Args:
        inputs: norms of the inputs as they are (``plain``), or filtered over time by the neuron that follows
            (``membrane``); a layer that no neuron follows has plain ones, and the account of each layer names its own.
        rivals: weights compete within their ``row`` (an output's), or within the whole ``layer``.
        pattern: ``unstructured``, or N:M (``2:4`` keeps 2 of 4 neighbouring weights); neighbours are those of
            :class:`~compressors.second_order.problem.Pattern`.

    Weights of inputs that are silent on the calibration data go first, the smallest before the others.

    The other options are those of :class:`~compressors.weights.pruner.Pruner`.
    """

    control = True

    inputs: str = "plain"
    rivals: str = "row"
    pattern: str = "unstructured"

    def __post_init__(self) -> None:
        self._set("density", density_in(self.neighbours, self.density))
        super().__post_init__()
        require_known("inputs", self.inputs, INPUTS)
        require_known("rivals", self.rivals, RIVALS)
        require_one_round(self.neighbours, self.rounds)
        if self.pattern == "block4":
            raise OptionError(f"{type(self).__name__} scores single weights: take the pattern N:M, or 'obc' for block4")
        if self.neighbours.groups and (self.rivals, self.allocation) != ("row", "uniform"):
            raise OptionError(f"the pattern {self.pattern} says which weights compete: leave out rivals and allocation")

    @cached_property
    def neighbours(self) -> Pattern:
        """Which weights may be pruned."""
        return Pattern(self.pattern)

    def calibrate(self, network: Network) -> Mapping[str, Tensor]:
        """The norms of every layer's inputs: ``[groups, d]``."""
        responses = {layer.name: INPUTS[self.inputs](layer) for layer in network.layers}
        return input_norms(network.module, network.layers, responses, network.calibration)

    def scores(self, magnitudes: Tensor, norms: Tensor) -> Tensor:
        """The weights' scores, of the shape of ``magnitudes [groups, rows of a group, d]``.

        ``norms [groups, 1, d]`` are those of the inputs.
        """
        return magnitudes * norms

    def prune(self, layer: Layer, keep: int, statistics: Tensor) -> tuple[Tensor, Tensor, None]:
        """Keep the best of each row, of the layer, or of each group of neighbours."""
        weight = layer.rows
        magnitudes = weight.abs().to(statistics).view(layer.groups, -1, weight.shape[1])
        scores = self.scores(magnitudes, _heard(statistics)[:, None]).flatten(0, 1)
        mask = self._best(scores, keep, self.neighbours.columns(tuple(layer.module.weight.shape)))
        return weight * mask, mask, None

    def _best(self, scores: Tensor, keep: int, order: Tensor | None) -> Tensor:
        if self.neighbours.groups is None:
            return RIVALS[self.rivals](scores, keep)
        if order is None:
            return largest_of_groups(*self.neighbours.groups, scores)
        return largest_of_groups(*self.neighbours.groups, scores[:, order])[:, order.argsort()]

    def compress_layer(self, network: Network, layer: Layer, part: LayerBudget, statistics: Tensor) -> LayerResult:
        """Prune and round a layer, and say which norms it was judged by."""
        result = super().compress_layer(network, layer, part, statistics)
        filtered = INPUTS[self.inputs](layer) is not None
        seen = {"inputs": "membrane potential" if filtered else "input current"}
        silent = {"dead_inputs": dead} if (dead := int((statistics == 0).sum())) else {}
        return replace(result, extra={**result.extra, **seen, **silent})


def _heard(norms: Tensor) -> Tensor:
    """The norms, those of silent inputs as good as nothing; all alike where all inputs are silent."""
    strongest = norms.max()
    return norms.clamp_min(strongest * FAINT) if strongest > 0 else torch.ones_like(norms)
