"""Which channels of a network belong together: found by following labels through a forward pass.

Every output channel of a layer gets a label, and every activation a tensor of labels of its own shape. Reshapes act on
labels as they act on activations, an addition of two activations ties the labels that meet, and a computation that
mixes channels in a way not known here fixes them. Channels that are tied in the end are removed together or not at all.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from compressors.network.layers import COMPRESSIBLE, evaluating
from hardware.functions import Kind, describe
from hardware.layers import TRANSPARENT
from hardware.neurons import is_neuron

FIXED = 0  # the group of all channels that cannot be cut


@dataclass(frozen=True)
class Weighted:
    """A layer with weights and the group of each of its channels: ``inputs [in]`` and ``outputs [out]``, int64."""

    module: nn.Linear | nn.Conv1d | nn.Conv2d
    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class PerChannel:
    """A BatchNorm or neuron that keeps ``tensors`` (names) with a leading channel axis; ``groups [C]`` int64."""

    module: nn.Module
    tensors: tuple[str, ...]
    groups: Tensor


@dataclass(frozen=True)
class Bundle:
    """Layers whose output channels are tied to each other's, and the groups that may be cut: ``groups [n]`` int64."""

    layers: tuple[str, ...]
    groups: Tensor


@dataclass(frozen=True)
class Channels:
    """Which channels of a network belong together. A group is cut whole or not at all; group 0 cannot be cut.

    Args:
        layers: layers with weights by name, in order of execution.
        others: BatchNorms and neurons with tensors of their own for each channel, by name.
        reasons: why channels of a layer are fixed, by the layer's name.
    """

    layers: dict[str, Weighted]
    others: dict[str, PerChannel]
    reasons: dict[str, str]

    def bundles(self) -> list[Bundle]:
        """The layers that can lose outputs, those tied to each other together, in order of execution."""
        bundles: list[tuple[list[str], set[int]]] = []  # names of layers, and their groups
        for name, layer in self.layers.items():
            groups = set(layer.outputs.tolist()) - {FIXED}
            if not groups:
                continue
            tied = [bundle for bundle in bundles if bundle[1] & groups]
            layers = [*(entry for bundle in tied for entry in bundle[0]), name]
            bundles = [bundle for bundle in bundles if bundle not in tied]
            bundles.append((layers, groups.union(*(bundle[1] for bundle in tied))))
        return [Bundle(tuple(layers), torch.tensor(sorted(groups))) for layers, groups in bundles]

    def why_fixed(self, names: Container[str]) -> str:
        """What holds all channels of those of the named layers that cannot lose any: ``'fc': it is the output``."""
        fixed = [name for name, layer in self.layers.items() if name in names and bool((layer.outputs == FIXED).all())]
        return ", ".join(f"{name!r}: {self.reasons[name]}" for name in fixed)


def find_channels(network: nn.Module, forward: Callable[[], Any]) -> Channels:
    """Follow the channels of every layer through a forward pass.

    Understood are linear, 1d and 2d convolutional layers (grouped ones lose whole groups), BatchNorm, neurons, dropout,
    pooling, reshapes, concatenation, means and sums over time or positions, and everything that acts on single
    entries. Channels that reach anything else, are split into heads or the like, meet the network's input in a sum, or
    are its output, are fixed.

    Args:
        network: any network of SpikingJelly and torch layers.
        forward: runs one small batch through it and returns its output.
    """
    trail = _Trail(network)
    with evaluating(network), ExitStack() as stack:
        for handle in trail.attach():
            stack.callback(handle.remove)
        with trail:
            output = forward()
    apply_to_collection(output, Tensor, lambda tensor: trail.fix(trail.labels(tensor), "it is the network's output"))
    return trail.result()


class _Trail(TorchFunctionMode):
    """Labels of activations while a network runs: 0 where nothing is known or may be cut.

    Layers, BatchNorms, neurons and dropout are looked at as wholes, everything else function by function.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        self.layers: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.others: dict[nn.Module, tuple[tuple[str, ...], Tensor]] = {}
        self._labelled: dict[int, tuple[Tensor, Tensor]] = {}  # holding the tensors keeps their ids theirs
        self._ties: list[Tensor] = []  # [2, n] each
        self._fixed: list[tuple[Tensor, str]] = []
        self._count = 0  # labels given out
        self._inside = 0
        self._around: list[list[Tensor]] = []  # inputs of the modules that are running

    def attach(self) -> Iterable[Any]:
        """Hook into the modules that are looked at as wholes."""
        for module in self.names:
            if isinstance(module, (*COMPRESSIBLE, _BatchNorm, *TRANSPARENT)) or is_neuron(module):
                yield module.register_forward_pre_hook(self._enter)
                yield module.register_forward_hook(self._leave, always_call=True)
            else:
                yield module.register_forward_pre_hook(lambda module, inputs: self._around.append(_tensors(inputs)))
                yield module.register_forward_hook(self._leave_around, always_call=True)

    def _leave_around(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._around.pop()

    def labels(self, tensor: Tensor) -> Tensor:
        """Labels of an activation, of its shape."""
        entry = self._labelled.get(id(tensor))
        return torch.zeros(tensor.shape, dtype=torch.int64) if entry is None else entry[1]

    def fix(self, labels: Tensor, reason: str) -> None:
        """Hold channels fixed."""
        self._fixed.append((labels[labels != FIXED].unique(), reason))

    def _give(self, tensor: Tensor, labels: Tensor) -> None:
        self._labelled[id(tensor)] = (tensor, labels.expand(tensor.shape).long().cpu().contiguous())

    def _tie(self, left: Tensor, right: Tensor, reason: str) -> Tensor:
        """Tie labels that meet, entry by entry; what meets none is fixed."""
        both = torch.stack([left.flatten(), right.flatten()]).unique(dim=1)
        alone = (both == FIXED).any(0)
        self._ties.append(both[:, ~alone])
        self.fix(both[:, alone], reason)
        return torch.where(left == FIXED, left, right)

    # Modules that are looked at as wholes ----------------------------------------------------------------------------

    def _enter(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inside += 1

    def _leave(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        self._inside -= 1
        if self._inside or not isinstance(output, Tensor):
            return
        labels = self.labels(inputs[0])
        if isinstance(module, COMPRESSIBLE):
            self._give(output, self._through_weights(module, labels, output))
            return
        tensors = _per_channel(module, inputs[0])
        if tensors:
            channels = self._along(labels, _channel_axis(module), f"{self._name(module)} sees it mixed")
            self.others[module] = (tensors, channels)
        if output.shape == labels.shape:
            self._give(output, labels)
        else:
            self.fix(labels, f"{self._name(module)} changes its shape")

    def _name(self, module: nn.Module) -> str:
        return f"{type(module).__name__} {self.names[module]!r}"

    def _through_weights(self, module: Any, labels: Tensor, output: Tensor) -> Tensor:
        """Labels of a layer's output; its channels get theirs on the first call."""
        spatial = 0 if isinstance(module, nn.Linear) else len(module.kernel_size)
        own = f"{self._name(module)} takes its inputs in an order of its own"
        inputs = self._along(labels, labels.ndim - 1 - spatial, own)
        if module not in self.layers:
            self.layers[module] = (inputs, self._new_labels(module, output.shape[output.ndim - 1 - spatial]))
        known, outputs = self.layers[module]
        self._tie(known, inputs, f"{self._name(module)} is shared with another input")
        if not {name for name, _ in module.named_parameters()} <= {"weight", "bias"}:
            self.fix(torch.cat([inputs, outputs]), f"{self._name(module)} has parameters of its own")
        if getattr(module, "groups", 1) > 1:
            self._tie_groups(inputs, outputs, module)
        return outputs.reshape(-1, *[1] * spatial)

    def _new_labels(self, module: nn.Module, count: int) -> Tensor:
        self._count += count
        return torch.arange(self._count - count, self._count) + 1

    def _tie_groups(self, inputs: Tensor, outputs: Tensor, module: nn.Conv2d) -> None:
        """Tie all channels of a group of a grouped convolution: groups stay of one size, and go as a whole."""
        members = torch.cat([inputs.view(module.groups, -1), outputs.view(module.groups, -1)], 1)
        first = members[:, -1:].expand_as(members)
        self._tie(first, members, f"{self._name(module)} has it in a group with the network's input")

    def _along(self, labels: Tensor, axis: int, reason: str) -> Tensor:
        """The labels along one axis, ``[C]``; fixed where they are not the same at every other place."""
        rows = labels.movedim(axis, 0).flatten(1)
        same = (rows == rows[:, :1]).all(1)
        self.fix(rows[~same], reason)
        return torch.where(same, rows[:, 0], FIXED)

    # Functions between them -------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and give its output the labels that belong to it."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self._inside and any(id(t) in self._labelled for t in _tensors((args, kwargs))):
            self._follow(func, args, kwargs, output)
        return output

    def _follow(self, func: Callable[..., Any], args: Any, kwargs: Any, output: Any) -> None:
        outputs, function = _tensors(output), describe(func)
        kind = None if function is None else function.kind
        if kind is Kind.SHAPE_ONLY or (not outputs and kind is not Kind.ASSIGNMENT):
            return
        name = getattr(func, "__name__", str(func)).strip("_")
        reached = f"it reaches {name}()"
        if kind in (Kind.RESHAPE, Kind.MOVE, Kind.PICK):
            self._reshape(name, kind, func, args, kwargs, outputs)
        elif kind in (Kind.ENTRYWISE, Kind.ADDITION):
            self._give(outputs[0], self._meet(_tensors((args, kwargs)), outputs[0].shape, reached))
        elif kind is Kind.REDUCTION:
            places = {key: value for key, value in kwargs.items() if key != "dtype"}
            self._give(outputs[0], self._pooled(self.labels(args[0]), reached, *args[1:], **places))
        elif function is not None and function.is_pooling:
            axes = tuple(range(-function.dimensions, 0))
            self._give(outputs[0], self._pooled(self.labels(args[0]), reached, axes, keepdim=True))
        else:
            for tensor in _tensors((args, kwargs)):
                self.fix(self.labels(tensor), reached)

    def _reshape(
        self, name: str, kind: Kind, func: Callable[..., Any], args: Any, kwargs: Any, outputs: Sequence[Tensor]
    ) -> None:
        moved = _tensors(func(*self._labels_for(args), **self._labels_for(kwargs)))
        if kind is Kind.RESHAPE and _varying(moved[0]) > _varying(self.labels(args[0])):
            self._fix_split(args[0], name)
            return
        for tensor, labels in zip(outputs, moved, strict=True):
            self._give(tensor, labels)

    def _fix_split(self, tensor: Tensor, name: str) -> None:
        """Channels were dealt out to several axes, as to heads of attention: how many is written in the module.

        It may be written in terms of its inputs' width, too, so these are fixed along.
        """
        for held in [tensor, *(self._around[-1] if self._around else [])]:
            self.fix(self.labels(held), f"its channels are split by {name}()")

    def _labels_for(self, arguments: Any) -> Any:
        return apply_to_collection(arguments, Tensor, self._labels_or_index)

    def _labels_or_index(self, tensor: Tensor) -> Tensor:
        """An activation's labels; a tensor that is an index or a mask stays what it is."""
        if id(tensor) in self._labelled or tensor.is_floating_point():
            return self.labels(tensor)
        return tensor.cpu()

    def _meet(self, tensors: Sequence[Tensor], shape: torch.Size, reason: str) -> Tensor:
        """Labels of the result where activations meet entry by entry."""
        met, *rest = sorted((self.labels(tensor) for tensor in tensors), key=lambda labels: not labels.any())
        for labels in rest:
            if labels.any() or not _constant_where_it_varies(met, labels):
                met, labels = torch.broadcast_tensors(met, labels)
                met = self._tie(met, labels, f"{reason} together with a tensor of another origin")
        return met.expand(shape)

    def _pooled(self, labels: Tensor, reason: str, *axes: Any, **options: Any) -> Tensor:
        """Labels after a pooling over ``axes``, fixed where it takes several channels together."""
        lowest, highest = (f(labels, *axes, **options) for f in (torch.amin, torch.amax))
        if torch.equal(lowest, highest):
            return highest
        self.fix(labels, f"{reason} together with other channels")
        return torch.zeros_like(highest)

    # The result -------------------------------------------------------------------------------------------------------

    def result(self) -> Channels:
        """Number the groups of labels that are tied."""
        groups, why = self._groups()
        layers = {self.names[m]: Weighted(m, groups[i], groups[o]) for m, (i, o) in self.layers.items()}  # type: ignore[arg-type]
        reasons = {}
        for module, (_, outputs) in self.layers.items():
            held = [why[int(label)] for label in outputs if int(label) in why]
            if held:
                reasons[self.names[module]] = held[0]
        others = {self.names[m]: PerChannel(m, tensors, groups[g]) for m, (tensors, g) in self.others.items()}
        return Channels(layers, others, reasons)

    def _groups(self) -> tuple[Tensor, dict[int, str]]:
        """The group of each label, ``[labels + 1]`` int64, and what holds it fixed, by label."""
        ties = torch.cat([torch.zeros(2, 0, dtype=torch.int64), *self._ties], 1).numpy()
        size = self._count + 1
        graph = coo_array((np.ones(ties.shape[1]), (ties[0], ties[1])), shape=(size, size))
        _, parts = connected_components(graph, directed=False)
        held: dict[int, str] = {}
        for labels, reason in self._fixed:
            for part in parts[labels.numpy()].tolist():
                held.setdefault(part, reason)
        why = {label: held[part] for label, part in enumerate(parts.tolist()) if part in held}
        groups = torch.from_numpy(parts.astype(np.int64)) + 1
        groups[[FIXED, *why]] = FIXED
        return groups, why


def _tensors(collection: Any) -> list[Tensor]:
    tensors: list[Tensor] = []
    apply_to_collection(collection, Tensor, tensors.append)
    return tensors


def _varying(labels: Tensor) -> int:
    """Number of axes along which labels change."""
    return sum(bool((labels != labels.narrow(axis, 0, 1)).any()) for axis in range(labels.ndim))


def _constant_where_it_varies(labels: Tensor, other: Tensor) -> bool:
    """Whether ``labels`` do not change along the axes (counted from the last) along which ``other`` has entries."""
    axes = tuple(-1 - i for i, size in enumerate(reversed(other.shape)) if size > 1 and i < labels.ndim)
    return not axes or torch.equal(torch.amin(labels, axes), torch.amax(labels, axes))


def _channel_axis(module: nn.Module) -> int:
    """The axis of channels of a BatchNorm's or neuron's input: ``[T, B, C, ...]`` or ``[B, C, ...]``."""
    return 2 if getattr(module, "step_mode", "s") == "m" else 1


def _per_channel(module: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Names of the parameters and buffers with a leading channel axis that a BatchNorm or neuron of its own has."""
    own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    if isinstance(module, _BatchNorm):
        return tuple(name for name, tensor in own.items() if tensor.shape == (module.num_features,))
    shape = x.shape[_channel_axis(module) :]
    return tuple(name for name, tensor in own.items() if tensor.ndim and _one_per_channel(tensor.shape, shape))


def _one_per_channel(shape: torch.Size, activation: torch.Size) -> bool:
    """Whether a tensor has as many entries along its first axis as ``activation`` ``[C, ...]``, or fewer elsewhere."""
    fits = len(shape) == len(activation) and shape[0] == activation[0] > 1
    return fits and all(own in (1, size) for own, size in zip(shape, activation, strict=True))
