"""Criteria of channel pruning: a score of each channel of a layer's neurons, measured on calibration data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from compressors.calibration.hessians import observe
from compressors.calibration.processes import Batches, summed_over_ranks
from compressors.channels.tracing import Bundle, Channels
from compressors.network.layers import Layer, LayerError, hooks
from compressors.network.neurons import charged, storing_potentials

SINGULAR_VALUE = 1e-6  # QP-SNN's tolerance, absolute


def numerical_rank(maps: Tensor, tolerance: float | None = SINGULAR_VALUE) -> Tensor:
    """Number of singular values above the tolerance, of each map: ``[..., H, W]`` -> ``[...]`` int64.

    Args:
        maps: finite.
        tolerance: absolute; None takes the library's, which is relative to the largest singular value.
    """
    if tolerance is None:
        return torch.linalg.matrix_rank(maps)
    return (torch.linalg.svdvals(maps) > tolerance).sum(-1)


def spike_map_rank(neuron: MemoryModule, x: Tensor, spikes: Tensor, tolerance: float | None = SINGULAR_VALUE) -> Tensor:
    """QP-SNN's criterion: rank of the time-averaged spike map of each sample and channel, ``[B, C]`` float64.

    A map is that of the neurons of one channel: ``[H, W]``, or ``[1, W]`` after a one-dimensional convolution. Neurons
    of a linear layer have maps of one entry, whose rank says no more than whether the neuron fired.

    Args:
        neuron: in multi-step mode.
        x: its input, ``[T, B, C, ...]``.
        spikes: its output, of the same shape.
        tolerance: see :func:`numerical_rank`.
    """
    average = spikes.double().mean(0)
    while average.ndim < 4:
        average = average.unsqueeze(2)
    return numerical_rank(average, tolerance).double()


def mean_potential(neuron: MemoryModule, x: Tensor, spikes: Tensor) -> Tensor:
    """SCA's criterion: absolute potential before firing, summed over positions, mean over steps: ``[B, C]`` float64."""
    size = charged(neuron, x).double().abs().mean(0)  # [B, C, ...]
    return size.flatten(2).sum(2) if size.ndim > 2 else size


Measure = Callable[[Any, Tensor, Tensor], Tensor]  # neuron, input, output -> [B, C]


def channel_means(network: nn.Module, layers: Sequence[Layer], measure: Measure, batches: Batches) -> dict[str, Tensor]:
    """A measure of each channel of the neurons after some layers, a mean over samples: by layer name, ``[C]`` float64.

    Layers that no neuron follows are left out.

    Raises:
        CalibrationError: no calibration data.
        LayerError: a neuron has other channels than the layer before it.
    """
    neurons = {layer.channel_neuron: layer for layer in layers if layer.channel_neuron is not None}
    # One for every layer beforehand: a process that gets no batch has to take part in the sum.
    sums = {layer.name: layer.rows.new_zeros(len(layer.rows), dtype=torch.float64) for layer in neurons.values()}

    def add(neuron: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sums[neurons[neuron].name] += channels_checked(neurons[neuron], measure(neuron, inputs[0], output)).sum(0)

    with storing_potentials(neurons), hooks(list(neurons), add):
        samples = observe(network, {}, batches)
    return {name: summed_over_ranks(total) / samples for name, total in sums.items()}


def channels_checked(layer: Layer, values: Tensor) -> Tensor:
    """Values ``[B, C, ...]`` of a layer's neuron, if it has the channels of the layer.

    Raises:
        LayerError: it has others; names the layer.
    """
    if values.shape[1] != len(layer.rows):
        raise LayerError(
            f"layer {layer.name!r} has {len(layer.rows)} outputs, and the neuron after it {values.shape[1]} channels: "
            f"exclude {layer.name}"
        )
    return values


def measured_layers(bundle: Bundle, measured: Mapping[str, Tensor]) -> list[str]:
    """The layers of a bundle whose channels were measured: the keys of ``measured`` among them.

    Raises:
        LayerError: there is none; names those that go together.
    """
    names = [name for name in bundle.layers if name in measured]
    if not names:
        raise LayerError(
            f"layer {bundle.layers[0]!r}: no spiking neuron follows it, and its channels cannot be scored; exclude "
            f"{', '.join(bundle.layers)}"
        )
    return names


def group_scores(channels: Channels, bundles: Iterable[Bundle], scores: Mapping[str, Tensor]) -> dict[int, float]:
    """The score of each group of channels: a mean over its channels in all layers that have scores.

    Raises:
        LayerError: none of the layers that go together has any; names them.
    """
    group_means: dict[int, float] = {}
    for bundle in bundles:
        names = measured_layers(bundle, scores)
        labels = torch.cat([channels.layers[name].outputs for name in names])
        values = torch.cat([scores[name].cpu() for name in names])
        group_means |= {group: float(values[labels == group].mean()) for group in bundle.groups.tolist()}
    return group_means
