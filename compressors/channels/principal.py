"""Principal components of a layer's channels: how many explain the variance, and which channels span them.

Garg, Panda, Roy, "A Low Effort Approach to Structured CNN Design Using PCA" (IEEE Access 2020, arXiv 1812.06224):
samples and positions are observations, channels are variables; means are removed, variances are not made equal.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from compressors.calibration.hessians import observe
from compressors.calibration.processes import Batches, summed_over_ranks
from compressors.channels.criteria import channels_checked
from compressors.network.layers import Layer, hooks
from compressors.network.neurons import OUT_OF_REACH, charged, storing_potentials

Reading = Callable[[Any, Tensor], Tensor]  # neuron, input [T, B, C, ...] -> [B, C, ...]


def mean_current(neuron: MemoryModule, x: Tensor) -> Tensor:
    """The input current of a neuron, a mean over time: no leak, no reset; ``[B, C, ...]``."""
    return x.mean(0)


def mean_charge(neuron: MemoryModule, x: Tensor) -> Tensor:
    """The membrane potential before firing, a mean over time: with leak and reset; ``[B, C, ...]``."""
    return charged(neuron, x).mean(0)


def integrated(neuron: MemoryModule, x: Tensor) -> Tensor:
    """The last potential of a neuron that cannot fire, over the number of steps: leak, no reset; ``[B, C, ...]``."""
    threshold, v = neuron.v_threshold, neuron.v
    try:
        neuron.reset()
        neuron.v_threshold = OUT_OF_REACH
        neuron.multi_step_forward(x)
        return neuron.v / len(x)
    finally:
        neuron.v_threshold, neuron.v = threshold, v


READINGS: dict[str, Reading] = {"current": mean_current, "charge": mean_charge, "integrated": integrated}


class _Moments:
    """Sums over observations of ``[B, C, ...]``: their number, sum and outer product, float64."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.sums = torch.zeros(channels + 1, channels + 1, dtype=torch.float64, device=device)

    def add(self, maps: Tensor) -> None:
        rows = maps.double().movedim(1, -1).flatten(0, -2)
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        self.sums.addmm_(rows.T, rows)

    def covariance(self) -> Tensor:
        """``[C, C]``, over the observations of all ranks."""
        sums = summed_over_ranks(self.sums)
        mean = sums[:-1, -1] / sums[-1, -1]
        return sums[:-1, :-1] / sums[-1, -1] - torch.outer(mean, mean)


def covariances(network: nn.Module, layers: Sequence[Layer], reading: Reading, batches: Batches) -> dict[str, Tensor]:
    """Covariance of the channels of the neurons after some layers: by layer name, ``[C, C]`` float64.

    Layers that no neuron follows are left out.

    Raises:
        CalibrationError: no calibration data.
        LayerError: a neuron has other channels than the layer before it.
    """
    neurons = {layer.channel_neuron: layer for layer in layers if layer.channel_neuron is not None}
    moments = {layer.name: _Moments(len(layer.rows), layer.rows.device) for layer in neurons.values()}

    def add(neuron: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        moments[neurons[neuron].name].add(channels_checked(neurons[neuron], reading(neuron, inputs[0])))

    with storing_potentials(neurons), hooks(list(neurons), add):
        observe(network, {}, batches)
    return {name: moment.covariance() for name, moment in moments.items()}


def unexplained(covariance: Tensor) -> Tensor:
    """Fraction of the variance that the first j principal components leave, for j from 0 to C: ``[C + 1]``, 1 to 0.

    Zeros where there is no variance at all.
    """
    variances = torch.linalg.eigvalsh(covariance).flip(0).clamp_min(0.0)
    total = variances.sum()
    if total == 0:
        return torch.zeros(len(variances) + 1, dtype=covariance.dtype, device=covariance.device)
    left = variances.flip(0).cumsum(0).flip(0) / total
    return torch.cat([left, left.new_zeros(1)])


def significant(covariance: Tensor, threshold: float, *, authors_count: bool = False) -> int:
    """Number of principal components that explain the fraction ``threshold`` of the variance; 0 without variance.

    Args:
        covariance: ``[C, C]``.
        threshold: above 0, at most 1; 0.999 in the method of 2018.
        authors_count: one less, as the authors' code counts: the cumulative fractions below the threshold.
    """
    explained = 1 - unexplained(covariance)[1:]
    if not covariance.diagonal().any():
        return 0
    below = int((explained < threshold - 1e-12).sum())
    return below if authors_count else min(below + 1, len(explained))


def spanning_order(covariance: Tensor) -> list[int]:
    """Channels in the order in which each has the most variance that those before it do not explain.

    By pivoted Cholesky factorisation. A copy of an earlier channel adds no variance, and comes last.
    """
    size = len(covariance)
    left = covariance.diagonal().clone()
    floor = left.max() * size * torch.finfo(left.dtype).eps if size else 0.0
    factor = torch.zeros_like(covariance)
    chosen: list[int] = []
    waiting = torch.ones(size, dtype=torch.bool, device=covariance.device)
    for step in range(size):
        pivot = int(torch.where(waiting, left, -torch.inf).argmax())
        waiting[pivot] = False
        chosen.append(pivot)
        if left[pivot] > floor:
            column = covariance[:, pivot] - factor[:, :step] @ factor[pivot, :step]
            factor[:, step] = column / left[pivot].sqrt()
            left = left - factor[:, step].square()
    return chosen
