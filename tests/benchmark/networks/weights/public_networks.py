"""Networks as their public releases name and compute them: weights by public name, and the scores they give.

Written from the papers and the public code's names, with nothing but torch's functions, as something to compare with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

T = 3


class Weights(dict):
    """Random weights by public name, float64; `self[name](x)` of the releases is `apply(name, x)` here."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def layer(self, name: str, rows: int, *columns: int, bias: bool = False) -> None:
        self[f"{name}.weight"] = self.draw(rows, *columns) / torch.tensor(columns).prod().sqrt()
        if bias:
            self[f"{name}.bias"] = self.draw(rows) / 2

    def norm(self, name: str, channels: int) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = 1 + self.draw(channels).abs(), self.draw(channels) / 4
        self[f"{name}.running_mean"] = self.draw(channels) / 4
        self[f"{name}.running_var"] = 0.1 + self.draw(channels).abs() / 4
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def apply(self, layer: str, norm: str | None, x: Tensor, stride: int = 1) -> Tensor:
        """A layer, and the BatchNorm after it: `x [T, B, C, H, W]`, padded so that a stride of one keeps its size."""
        weight = self[f"{layer}.weight"]
        weight = weight.reshape(*weight.shape, *[1] * (4 - weight.ndim))
        y = F.conv2d(x.flatten(0, 1), weight, self.get(f"{layer}.bias"), stride, weight.shape[-1] // 2)
        if norm is not None:
            statistics = (self[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
            y = F.batch_norm(y, *statistics)
        return y.unflatten(0, (len(x), -1))

    def unit(self, name: str, x: Tensor, kind: str = "conv", stride: int = 1) -> Tensor:
        """`name_conv`, and its `name_bn`."""
        return self.apply(f"{name}_{kind}", f"{name}_bn", x, stride)

    def add_unit(self, name: str, rows: int, *columns: int, kind: str = "conv", bias: bool = False) -> None:
        self.layer(f"{name}_{kind}", rows, *columns, bias=bias)
        self.norm(f"{name}_bn", rows)

    def head(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])


def lif(x: Tensor, threshold: float = 1.0) -> Tensor:
    """Spikes of `v += (x - v) / 2`, reset to zero."""
    v, spikes = torch.zeros_like(x[0]), []
    for current in x:
        v = v + (current - v) / 2
        spikes.append((v >= threshold).to(x))
        v = v * (1 - spikes[-1])
    return torch.stack(spikes)


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, (len(x), -1))


def by_head(x: Tensor, heads: int) -> Tensor:
    """`[T, B, C, H, W]` as `[T, B, heads, N, C / heads]`."""
    return x.flatten(3).unflatten(2, (heads, -1)).transpose(3, 4)


def together(x: Tensor, like: Tensor) -> Tensor:
    return x.transpose(3, 4).reshape(like.shape)


# Spikformer and Spike-driven Transformer: the same patches but for the order at their end -----------------------------


def add_patches(w: Weights, width: int) -> None:
    widths = (3, width // 8, width // 4, width // 2, width)
    for i, number in enumerate(("", "1", "2", "3")):
        w.layer(f"patch_embed.proj_conv{number}", widths[i + 1], widths[i], 3, 3)
        w.norm(f"patch_embed.proj_bn{number}", widths[i + 1])
    w.add_unit("patch_embed.rpe", width, width, 3, 3)


def add_blocks(w: Weights, width: int, depth: int, kind: str, axes: int, attention: int) -> None:
    """``axes`` and ``attention``: axes of the windows in the MLPs and in the attention."""
    for block in (f"block.{i}" for i in range(depth)):
        for part in "qkv":
            w.add_unit(f"{block}.attn.{part}", width, width, *[1] * attention, kind=kind, bias=kind == "linear")
        w.add_unit(f"{block}.attn.proj", width, width, *[1] * attention, kind=kind, bias=True)
        w.add_unit(f"{block}.mlp.fc1", 4 * width, width, *[1] * axes, kind=kind, bias=True)
        w.add_unit(f"{block}.mlp.fc2", width, 4 * width, *[1] * axes, kind=kind, bias=True)


def spikformer(width: int, depth: int, heads: int, classes: int, kind: str) -> tuple[Weights, object]:
    """`kind` is conv (the release for ImageNet) or linear (for CIFAR); pools after the last two neurons."""
    w = Weights()
    add_patches(w, width)
    add_blocks(w, width, depth, kind, *((2, 1) if kind == "conv" else (0, 0)))
    for i in range(depth):
        w[f"block.{i}.norm1.weight"] = w.draw(width)  # the public code makes these, and never uses them
        w[f"block.{i}.norm2.bias"] = w.draw(width)
    w.layer("head", classes, width, bias=True)

    def forward(images: Tensor) -> Tensor:
        x = images.expand(T, *images.shape)
        for i, number in enumerate(("", "1", "2", "3")):
            x = lif(w.apply(f"patch_embed.proj_conv{number}", f"patch_embed.proj_bn{number}", x))
            x = pool(x) if i >= 2 else x
        x = x + lif(w.unit("patch_embed.rpe", x))
        for block in (f"block.{i}" for i in range(depth)):
            q, k, v = (by_head(lif(w.unit(f"{block}.attn.{part}", x, kind)), heads) for part in "qkv")
            attended = lif(together(q @ (k.transpose(-2, -1) @ v) * 0.125, x), 0.5)
            x = x + lif(w.unit(f"{block}.attn.proj", attended, kind))
            x = x + lif(w.unit(f"{block}.mlp.fc2", lif(w.unit(f"{block}.mlp.fc1", x, kind)), kind))
        return w.head("head", x.flatten(3).mean((0, 3)))

    return w, forward


def spike_driven_transformer(width: int, depth: int, heads: int, classes: int) -> tuple[Weights, object]:
    w = Weights()
    add_patches(w, width)
    add_blocks(w, width, depth, "conv", 2, 2)
    for i in range(depth):
        w.layer(f"block.{i}.attn.talking_heads", heads, heads, 1)  # made, and never used
    w.layer("head", classes, width, bias=True)

    def forward(images: Tensor) -> Tensor:
        x = images.expand(T, *images.shape)
        for i, number in enumerate(("", "1", "2")):
            x = lif(w.apply(f"patch_embed.proj_conv{number}", f"patch_embed.proj_bn{number}", x))
            x = pool(x) if i >= 2 else x
        x = pool(w.apply("patch_embed.proj_conv3", "patch_embed.proj_bn3", x))
        x = x + w.unit("patch_embed.rpe", lif(x))
        for block in (f"block.{i}" for i in range(depth)):
            seen = lif(x)
            q, k, v = (by_head(lif(w.unit(f"{block}.attn.{part}", seen)), heads) for part in "qkv")
            chosen = q * lif((k * v).sum(3, keepdim=True), 0.5)
            x = x + w.unit(f"{block}.attn.proj", together(chosen, x))
            x = x + w.unit(f"{block}.mlp.fc2", lif(w.unit(f"{block}.mlp.fc1", lif(x))))
        return w.head("head", lif(x.flatten(3).mean(3))).mean(0)

    return w, forward


# QKFormer -------------------------------------------------------------------------------------------------------------


def add_stage(w: Weights, stage: int, depth: int, inputs: int, channels: int) -> None:
    embed = f"patch_embed{stage}"
    first, second = STEPS[stage]
    w.add_unit(f"{embed}.{first}", channels, inputs, 3, 3)
    w.add_unit(f"{embed}.{second}", channels, channels, 3, 3)
    w.add_unit(f"{embed}.proj_res", channels, inputs, 1, 1)
    attention, parts = ("attn", "qkv") if stage == 3 else ("tssa", "qk")
    for block in (f"stage{stage}.{i}" for i in range(depth)):
        for part in parts:
            w.add_unit(f"{block}.{attention}.{part}", channels, channels, 1)
        w.add_unit(f"{block}.{attention}.proj", channels, channels, 1, bias=True)
        w.add_unit(f"{block}.mlp.fc1", 4 * channels, channels, 1, 1, bias=True)
        w.add_unit(f"{block}.mlp.fc2", channels, 4 * channels, 1, 1, bias=True)


STEPS = {1: ("proj1", "proj2"), 2: ("proj3", "proj4"), 3: ("proj3", "proj4")}


def qkformer(width: int, depths: tuple[int, int, int], heads: int, classes: int) -> tuple[Weights, object]:
    w = Weights()
    widths = (width // 8, width // 4, width // 2, width)
    w.add_unit("patch_embed1.proj", widths[0], 3, 3, 3)
    for stage, depth in enumerate(depths, 1):
        add_stage(w, stage, depth, widths[stage - 1], widths[stage])
    w.layer("head", classes, width, bias=True)

    def patches(stage: int, x: Tensor) -> Tensor:
        embed = f"patch_embed{stage}"
        first, second = STEPS[stage]
        x = lif(pool(w.unit(f"{embed}.proj", x))) if stage == 1 else x
        deep = lif(w.unit(f"{embed}.{second}", lif(pool(w.unit(f"{embed}.{first}", x)))))
        return deep + lif(w.unit(f"{embed}.proj_res", x, stride=2))

    def tokens(block: str, x: Tensor) -> Tensor:
        q, k = (by_head(lif(w.unit(f"{block}.tssa.{part}", x)), heads) for part in "qk")
        return together(lif(q.sum(4, keepdim=True), 0.5) * k, x)

    def attended(block: str, x: Tensor) -> Tensor:
        q, k, v = (by_head(lif(w.unit(f"{block}.attn.{part}", x)), heads) for part in "qkv")
        return lif(together(q @ (k.transpose(-2, -1) @ v) * 0.125, x), 0.5)

    def forward(images: Tensor) -> Tensor:
        x = images.expand(T, *images.shape)
        for stage, depth in enumerate(depths, 1):
            x = patches(stage, x)
            for block in (f"stage{stage}.{i}" for i in range(depth)):
                kind, attention = ("attn", attended) if stage == 3 else ("tssa", tokens)
                x = x + lif(w.unit(f"{block}.{kind}.proj", attention(block, x)))
                x = x + lif(w.unit(f"{block}.mlp.fc2", lif(w.unit(f"{block}.mlp.fc1", x))))
        return w.head("head", x.flatten(3).mean((0, 3)))

    return w, forward


# MS-ResNet ------------------------------------------------------------------------------------------------------------


def ms_resnet(width: int, classes: int) -> tuple[Weights, object]:
    """Of 18 layers, with a stem for small images."""
    w = Weights()
    w.layer("conv1.0", width, 3, 3, 3)
    w.norm("conv1.1.bn", width)
    blocks, inputs = [], width
    for stage in range(4):
        for i in range(2):
            block, outputs = f"conv{stage + 2}_x.{i}", width * 2**stage
            w.layer(f"{block}.residual_function.1", outputs, inputs, 3, 3)
            w.norm(f"{block}.residual_function.2.bn", outputs)
            w.layer(f"{block}.residual_function.4", outputs, outputs, 3, 3)
            w.norm(f"{block}.residual_function.5.bn", outputs)
            if i == 0:
                w.layer(f"{block}.shortcut.0", outputs, inputs, 1, 1)
                w.norm(f"{block}.shortcut.1.bn", outputs)
            blocks.append((block, 1 if i else 2))
            inputs = outputs
    w.layer("fc", classes, inputs, bias=True)

    def fire(x: Tensor) -> Tensor:
        """A quarter of the potential is left after a step, none after a spike."""
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v / 4 + current
            spikes.append((v > 0.5).to(x))
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)

    def forward(images: Tensor) -> Tensor:
        x = w.apply("conv1.0", "conv1.1.bn", images.expand(T, *images.shape))
        for block, stride in blocks:
            deep = w.apply(f"{block}.residual_function.1", f"{block}.residual_function.2.bn", fire(x), stride)
            deep = w.apply(f"{block}.residual_function.4", f"{block}.residual_function.5.bn", fire(deep))
            short = w.apply(f"{block}.shortcut.0", f"{block}.shortcut.1.bn", x, stride) if stride == 2 else x
            x = deep + short
        return w.head("fc", fire(x).mean((0, 3, 4)))

    return w, forward


# SEW-ResNet -----------------------------------------------------------------------------------------------------------


def former(name: str) -> str:
    """A parameter's name in SEW-ResNet's release: convolution and BatchNorm in one container, under DDP."""
    for number in "123":
        if name.startswith("layer"):
            name = name.replace(f".conv{number}.", f".conv{number}.module.0.")
            name = name.replace(f".bn{number}.", f".conv{number}.module.1.")
    for number in "01":
        name = name.replace(f".downsample.{number}.", f".downsample.0.module.{number}.")
    return f"module.{name}"
