"""Networks that merge time into the batch, made to keep ``[T, B, ...]`` between all of their layers."""

from typing import TypeVar

from spikingjelly.activation_based import layer
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

STEPPED = {
    getattr(nn, name): getattr(layer, name)
    for name in (
        *("Conv1d", "Conv2d", "BatchNorm1d", "BatchNorm2d", "Linear", "Flatten"),
        *("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "AdaptiveAvgPool2d"),
    )
}
"""torch's layer -> SpikingJelly's, which is a subclass that adds nothing but the step mode."""


def multistep(network: Network) -> Network:
    """Turn every ``SeqToANNContainer`` into a Sequential of SpikingJelly's multi-step layers, in place.

    Results, parameters and the names in the state dict stay the same; but each layer's inputs show their time steps,
    which compressors that look at time need. A container with a layer that has no multi-step form is left as it is.

    A module gets another class rather than a successor: SpikingJelly's layer is torch's with a step mode, so that the
    parameters, buffers, hooks and names are right as they stand, and whoever holds on to the module holds the new one.
    """
    for container in network.modules():
        if isinstance(container, layer.SeqToANNContainer) and all(type(part) in STEPPED for part in container):
            for part in container:
                part.__class__ = STEPPED[type(part)]
                part.step_mode = "m"
            container.__class__ = nn.Sequential
    return network
