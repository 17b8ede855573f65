"""Which layers of a network can be compressed, in order of execution, and what follows each of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

COMPRESSIBLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, layer.Dropout, layer.Dropout2d)


class LayerError(ValueError):
    """A network, layer or pattern that a compressor cannot work with."""


@dataclass(frozen=True)
class Layer:
    """A layer that can be compressed, with the BatchNorm and the neuron that take its output (None where none does)."""

    name: str
    module: nn.Linear | nn.Conv1d | nn.Conv2d
    norm: _BatchNorm | None
    neuron: nn.Module | None
    timesteps: int  # T of its input [T, B, ...]

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for a linear layer."""
        return getattr(self.module, "groups", 1)

    @property
    def rows(self) -> Tensor:
        """The weight as a matrix, one row an output unit: ``[out, in/groups * taps]`` (a view)."""
        return self.module.weight.detach().flatten(1)

    def row_gain(self) -> Tensor:
        """The factor BatchNorm puts on each output unit, ``gamma / sqrt(var + eps)``: ``[out]`` (ones without it)."""
        norm = self.norm
        if norm is None or norm.running_var is None:
            return torch.ones(len(self.rows), device=self.rows.device)
        gain = torch.rsqrt(norm.running_var + norm.eps)
        return gain if norm.weight is None else gain * norm.weight.detach()


def is_neuron(module: nn.Module) -> bool:
    """Whether ``module`` is a spiking neuron: a SpikingJelly module with a membrane potential ``v`` and a threshold."""
    return isinstance(module, MemoryModule) and hasattr(module, "v_threshold")


@contextmanager
def hooks(modules: Sequence[nn.Module], hook: Callable[..., None], before: bool = False) -> Iterator[None]:
    """Register ``hook`` on every module (before or after its forward pass), and take it off again whatever happens."""
    handles = [m.register_forward_pre_hook(hook) if before else m.register_forward_hook(hook) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the mode of every module and a silent membrane afterwards."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        functional.reset_net(network)


def find_layers(network: nn.Module, forward: Callable[[], Any]) -> list[Layer]:
    """The compressible layers that a forward pass runs through, in order of execution.

    What follows a layer is found by following its output tensor from module to module, not by names or positions:
    through an optional BatchNorm and dropout to the neuron that takes it. A layer whose output is pooled, added or
    otherwise computed with before a neuron has no neuron here.

    Args:
        network: any network of SpikingJelly and torch layers.
        forward: runs one small batch through it.

    Raises:
        LayerError: the pass ran through no compressible layer.
    """
    names = {module: name for name, module in network.named_modules()}
    leaves = [module for module in names if is_neuron(module) or not any(module.children())]
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0], output))  # holding the tensors keeps their storages distinct

    with evaluating(network), hooks(leaves, record):
        forward()
    found = {module: x for module, x, _ in calls if isinstance(module, COMPRESSIBLE)}
    if not found:
        raise LayerError("the network has no linear or convolutional layer that its forward pass reaches")
    return [
        Layer(names[module], module, *_followers(module, calls), _timesteps(names[module], module, x))
        for module, x in found.items()
    ]


def _timesteps(name: str, module: nn.Module, x: Tensor) -> int:
    if getattr(module, "step_mode", None) != "m":
        raise LayerError(
            f"layer {name!r} sees one time step at a time: build the network from "
            "spikingjelly.activation_based.layer in step mode 'm', inputs [T, B, ...]"
        )
    return len(x)


def _storage(tensor: Tensor) -> int:
    """What a tensor and its views share: a reshape between two modules does not break the trail."""
    return tensor.untyped_storage().data_ptr()


def _followers(
    start: nn.Module, calls: list[tuple[nn.Module, Tensor, Tensor]]
) -> tuple[_BatchNorm | None, nn.Module | None]:
    """The BatchNorm and the neuron that the output of ``start`` reaches."""
    norm = None
    first = next(i for i, (module, _, _) in enumerate(calls) if module is start)
    trail = _storage(calls[first][2])
    for module, taken, output in calls[first + 1 :]:
        if _storage(taken) != trail:
            continue
        if is_neuron(module):
            return norm, module
        if isinstance(module, _BatchNorm) and norm is None:
            norm = module
        elif not isinstance(module, TRANSPARENT):
            break
        trail = _storage(output)
    return norm, None


def select(layers: list[Layer], include: Sequence[str], exclude: Sequence[str]) -> list[Layer]:
    """The layers whose names match a pattern of ``include`` and none of ``exclude`` (shell patterns).

    Raises:
        LayerError: a pattern matches no layer, or no layer is left.
    """

    def matches(entry: Layer, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(entry.name, pattern) for pattern in patterns)

    known = ", ".join(entry.name for entry in layers)
    for pattern in (*include, *exclude):
        if not any(matches(entry, [pattern]) for entry in layers):
            raise LayerError(f"the pattern {pattern!r} matches no layer; the network's layers: {known}")
    chosen = [entry for entry in layers if matches(entry, include) and not matches(entry, exclude)]
    if not chosen:
        raise LayerError(f"no layer is left to compress: `exclude` takes out all of: {known}")
    return chosen
