"""VGG-shaped networks."""

from collections.abc import Callable, Sequence

from spikingjelly.activation_based import layer
from torch import nn

from benchmark.networks.zoo.card import card
from benchmark.networks.zoo.neurons import lif
from benchmark.networks.zoo.sizes import features
from compressors.annotations import Count, TimeConstant

POOL = "pool"


def _body(
    in_channels: int,
    plan: Sequence[int | str],
    pool: Callable[..., nn.Module],
    make: Callable[[], nn.Module],
    norm: bool,
) -> nn.Sequential:
    """3x3 convolutions of the plan's widths, each with its neuron (and BatchNorm before it), and pools that halve."""
    body = nn.Sequential()
    for width in plan:
        if isinstance(width, str):
            body.append(pool(2, step_mode="m"))
            continue
        body.append(layer.Conv2d(in_channels, width, 3, padding=1, bias=False, step_mode="m"))
        if norm:
            body.append(layer.BatchNorm2d(width, step_mode="m"))
        body.append(make())
        in_channels = width
    return body.append(layer.Flatten(step_mode="m"))


def _scaled(plan: Sequence[int | str], width: int) -> list[int | str]:
    """A plan whose first convolution has ``width`` channels in place of 64."""
    return [entry if isinstance(entry, str) else entry * width // 64 for entry in plan]


def _classified(body: nn.Sequential, input_shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    return body.append(layer.Linear(features(body, input_shape), classes, step_mode="m"))


VGG9 = (64, POOL, 128, 128, POOL, 256, 256, POOL, 512, 512, 512, POOL)


@card("cifar100", 5, "spatio-temporal pruning, arXiv 2104.12528")
def vgg9(
    input_shape: tuple[int, int, int], classes: int, *, width: Count = 64, norm: bool = False, tau: TimeConstant = 101.0
) -> nn.Module:
    """Eight convolutions of 64 to 512 channels and one linear layer: the network of spatio-temporal pruning.

    Input ``[T, B, C, H, W]``, at least 16 pixels wide, output currents ``[T, B, classes]``. Average pooling, no bias
    and, unless ``norm``, no BatchNorm; the potential keeps 99.01 % a step, soft reset. Where the paper pools is not
    known to us: here, where the width doubles and at the end.
    """

    def make() -> nn.Module:
        return lif(tau, decay_input=False, soft_reset=True)

    body = _body(input_shape[0], _scaled(VGG9, width), layer.AvgPool2d, make, norm)
    return _classified(body, input_shape, classes)


VGG16 = (
    *(64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL),
    *(512, 512, 512, POOL, 512, 512, 512, POOL),
)


@card("cifar100", 5, "arXiv 1409.1556; CIFAR-100 network of SBC, arXiv 2506.03996")
def vgg16(
    input_shape: tuple[int, int, int], classes: int, *, width: Count = 64, norm: bool = True, tau: TimeConstant = 4 / 3
) -> nn.Module:
    """VGG-16 with one linear layer, with BatchNorm unless ``norm`` is false.

    Input ``[T, B, C, H, W]``, at least 32 pixels wide, output currents ``[T, B, classes]``.
    """
    body = _body(input_shape[0], _scaled(VGG16, width), layer.MaxPool2d, lambda: lif(tau), norm)
    return _classified(body, input_shape, classes)


VGGSNN = (64, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)


@card("cifar10_dvs", 10, "TET, arXiv 2202.11946", (2, 48, 48))
def vggsnn(
    input_shape: tuple[int, int, int], classes: int, *, width: Count = 64, norm: bool = True, tau: TimeConstant = 2.0
) -> nn.Module:
    """VGGSNN: eight convolutions with BatchNorm, average pooling and one linear layer, for events at 48 pixels.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. The potential halves each step and takes the whole
    input, ``v = v / 2 + x``.
    """
    body = _body(input_shape[0], _scaled(VGGSNN, width), layer.AvgPool2d, lambda: lif(tau, decay_input=False), norm)
    return _classified(body, input_shape, classes)
