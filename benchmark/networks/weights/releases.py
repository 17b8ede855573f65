"""Weights of public releases, under the names and in the shapes that SpikingJelly 2 gives them.

Known are the releases of SEW-ResNet and Spiking-ResNet (arXiv 2102.04159), MS-ResNet (2112.08954), Spikformer
(2209.15425), the Spike-driven Transformer (2307.01694) and QKFormer (2403.16552). The neurons of MS-ResNet's own code
fire above the threshold, and here also at it.
"""

import re
from collections.abc import Container, Mapping
from itertools import takewhile

import torch
from torch import Tensor

SIMPLER = (
    # Of DistributedDataParallel and of SpikingJelly's former containers, and of torch.compile.
    (r"(^|\.)(?:(?:module|_orig_mod)\.)+", r"\1"),
    (r"^conv([2-5])_x\.", lambda match: f"layer{int(match[1]) - 1}."),  # MS-ResNet, from here ...
    (r"^conv1\.([01])\.", r"stem.\1."),
    (r"^fc\.", "head."),
    (r"\.bn\.", "."),  # ... to here
    (r"^block\.", "blocks."),
    (r"\.tssa\.", ".attn."),
    (r"_linear\.", "_conv."),  # Spikformer for CIFAR, where the others convolve with a window of one
)
"""Pattern -> replacement in a public name, one after the other until the network knows it."""

WRAPPERS = 8
"""Names in front of all others that are tried without."""

PARTS = (
    # Residual networks: a convolution and its BatchNorm in one container.
    (r"(.*\.)?conv(\d)", r"\1conv\2.0"),
    (r"(.*\.)?bn(\d)", r"\1conv\2.1"),
    (r"(.*\.)downsample\.([01])", r"\1downsample.0.\2"),
    (r"(.*\.)conv1", r"\1residual_function.1"),
    (r"(.*\.)bn1", r"\1residual_function.2"),
    (r"(.*\.)conv2", r"\1residual_function.4"),
    (r"(.*\.)bn2", r"\1residual_function.5"),
    (r"(.*\.)downsample\.([01])", r"\1shortcut.\2"),
    # Transformers: patches, attention, MLP.
    (r"patch_embed\.stages\.0\.(?:conv_bn\.block\.)?0", "patch_embed.proj_conv"),
    (r"patch_embed\.stages\.0\.(?:conv_bn\.block\.)?1", "patch_embed.proj_bn"),
    (r"patch_embed\.stages\.(\d)\.(?:conv_bn\.block\.)?0", r"patch_embed.proj_conv\1"),
    (r"patch_embed\.stages\.(\d)\.(?:conv_bn\.block\.)?1", r"patch_embed.proj_bn\1"),
    (r"patch_embed\.final_stage\.0", "patch_embed.proj_conv3"),
    (r"patch_embed\.final_stage\.1", "patch_embed.proj_bn3"),
    (r"patch_embed\.positional_encoding\.conv_bn\.block\.0", "patch_embed.rpe_conv"),
    (r"patch_embed\.positional_encoding\.conv_bn\.block\.1", "patch_embed.rpe_bn"),
    (r"patch_embed1\.(conv|bn)1", r"patch_embed1.proj_\1"),
    (r"patch_embed1\.(conv|bn)2", r"patch_embed1.proj1_\1"),
    (r"patch_embed1\.(conv|bn)3", r"patch_embed1.proj2_\1"),
    (r"patch_embed([23])\.(conv|bn)1", r"patch_embed\1.proj3_\2"),
    (r"patch_embed([23])\.(conv|bn)2", r"patch_embed\1.proj4_\2"),
    (r"(patch_embed\d)\.shortcut\.0", r"\1.proj_res_conv"),
    (r"(patch_embed\d)\.shortcut\.1", r"\1.proj_res_bn"),
    (r"(.*\.attn)\.qkv_conv_bn\.0", r"\1.q_conv", r"\1.k_conv", r"\1.v_conv"),
    (r"(.*\.attn)\.qkv_conv_bn\.1", r"\1.q_bn", r"\1.k_bn", r"\1.v_bn"),
    (r"(.*\.attn)\.qk_conv_bn\.0", r"\1.q_conv", r"\1.k_conv"),
    (r"(.*\.attn)\.qk_conv_bn\.1", r"\1.q_bn", r"\1.k_bn"),
    (r"(.*\.attn)\.proj_conv_bn\.0", r"\1.proj_conv"),
    (r"(.*\.attn)\.proj_conv_bn\.1", r"\1.proj_bn"),
    (r"(.*\.mlp)\.fc(\d)(?:\.0)?", r"\1.fc\2_conv"),
    (r"(.*\.mlp)\.(?:bn(\d)|fc(\d)\.1)", r"\1.fc\2\3_bn"),
)
"""Pattern of a module's name here -> the public modules whose rows it consists of, in their order."""

UNUSED = re.compile(r"\.talking_heads\.weight$|\.norm[12]\.(?:weight|bias)$")
"""Public names of weights that the public code makes and never computes with."""


def translated(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state as the network takes it, where public names stand for its own; others stay as they are.

    Rows that lie together here (queries, keys and values) are joined; a window of one position may have fewer axes; the
    bias of a convolution that has none here goes into the mean of the BatchNorm after it, which computes the same.

    Args:
        state: tensors by name, of a public release or not.
        expected: the network's own.
    """
    state = _unwrapped(state, expected)
    public = {_simpler(name, expected): name for name in state} | {name: name for name in state if name in expected}
    sources = {name: [public[part] for part in _sources(name, public)] for name in expected}
    used = {part for parts in sources.values() for part in parts}
    tensors = dict(state)
    for simplified, name in public.items():
        mean = public.get(simplified.replace("_conv.bias", "_bn.running_mean"))
        if name not in used and mean in used and mean != name:
            tensors[mean] = tensors[mean] - tensors[name]
            used.add(name)
    found = {
        name: _joined([tensors[part] for part in parts], expected[name]) for name, parts in sources.items() if parts
    }
    return found | {name: tensors[name] for name in state if name not in used and not UNUSED.search(name)}


def _unwrapped(state: Mapping[str, Tensor], expected: Container[str]) -> dict[str, Tensor]:
    """The state under the names that most of the network's own are among: as they are, or without wrappers' names.

    Names of wrappers are those that all names begin with, and ``network.``, which a LightningModule's beside its
    metrics and losses begin with.
    """
    parts = list(zip(*(name.split(".", WRAPPERS)[:-1] for name in state), strict=False))
    shared = [part[0] for part in takewhile(lambda part: len(set(part)) == 1, parts)]
    prefixes = ["".join(f"{part}." for part in shared[:depth]) for depth in range(len(shared) + 1)]
    named = [{name: name.removeprefix(prefix) for name in state} for prefix in [*prefixes, "network."]]
    named = [names for names in named if len(set(names.values())) == len(names)]
    best = max(named, key=lambda names: sum(_simpler(name, expected) in expected for name in names.values()))
    return {best[name]: tensor for name, tensor in state.items()}


def _simpler(name: str, expected: Container[str]) -> str:
    for pattern, replacement in SIMPLER:
        name = name if name in expected else re.sub(pattern, replacement, name)
    return name


def _sources(name: str, public: Container[str]) -> list[str]:
    """The simplified public names that a parameter or buffer consists of; none where they are not all there."""
    if name in public:
        return [name]
    module, _, kind = name.rpartition(".")
    for pattern, *parts in PARTS:
        if match := re.fullmatch(pattern, module):
            names = [f"{match.expand(part)}.{kind}" for part in parts]
            if all(part in public for part in names):
                return names
    return []


def _joined(parts: list[Tensor], expected: Tensor) -> Tensor:
    """The parts as one tensor, with as many axes of size one as are expected; of counts of batches the first."""
    joined = torch.cat(parts) if len(parts) > 1 and parts[0].ndim else parts[0]
    return joined.view(expected.shape) if joined.squeeze().shape == expected.squeeze().shape else joined
