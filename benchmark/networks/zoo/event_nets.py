"""The convolutional networks of the event-camera sets."""

from spikingjelly.activation_based import layer
from torch import nn

from benchmark.networks.zoo.card import card
from benchmark.networks.zoo.neurons import lif
from benchmark.networks.zoo.sizes import features
from compressors.annotations import Count, TimeConstant


def _stages(in_channels: int, width: int, number: int, tau: float) -> nn.Sequential:
    """``number`` times 3x3 convolution, BatchNorm, LIF, max pool that halves."""
    body = nn.Sequential()
    for channels in (in_channels, *[width] * (number - 1)):
        body.extend(
            [
                layer.Conv2d(channels, width, 3, padding=1, bias=False, step_mode="m"),
                layer.BatchNorm2d(width, step_mode="m"),
                lif(tau),
                layer.MaxPool2d(2, step_mode="m"),
            ]
        )
    return body.append(layer.Flatten(step_mode="m"))


def _voting(body: nn.Sequential, inputs: int, hidden: int, classes: int, voters: int, tau: float) -> nn.Sequential:
    """Two linear layers with LIF; each class's score is the mean of its ``voters`` neurons."""
    return body.extend(
        [
            layer.Dropout(0.5, step_mode="m"),
            layer.Linear(inputs, hidden, step_mode="m"),
            lif(tau),
            layer.Dropout(0.5, step_mode="m"),
            layer.Linear(hidden, voters * classes, step_mode="m"),
            lif(tau),
            layer.VotingLayer(voters, step_mode="m"),
        ]
    )


@card("dvs_gesture", 20, "arXiv 2007.05785; 5Conv2FC of SBC, arXiv 2506.03996")
def dvs_gesture_net(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: Count = 128,
    hidden: Count = 500,
    voters: Count = 10,
    tau: TimeConstant = 2.0,
) -> nn.Module:
    """5Conv2FC: five stages of convolution, BatchNorm, LIF and max pool; two linear layers; ten voters a class.

    Input ``[T, B, C, H, W]``, at least 32 pixels wide, output ``[T, B, classes]``, the share of a class's voters that
    fire. SpikingJelly's ``DVSGestureNet`` is the same with 512 hidden neurons.
    """
    body = _stages(input_shape[0], width, 5, tau)
    return _voting(body, features(body, input_shape), hidden, classes, voters, tau)


@card("cifar10_dvs", 10, "arXiv 2007.05785; 4Conv2FC of SBC, arXiv 2506.03996")
def cifar10_dvs_net(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: Count = 128,
    hidden: Count = 512,
    voters: Count = 10,
    tau: TimeConstant = 2.0,
) -> nn.Module:
    """4Conv2FC: as :func:`dvs_gesture_net` with four stages; at 64 pixels the paper has ``hidden=500``.

    Input ``[T, B, C, H, W]``, at least 16 pixels wide, output ``[T, B, classes]``. SpikingJelly's ``CIFAR10DVSNet`` is
    this at 128 pixels.
    """
    body = _stages(input_shape[0], width, 4, tau)
    return _voting(body, features(body, input_shape), hidden, classes, voters, tau)
