"""What is put right after any method: BatchNorm statistics, and the mean of each layer's output.

Both look at calibration data alone and change no weight: a compressed layer's output has another mean and variance
than the dense one's, and BatchNorm or the bias can take that up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors.network.layers import Layer, evaluating

Batches = Callable[[], Iterator[Tensor]]

CARES = ("batchnorm", "means")
"""What can be done, in the order in which it is done."""


def reestimate_batchnorm(network: nn.Module, batches: Batches) -> list[str]:
    """Replace the running statistics of every BatchNorm by those of the calibration data; the names of those treated.

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
            norm.momentum = None  # an equal share for every batch
            norm.train()
        for x in batches():
            functional.reset_net(network)
            network(x)
    for name, norm in norms.items():
        norm.momentum = momenta[name]
    return list(norms)


def output_means(network: nn.Module, layers: Sequence[Layer], batches: Batches) -> dict[str, Tensor]:
    """Mean of each layer's output, after its BatchNorm where it has one: by layer name, ``[out]`` float64."""
    sums = {layer.name: _MeanOf() for layer in layers}
    with evaluating(network):
        handles = [_last(layer).register_forward_hook(sums[layer.name]) for layer in layers]
        try:
            for x in batches():
                functional.reset_net(network)
                network(x)
        finally:
            for handle in handles:
                handle.remove()
    return {name: found.total / found.count for name, found in sums.items()}


def correct_means(
    network: nn.Module, layers: Sequence[Layer], dense: Mapping[str, Tensor], batches: Batches
) -> list[str]:
    """Shift each layer's output back to its dense mean (``dense`` of :func:`output_means`); the names of those treated.

    Layers are treated in order of execution, each seeing what the corrected ones before it emit. The shift goes into
    BatchNorm's bias, or into the layer's own; a layer with neither is left as it is.
    """
    treated = []
    for layer in layers:
        bias = getattr(_last(layer), "bias", None)
        if not isinstance(bias, Tensor):
            continue
        found = output_means(network, [layer], batches)[layer.name]
        with torch.no_grad():
            bias.add_((dense[layer.name] - found).to(bias))
        treated.append(layer.name)
    return treated


def _last(layer: Layer) -> nn.Module:
    """What gives the layer's output to its neuron."""
    return layer.module if layer.norm is None else layer.norm


class _MeanOf:
    """A forward hook that adds up outputs ``[T, B, channels, ...]`` over everything but channels."""

    def __init__(self) -> None:
        self.total: Tensor = torch.zeros(())
        self.count = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values = output.flatten(0, 1).flatten(2) if output.ndim > 3 else output.flatten(0, 1)[:, :, None]
        self.total = self.total + values.double().sum((0, 2))
        self.count += values.shape[0] * values.shape[2]
