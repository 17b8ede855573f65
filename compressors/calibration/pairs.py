"""Neurons of a compressed network beside the dense network's at the same places: how far apart their spike trains are.

Trains are compared after the filter over time of the neuron that sends them: the van Rossum distance.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.network.layers import Layer, hooks
from compressors.network.neurons import filter_matrix


@dataclass(frozen=True)
class NeuronPair:
    """A neuron of the compressed network and the dense network's at the same place.

    Args:
        layer: the first compressed layer that feeds it.
        own: the compressed network's.
        dense: the dense network's.
        filter: over time, as a matrix ``[T, T]``; that of a spike alone where no filter describes the neuron.
        outputs: the dense network's channels that are left; None where all are.
    """

    layer: Layer
    own: nn.Module
    dense: nn.Module
    filter: Tensor
    outputs: Tensor | None

    def left(self, spikes: Tensor) -> Tensor:
        """The dense network's trains ``[T, B, C, ...]`` of the channels that are left."""
        return spikes if self.outputs is None else spikes.index_select(2, self.outputs.to(spikes.device))

    def energy(self, spikes: Tensor) -> Tensor:
        """Squared norm of trains ``[T, B, ...]`` after the filter."""
        return (self.filter @ spikes.flatten(1)).square().sum()

    def energies(self, spikes: Tensor) -> Tensor:
        """The same of each channel of trains ``[T, B, C, ...]``: ``[C]``."""
        filtered = (self.filter @ spikes.flatten(1)).view_as(spikes)
        return filtered.square().sum([dim for dim in range(spikes.dim()) if dim != 2])


def neuron_pairs(
    network: Network, accounts: Sequence[LayerCompression], dense: LightningModule
) -> Iterator[NeuronPair]:
    """Each neuron that a compressed layer feeds, once; not one that the network takes through time in its own loop.

    Args:
        network: the compressed network.
        accounts: what was done to each of its layers.
        dense: a copy of the network as it was.
    """
    names = {module: name for name, module in network.module.named_modules()}
    outputs = {account.name: account.outputs for account in accounts}
    seen = set()
    for layer in network.layers:
        neuron = layer.channel_neuron
        if neuron is None or neuron in seen or layer.calls > 1:
            continue
        seen.add(neuron)
        over_time = filter_matrix(neuron, layer.timesteps).to(layer.module.weight)
        yield NeuronPair(layer, neuron, dense.get_submodule(names[neuron]), over_time, outputs[layer.name])


def run(module: LightningModule, x: Tensor, neurons: Sequence[nn.Module]) -> tuple[Tensor, list[Tensor]]:
    """Scores of a batch, and what each neuron sent."""
    sent: dict[nn.Module, Tensor] = {}

    def note(neuron: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sent[neuron] = output

    with hooks(list(neurons), note):
        scores = module(x)
    return scores, [sent[neuron] for neuron in neurons]
