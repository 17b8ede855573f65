"""Residual networks: the blocks of SpikingJelly's models in any width, on small and on large images."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from spikingjelly.activation_based import functional, layer
from spikingjelly.activation_based.model import ms_resnet as ms
from spikingjelly.activation_based.model import sew_resnet
from spikingjelly.activation_based.model import spiking_resnet as plain
from torch import Tensor, nn

from benchmark.networks.zoo.card import card
from benchmark.networks.zoo.neurons import integrate_and_fire, lif
from benchmark.networks.zoo.sizes import LARGE
from compressors.annotations import Count, TimeConstant

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> blocks in each stage (arXiv 1512.03385, table 1); bottlenecks from 50 on."""

Make = Callable[[], nn.Module]


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over positions, and a linear layer.

    Modules have the names they have in SpikingJelly's models, so that published checkpoints fit. Images of 96 pixels
    and more get ImageNet's stem (7x7, stride 2, max pool), smaller ones a 3x3 convolution.

    Args:
        block: a residual block of SpikingJelly's models.
        stages: (blocks, channels) of each stage; all but the first halve the image.
        stem: channels of the stem.
        input_shape: (channels, height, width).
        classes: number of classes.
        make: makes a neuron.
        **options: further arguments of the blocks.
    """

    stages: list[str]

    def __init__(
        self,
        block: Any,
        stages: Sequence[tuple[int, int]],
        stem: int,
        input_shape: tuple[int, int, int],
        classes: int,
        make: Make,
        **options: Any,
    ) -> None:
        super().__init__()
        large = input_shape[-1] >= LARGE
        sizes = {"kernel_size": 7, "stride": 2, "padding": 3} if large else {"kernel_size": 3, "padding": 1}
        self.conv1 = layer.Conv2d(input_shape[0], stem, **sizes, bias=False, step_mode="m")
        self.bn1 = layer.BatchNorm2d(stem, step_mode="m")
        self.sn1 = make()
        self.maxpool = layer.MaxPool2d(3, stride=2, padding=1, step_mode="m") if large else nn.Identity()
        inputs = stem
        self.stages = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for name, (blocks, channels) in zip(self.stages, stages, strict=True):
            stride = 1 if name == "layer1" else 2
            self.add_module(name, _stage(block, inputs, channels, blocks, stride, make, **options))
            inputs = channels * block.expansion
        self.avgpool = layer.AdaptiveAvgPool2d((1, 1), step_mode="m")
        self.fc: nn.Module = layer.Linear(inputs, classes, step_mode="m")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """``x [T, B, C, H, W]`` to ``[T, B, classes]``."""
        x = self.maxpool(self.sn1(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(self.avgpool(x).flatten(2))


def _stage(
    block: Any, inputs: int, channels: int, blocks: int, stride: int, make: Make, **options: Any
) -> nn.Sequential:
    outputs = channels * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            layer.Conv2d(inputs, outputs, 1, stride=stride, bias=False), layer.BatchNorm2d(outputs)
        )
    parts = [block(inputs, channels, stride, shortcut, spiking_neuron=make, **options)]
    parts += [block(outputs, channels, spiking_neuron=make, **options) for _ in range(1, blocks)]
    stage = nn.Sequential(*parts)
    functional.set_step_mode(stage, "m")
    return stage


def _stages(depth: int, width: int) -> list[tuple[int, int]]:
    return [(blocks, width * 2**number) for number, blocks in enumerate(DEPTHS[depth])]


def _sew_resnet(depth: int) -> Callable[..., nn.Module]:
    @card("imagenet", 4, "SEW-ResNet, arXiv 2102.04159")
    def build(
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        width: Count = 64,
        connect: Literal["ADD", "AND", "IAND"] = "ADD",
    ) -> nn.Module:
        block = sew_resnet.BasicBlock if depth < 50 else sew_resnet.Bottleneck
        return ResNet(block, _stages(depth, width), width, input_shape, classes, integrate_and_fire, cnf=connect)

    build.__name__ = f"sew_resnet{depth}"
    build.__doc__ = f"""SEW-ResNet-{depth}: IF neurons before the shortcut, whose spikes are joined by ``connect``.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. ``connect`` is ADD (as in the paper's tables), AND
    or IAND. SpikingJelly's model of this name with any ``width`` of the first stage.
    """
    return build


sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152 = map(_sew_resnet, DEPTHS)


@card("imagenet", 4, "arXiv 1512.03385, spiking as in SpikingJelly")
def spiking_resnet(
    input_shape: tuple[int, int, int], classes: int, *, depth: Count = 18, width: Count = 64
) -> nn.Module:
    """ResNet with IF neurons in place of ReLU: branch and shortcut are added before the neuron.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. ``depth`` is 18, 34, 50, 101 or 152. SpikingJelly's
    model of this name with any ``width`` of the first stage.
    """
    if depth not in DEPTHS:
        raise ValueError(f"depth is {depth}: give one of {', '.join(map(str, DEPTHS))}")
    block = plain.BasicBlock if depth < 50 else plain.Bottleneck
    return ResNet(block, _stages(depth, width), width, input_shape, classes, integrate_and_fire)


@card("cifar100", 4, "STBP-tdBN, arXiv 2011.05280")
def resnet19(
    input_shape: tuple[int, int, int], classes: int, *, width: Count = 128, tau: TimeConstant = 2.0
) -> nn.Module:
    """ResNet-19: stages of 3, 3 and 2 blocks with 128, 256 and 512 channels, then two linear layers with LIF between.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. The potential halves each step and takes the whole
    input, ``v = v / 2 + x``.
    """

    def make() -> nn.Module:
        return lif(tau, decay_input=False)

    stages = [(3, width), (3, 2 * width), (2, 4 * width)]
    network = ResNet(plain.BasicBlock, stages, width, input_shape, classes, make)
    network.fc = nn.Sequential(
        layer.Linear(4 * width, 2 * width, step_mode="m"), make(), layer.Linear(2 * width, classes, step_mode="m")
    )
    return network


@card("cifar100", 2, "QP-SNN, arXiv 2502.05905")
def resnet20(
    input_shape: tuple[int, int, int], classes: int, *, width: Count = 128, tau: TimeConstant = 2.0
) -> nn.Module:
    """ResNet-20: three stages of three blocks with 128, 256 and 512 channels, and one linear layer.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. With these widths the 3x3 convolutions hold
    the 68.4 MB that QP-SNN states for it; ``width=16`` is the network of arXiv 1512.03385, section 4.2.
    """
    stages = [(3, width), (3, 2 * width), (3, 4 * width)]
    return ResNet(plain.BasicBlock, stages, width, input_shape, classes, lambda: lif(tau, decay_input=False))


class _MSResNet(ms.MSResNet):
    """SpikingJelly's network with its output at every time step."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        if self.layer4 is not None:
            x = self.layer4(x)
        return self.head(self.avgpool(self.head_lif(x)).flatten(2))


@card("imagenet", 6, "MS-ResNet, arXiv 2112.08954")
def ms_resnet(input_shape: tuple[int, int, int], classes: int, *, depth: Count = 18, width: Count = 64) -> nn.Module:
    """MS-ResNet: the neuron stands before each convolution, and potentials are added in the shortcuts.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. ``depth`` is 18 or 34. SpikingJelly's model with
    its neurons (LIF, time constant 4/3, threshold 0.5); images below 96 pixels get a 3x3 stem.
    """
    if depth not in (18, 34):
        raise ValueError(f"depth is {depth}: give 18 or 34")
    kernel, stride = (7, 2) if input_shape[-1] >= LARGE else (3, 1)
    return _MSResNet(
        in_channels=input_shape[0],
        num_classes=classes,
        layers=DEPTHS[depth],
        base_channels=width,
        stem_kernel_size=kernel,
        stem_stride=stride,
    )
