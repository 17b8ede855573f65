"""A small convolutional network with BatchNorm."""

import torch
from spikingjelly.activation_based import layer
from torch import nn

from benchmark.networks.zoo.card import card
from benchmark.networks.zoo.neurons import lif
from compressors.annotations import Count, TimeConstant


@card("nmnist", 20, "of this project")
def conv(
    input_shape: tuple[int, int, int], classes: int, *, width: Count = 32, hidden: Count = 128, tau: TimeConstant = 2.0
) -> nn.Module:
    """Two strided 3x3 convolutions with BatchNorm, a max pool, two linear layers; LIF after every layer.

    Input ``[T, B, C, H, W]``, output spikes ``[T, B, classes]``. The convolutions have ``width`` and twice as many
    channels.
    """
    features = nn.Sequential(
        layer.Conv2d(input_shape[0], width, 3, stride=2, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(width, step_mode="m"),
        lif(tau),
        layer.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(2 * width, step_mode="m"),
        lif(tau),
        layer.MaxPool2d(2, step_mode="m"),
        layer.Flatten(step_mode="m"),
    )
    with torch.no_grad():
        inputs = features(torch.zeros(1, 1, *input_shape)).shape[-1]
    return nn.Sequential(
        *features,
        layer.Linear(inputs, hidden, bias=False, step_mode="m"),
        lif(tau),
        layer.Linear(hidden, classes, bias=False, step_mode="m"),
        lif(tau),
    )
