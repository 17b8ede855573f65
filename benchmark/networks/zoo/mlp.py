"""A two-layer perceptron of LIF neurons."""

from math import prod

from spikingjelly.activation_based import layer
from torch import nn

from benchmark.networks.zoo.card import card
from benchmark.networks.zoo.neurons import lif
from compressors.annotations import Count, TimeConstant


@card("nmnist", 100, "SBC, arXiv 2506.03996")
def mlp(input_shape: tuple[int, int, int], classes: int, *, hidden: Count = 256, tau: TimeConstant = 2.0) -> nn.Module:
    """Flatten, ``hidden`` LIF neurons, ``classes`` LIF neurons, no bias: the N-MNIST network of the SBC paper.

    Input ``[T, B, C, H, W]``, output spikes ``[T, B, classes]``.
    """
    return nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.Linear(prod(input_shape), hidden, bias=False, step_mode="m"),
        lif(tau),
        layer.Linear(hidden, classes, bias=False, step_mode="m"),
        lif(tau),
    )
