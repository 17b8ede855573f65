"""How strong the inputs of each column of a weight are: the diagonal of a Hessian, without the matrix."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compressors.calibration.hessians import observe, vectors, whole_passes
from compressors.calibration.processes import Batches, summed_over_ranks
from compressors.network.layers import Layer


class _SquareSum:
    """Adds up the squares of the inputs that meet each column of one layer's weight."""

    def __init__(self, layer: Layer, response: Tensor | None) -> None:
        rows = layer.rows
        self.response = response
        self.total = torch.zeros(layer.groups, rows.shape[1], dtype=torch.float64, device=rows.device)

    def add(self, layer: Layer, x: Tensor) -> None:
        """Add an input ``x [T, B, ...]`` of the layer."""
        for z in vectors(layer, x.double(), self.response):
            self.total += z.square().sum(1)


def input_norms(
    network: nn.Module, layers: Sequence[Layer], responses: Mapping[str, Tensor | None], batches: Batches
) -> dict[str, Tensor]:
    """Euclidean norms of the inputs of each column of the layers' weights: ``[groups, d]`` float64, by layer name.

    The norm runs over time steps, positions and samples, in units of the root of the number of samples, so that it is
    ``sqrt(diag(H) / 2)`` of :func:`~compressors.calibration.hessians.hessians`. The inputs are filtered over time by
    ``responses[layer.name]`` ``[T]``, or taken as they are where that is None.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
        LayerError: a layer that cannot be unfolded.
    """
    sums = {layer.name: _SquareSum(layer, responses[layer.name]) for layer in layers}
    watched = {module: hook for layer in layers for module, hook in whole_passes(layer, sums[layer.name].add).items()}
    samples = observe(network, watched, batches)
    return {name: summed_over_ranks(part.total).div_(samples).sqrt_() for name, part in sums.items()}
