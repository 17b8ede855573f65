"""Removing channels from a network: from layers and from all that depends on them; narrower plain layers remain.

Modules stay the same objects, and so do their parameters, whose data become smaller: references that optimizers and
hooks have to them stay valid. Which channels go together is found by :mod:`compressors.channels.tracing`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors.budget import BudgetError
from compressors.channels.tracing import FIXED, Bundle, Channels, Weighted
from compressors.network.layers import COMPRESSIBLE, LayerError, forget_state

Keep = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cut:
    """Groups of channels to remove from a network, and what is left of each of its layers."""

    channels: Channels
    groups: frozenset[int]

    def kept(self, groups: Tensor) -> Tensor:
        """Which channels stay: bool of the shape of ``groups``."""
        return ~torch.isin(groups, torch.tensor(sorted(self.groups), dtype=torch.int64))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a layer's weight after the cut."""
        layer = self.channels.layers[name]
        fan_in = layer.module.weight.shape[1] if _grouped(layer) else int(self.kept(layer.inputs).sum())
        return (int(self.kept(layer.outputs).sum()), fan_in, *layer.module.weight.shape[2:])

    def weights(self, names: Iterable[str]) -> int:
        """Number of weights of some layers after the cut."""
        return sum(torch.Size(self.shape(name)).numel() for name in names)

    def plan(self) -> dict[str, dict[str, list[int]]]:
        """What is left, JSON-able: layer name -> ``outputs`` and ``inputs`` kept, as indices."""
        return {
            name: {
                "outputs": self.kept(layer.outputs).nonzero().flatten().tolist(),
                "inputs": self.kept(layer.inputs).nonzero().flatten().tolist(),
            }
            for name, layer in self.channels.layers.items()
        }


def cut(network: nn.Module, planned: Cut, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Remove channels in place; all states of neurons are reset.

    Args:
        network: the network whose channels were traced.
        planned: the groups to remove.
        optimizers: their states (momentum) are cut alike; they have none before the first step.

    Raises:
        LayerError: a group that is fixed, or all outputs of a layer; nothing was changed.
    """
    _check(planned)
    narrow = _Narrowing(list(optimizers))
    for layer in planned.channels.layers.values():
        _narrow_layer(layer, planned, narrow)
    for other in planned.channels.others.values():
        kept = planned.kept(other.groups).nonzero().flatten()
        for name in other.tensors:
            narrow(other.module, name, 0, kept)
        if isinstance(other.module, _BatchNorm):
            other.module.num_features = len(kept)
    forget_state(network)


def _check(planned: Cut) -> None:
    if FIXED in planned.groups:
        raise LayerError("the group 0 holds all channels that cannot be cut: leave it out")
    for name, layer in planned.channels.layers.items():
        if not planned.kept(layer.outputs).any():
            raise LayerError(
                f"layer {name!r} would lose all of its {len(layer.outputs)} outputs: leave it one at least"
            )


class _Narrowing:
    """Keeps some entries of a parameter or buffer along one axis, and the same ones of its state in the optimizers."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    def __call__(self, module: nn.Module, name: str, axis: int, kept: Tensor) -> None:
        tensor = getattr(module, name)
        if tensor is None or tensor.shape[axis] == len(kept):
            return
        index = kept.to(tensor.device)
        for optimizer in self.optimizers:
            state = optimizer.state.get(tensor, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == tensor.shape:
                    state[key] = value.index_select(axis, index)
        tensor.grad = None
        tensor.data = tensor.data.index_select(axis, index)


def _grouped(layer: Weighted) -> bool:
    return getattr(layer.module, "groups", 1) > 1


def _narrow_layer(layer: Weighted, planned: Cut, narrow: _Narrowing) -> None:
    module: Any = layer.module
    outputs, inputs = (planned.kept(groups).nonzero().flatten() for groups in (layer.outputs, layer.inputs))
    narrow(module, "weight", 0, outputs)
    narrow(module, "bias", 0, outputs)
    if _grouped(layer):
        module.groups = module.groups * len(inputs) // module.in_channels  # whole groups are removed
    else:
        narrow(module, "weight", 1, inputs)
    _set_widths(module, len(inputs), len(outputs))


def _set_widths(module: Any, inputs: int, outputs: int) -> None:
    """Set the attributes in which a layer keeps its widths."""
    kind = "features" if isinstance(module, nn.Linear) else "channels"
    setattr(module, f"in_{kind}", inputs)
    setattr(module, f"out_{kind}", outputs)


def adopt_widths(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Narrow a network to the shapes of a cut network's state dict, so that it can be loaded; values are undefined.

    Tensors of other shapes that are not narrower keep theirs, and ``load_state_dict`` will refuse them.
    """
    own = network.state_dict()
    narrower = {name: tensor.shape for name, tensor in state.items() if name in own and _narrower(tensor, own[name])}
    set_shapes(network, narrower)


def set_shapes(network: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
    """Give parameters and buffers (by qualified name) other widths; their values are undefined afterwards."""
    for prefix, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        for name, tensor in own.items():
            shape = shapes.get(f"{prefix}.{name}" if prefix else name, tensor.shape)
            if shape != tensor.shape:
                tensor.data = tensor.new_empty(shape)
        _set_numbers(module)
    forget_state(network)


def _narrower(tensor: Tensor, than: Tensor) -> bool:
    fits = tensor.ndim == than.ndim and all(a <= b for a, b in zip(tensor.shape, than.shape, strict=True))
    return fits and tensor.shape != than.shape


def _set_numbers(module: Any) -> None:
    """Set the attributes in which a module keeps its widths from the shapes of its tensors."""
    if isinstance(module, _BatchNorm):
        module.num_features = module.num_features if module.weight is None else len(module.weight)
    elif isinstance(module, nn.Linear):
        _set_widths(module, *reversed(module.weight.shape))
    elif isinstance(module, COMPRESSIBLE):
        outputs, fan_in = module.weight.shape[:2]
        convolution: Any = module
        if convolution.groups > 1:
            convolution.groups = convolution.groups * outputs // convolution.out_channels
        _set_widths(convolution, fan_in * convolution.groups, outputs)


def removal_order(bundles: Iterable[Bundle], keys: Mapping[int, float]) -> list[int]:
    """Groups by their key, least first, without the one that stays in each bundle: its highest, of equal ones the last.

    Args:
        bundles: the layers that can be narrowed.
        keys: by group; any number that can be compared between bundles.
    """
    order = []
    for bundle in bundles:
        groups = sorted(bundle.groups.tolist(), key=lambda group: keys[group])
        order += groups[:-1]
    return sorted(order, key=lambda group: keys[group])


def cut_to(channels: Channels, order: list[int], names: Iterable[str], density: float) -> Cut:
    """The fewest first groups of ``order`` whose removal leaves at most this fraction of the named layers' weights.

    Raises:
        BudgetError: even the removal of all leaves more.
    """
    names = tuple(names)

    def remaining(count: int) -> int:
        return Cut(channels, frozenset(order[:count])).weights(names)

    most, least = density * remaining(0), remaining(len(order))
    if least > most:
        raise BudgetError(
            f"density is {density:g}: {least / remaining(0):.2%} of the weights are left with one channel in each "
            f"layer that can be narrowed ({channels.why_fixed(names) or 'which all can'}); ask for more than that, or "
            "include fewer layers"
        )
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if remaining(middle) <= most else (middle + 1, high)
    return Cut(channels, frozenset(order[:low]))
