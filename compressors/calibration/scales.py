"""What ``aftercare: scales`` does after any method: each channel's current is scaled so that its spikes fit again.

A channel that lost weights fires at another rate than it did. Its rate rises with its input current, so that a factor
for each channel brings it back (a bias in its place makes spikes agree less). Layer by layer, on what the compressed
layers before it send, each channel takes the one of :data:`FACTORS` for which its spikes come nearest to the dense
network's in van Rossum distance, and keeps it if they come nearer on held-out samples too. No gradient is taken, and no
label looked at.

The factor is a part of BatchNorm's scale and shift where a layer has them, else of the layer's weights and biases; a
quantised layer without BatchNorm is left alone, since its weights could not stay on their grid.
"""

from collections import Counter
from collections.abc import Container, Iterator, Sequence

import torch
from lightning.pytorch import LightningModule
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from compressors.calibration.held_out import split
from compressors.calibration.network import Network
from compressors.calibration.pairs import NeuronPair, neuron_pairs, run
from compressors.compression import LayerCompression
from compressors.network.layers import Layer, evaluating, hooks

FACTORS = tuple(2 ** (step / 8) for step in range(-6, 9))
"""Of a channel's input current: from 0.59 to 2, 1 among them."""


def rescale(network: Network, accounts: Sequence[LayerCompression], dense: LightningModule) -> list[str]:
    """Scale the channels of each layer that a neuron follows, in place; the names of the layers that were changed.

    Args:
        network: the compressed network.
        accounts: what was done to each of its layers.
        dense: a copy of the network as it was.
    """
    fixed = {account.name for account in accounts if account.grid is not None}
    feeding = Counter(layer.channel_neuron for layer in network.layers)
    pairs = [
        pair
        for pair in neuron_pairs(network, accounts, dense)
        if feeding[pair.own] == 1 and (_scaled_module(pair.layer) is pair.layer.norm or _free(pair.layer, fixed))
    ]
    track = network.track(pairs, "scaling channels so that their spikes fit")
    return [pair.layer.name for pair in track if _rescaled(network, pair, dense)]


def _free(layer: Layer, fixed: Container[str]) -> bool:
    """Whether a layer's own weights may be scaled: they reach the neuron as they are, and lie on no grid."""
    return layer.norm is None and layer.name not in fixed


def _rescaled(network: Network, pair: NeuronPair, dense: LightningModule) -> bool:
    """Scale the channels that a neuron takes; whether any was."""
    module = _scaled_module(pair.layer)
    fitted, held = _errors(network, pair, dense, FACTORS)
    factor = torch.tensor(FACTORS).to(held)[fitted.argmin(0)]
    before = [parameter.detach().clone() for parameter in _parameters(module)]
    with torch.no_grad():
        for parameter in _parameters(module):
            parameter.mul_(_by_channel(factor, parameter).to(parameter))
    _, [after] = _errors(network, pair, dense, (1.0,))
    kept = after < held[FACTORS.index(1.0)]
    with torch.no_grad():
        for parameter, old in zip(_parameters(module), before, strict=True):
            parameter.copy_(torch.where(_by_channel(kept, parameter), parameter, old))
    return bool(kept.any())


def _errors(
    network: Network, pair: NeuronPair, dense: LightningModule, factors: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Distance of each channel's spikes from the dense ones for each factor of its current: ``[factors, C]``.

    On the samples to fit to, and on those held out.
    """
    parts = zip(*_distances(network, pair, dense, factors), strict=True)
    fitted, held = (torch.stack(part).sum(0) for part in parts)
    return fitted, held


def _distances(
    network: Network, pair: NeuronPair, dense: LightningModule, factors: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    for fitted, held in split(network.calibration()):
        yield _distance(network, pair, dense, fitted, factors), _distance(network, pair, dense, held, factors)


def _distance(
    network: Network, pair: NeuronPair, dense: LightningModule, x: Tensor, factors: Sequence[float]
) -> Tensor:
    channels = len(pair.layer.rows)
    if not len(x):
        return torch.zeros(len(factors), channels, device=x.device)
    with evaluating(dense), evaluating(network.module):
        _, [wanted] = run(dense, x, [pair.dense])
        current = _current(network.module, x, pair.own)
        wanted = pair.left(wanted)
        return torch.stack([pair.energies(_fired(pair.own, factor * current) - wanted) for factor in factors])


def _current(module: LightningModule, x: Tensor, neuron: nn.Module) -> Tensor:
    """What a neuron takes of a batch."""
    taken = []
    with hooks([neuron], lambda _, inputs: taken.append(inputs[0].clone()), before=True):
        module(x)
    return taken[0]


def _fired(neuron: nn.Module, current: Tensor) -> Tensor:
    functional.reset_net(neuron)
    return neuron(current)


def _scaled_module(layer: Layer) -> nn.Module:
    """The one whose parameters scale a layer's current: its BatchNorm if that has any, else itself."""
    return layer.module if layer.norm is None or layer.norm.weight is None else layer.norm


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    return [*module.parameters(recurse=False)]


def _by_channel(values: Tensor, parameter: Tensor) -> Tensor:
    """Values ``[C]`` in a shape that scales the channels of a parameter ``[C, ...]``."""
    return values.view(-1, *[1] * (parameter.dim() - 1))
