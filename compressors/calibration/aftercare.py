"""What the option ``aftercare`` does after any method: BatchNorm re-estimation and bias correction.

A compressed layer's output has another mean and variance than the dense one's. Running statistics estimated anew let
BatchNorm normalise by what is there now; a corrected bias brings the mean output of a layer back to the dense one's
(Nagel and others, "Data-Free Quantization", arXiv 1906.04721, section 4.2; here measured on calibration data). Both
look at calibration inputs alone, and change no weight.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors.calibration.processes import Batches
from compressors.network.layers import Layer, evaluating, hooks

AFTERCARE = {"batchnorm": 1, "means": 1, "scales": 1, "reconstruct": 3}
"""The values of the option, in the order in which they are applied, with the version of what each does. The last two
have modules of their own."""


def reestimate_batchnorm(network: nn.Module, batches: Batches) -> list[str]:
    """Replace the running statistics of every BatchNorm by those of the calibration data; the names of the BatchNorms.

    Mean and variance are averages over the batches, time steps and positions being samples, as in training. All
    other modules stay in evaluation mode.
    """
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not norms:
        return []
    momenta = {name: norm.momentum for name, norm in norms.items()}
    with evaluating(network):
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for x in batches():
            functional.reset_net(network)
            network(x)
    for name, norm in norms.items():
        norm.momentum = momenta[name]
    return list(norms)


def output_means(network: nn.Module, layers: Sequence[Layer], batches: Batches) -> dict[str, Tensor]:
    """Mean of each layer's output, after its BatchNorm where it has one: by layer name, ``[out]`` float64."""
    means = {layer.name: _ChannelMean() for layer in layers}
    with evaluating(network), ExitStack() as stack:
        for layer in layers:
            stack.enter_context(hooks([_last_module(layer)], means[layer.name]))
        for x in batches():
            functional.reset_net(network)
            network(x)
    return {name: mean.total / mean.count for name, mean in means.items()}


def correct_biases(
    network: nn.Module, layers: Sequence[Layer], dense: Mapping[str, Tensor], batches: Batches
) -> list[str]:
    """Bring each layer's mean output back to the dense network's by its bias; the names of the corrected layers.

    Layers are corrected in order of execution, each on the outputs of those that were corrected before it. The bias is
    BatchNorm's where one follows the layer, else the layer's own; a layer with neither is left as it is.

    Args:
        network: the compressed network, changed in place.
        layers: in order of execution.
        dense: the dense network's :func:`output_means`.
        batches: the calibration data.
    """
    corrected = []
    for layer in layers:
        bias = getattr(_last_module(layer), "bias", None)
        if not isinstance(bias, Tensor):
            continue
        mean = output_means(network, [layer], batches)[layer.name]
        with torch.no_grad():
            bias.add_((dense[layer.name] - mean).to(bias))
        corrected.append(layer.name)
    return corrected


def _last_module(layer: Layer) -> nn.Module:
    """The module whose output the layer's neuron takes: its BatchNorm, or without one the layer's own."""
    return layer.module if layer.norm is None else layer.norm


class _ChannelMean:
    """A forward hook that adds up outputs ``[T, B, channels, ...]`` or ``[B, channels]`` over all but channels."""

    def __init__(self) -> None:
        self.total: Tensor = torch.zeros(())
        self.count = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows = output if output.ndim == 2 else output.flatten(0, 1)
        values = rows.flatten(2) if rows.ndim > 2 else rows[:, :, None]
        self.total = self.total + values.double().sum((0, 2))
        self.count += values.shape[0] * values.shape[2]
