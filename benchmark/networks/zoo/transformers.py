"""Spiking transformers: SpikingJelly's models, with their output at every time step.

They are the networks of the papers' public code: patches pool where they do there, and a convolution before a BatchNorm
has no bias in them.
"""

from collections import OrderedDict

from spikingjelly.activation_based import layer
from spikingjelly.activation_based.model import qkformer as qk
from spikingjelly.activation_based.model import spike_driven_transformer as sdt
from spikingjelly.activation_based.model import spikformer as spik
from torch import Tensor, nn

from benchmark.networks.inference.multistep import multistep
from benchmark.networks.zoo.card import card
from benchmark.networks.zoo.sizes import LARGE
from compressors.annotations import Count, Positive


@card("imagenet", 4, "Spikformer, arXiv 2209.15425")
def spikformer(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: Count = 384,
    depth: Count = 8,
    heads: Count = 12,
    mlp_ratio: Positive = 4.0,
) -> nn.Module:
    """Spikformer-8-384: convolutional patches, then blocks of spiking self-attention and a two-layer MLP, all LIF.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. Patches of 16 pixels, of 4 on images below 96
    (where the paper has ``depth=4``). Queries, keys and values come from one layer of ``3 width`` rows.
    """
    network = spik.Spikformer(
        in_channels=input_shape[0],
        img_size_h=input_shape[1],
        img_size_w=input_shape[2],
        patch_size=16 if input_shape[-1] >= LARGE else 4,
        num_classes=classes,
        embed_dims=width,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        depths=depth,
    )
    return multistep(pool_spikes(network))


def pool_spikes(network: spik.Spikformer) -> spik.Spikformer:
    """Let the patches' neurons fire before the pool, not after it, as the paper's own code does; in place."""
    stages = network.patch_embed.stages
    for i, stage in enumerate(stages):
        *rest, last = stage.conv_bn.block
        if isinstance(last, nn.MaxPool2d):
            stage.conv_bn.block, pool = layer.SeqToANNContainer(*rest), layer.SeqToANNContainer(last)
            stages[i] = nn.Sequential(OrderedDict(conv_bn=stage.conv_bn, neuron=stage.neuron, pool=pool))
    return network


class _SpikeDriven(sdt.SpikeDrivenTransformer):
    """The linear head comes before the mean over time, which the classifier takes."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.head_lif(x.flatten(3).mean(-1)))


@card("imagenet", 4, "Spike-driven Transformer, arXiv 2307.01694")
def spike_driven_transformer(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: Count = 384,
    depth: Count = 8,
    heads: Count = 8,
    mlp_ratio: Positive = 4.0,
) -> nn.Module:
    """Spike-driven Transformer-8-384: attention by masks and sums, membrane shortcuts, LIF neurons.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``. Patches of 16 pixels, of 4 on images below 96.
    """
    network = _SpikeDriven(
        in_channels=input_shape[0],
        num_classes=classes,
        embed_dims=width,
        num_heads=heads,
        depths=depth,
        mlp_ratio=mlp_ratio,
        pooling_stat="1111" if input_shape[-1] >= LARGE else "0011",
    )
    return _as_published(network, width, classes)


class _QKFormer(qk.QKFormer):
    """The linear head comes before the mean over time, which the classifier takes."""

    def forward(self, x: Tensor) -> Tensor:
        for embed, stage in (
            (self.patch_embed1, self.stage1),
            (self.patch_embed2, self.stage2),
            (self.patch_embed3, self.stage3),
        ):
            x = embed(x)
            for block in stage:
                x = block(x)
        return self.head(x.flatten(3).mean(-1))


@card("imagenet", 4, "QKFormer, arXiv 2403.16552")
def qkformer(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: Count = 384,
    depths: tuple[Count, Count, Count] = (1, 2, 7),
    heads: Count = 6,
    mlp_ratio: Positive = 4.0,
) -> nn.Module:
    """QKFormer-10-384: three stages of a quarter, half and the full width; Q-K attention in the first two.

    Input ``[T, B, C, H, W]``, output currents ``[T, B, classes]``; a position of the last stage stands for 16 pixels.
    """
    network = _QKFormer(
        in_channels=input_shape[0],
        num_classes=classes,
        embed_dims=width,
        num_heads=(heads, heads, heads),
        depths=tuple(depths),
        mlp_ratio=mlp_ratio,
    )
    return _as_published(network, width, classes)


def _as_published(network: nn.Module, width: int, classes: int) -> nn.Module:
    network.head = layer.Linear(width, classes, step_mode="m")
    for name, module in network.named_modules():
        if name.startswith("patch_embed") and isinstance(module, nn.Conv2d):
            module.bias = None
    return multistep(network)
