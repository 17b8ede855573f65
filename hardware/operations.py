"""What a call of a PyTorch function means: which weight meets which input, and how.

There is a reader for each kind of function that costs something. It takes the arguments of a call and returns what
meets; nothing is counted here. A reader returns None if the call is no operation of the network (a matrix product of
two constants, say).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from hardware.functions import Function, Kind
from hardware.geometry import Geometry, adaptive_windows, sliding_windows, window_fan_out


@dataclass(frozen=True)
class Weighted:
    """An input meets a weight.

    Args:
        input: [..., in] for a linear layer, [..., C, *size] for a convolution.
        weight: [out, in] or [C_out, C_in / groups, *kernel].
        geometry: None for a linear layer.
        bias: [out] or None.
        stored: the weight as the call has it; None where `weight` is that.
    """

    input: Tensor
    weight: Tensor
    geometry: Geometry | None = None
    bias: Tensor | None = None
    stored: Tensor | None = None

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution, whose weight is [C_in, C_out / groups, *kernel]."""
        return self.geometry is not None and self.geometry.transposed

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """Shape of one input without batch and time."""
        return tuple(self.input.shape[1 - self.weight.dim() :])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output without batch and time."""
        if self.geometry is None:
            return (len(self.weight),)
        channels = self.weight.shape[1] * self.geometry.groups if self.transposed else len(self.weight)
        return (channels, *self.geometry.output_size(self.entry_shape[1:], self.weight.shape[2:]))

    @property
    def fan_in(self) -> int:
        """Weights per output entry, borders aside."""
        groups = self.geometry.groups if self.geometry else 1
        outputs, inputs, *kernel = self.weight.shape
        return (outputs // groups if self.transposed else inputs) * prod(kernel)

    @property
    def fan_out(self) -> int:
        """Weights per input entry, borders and stride aside."""
        groups = self.geometry.groups if self.geometry else 1
        outputs, inputs, *kernel = self.weight.shape
        return (inputs if self.transposed else outputs // groups) * prod(kernel)


@dataclass(frozen=True)
class Product:
    """Two stacks of matrices meet, left [..., n, k], right [..., k, m]: two activations, or one that is learnt.

    Args:
        left: an activation.
        right: another one, or something learnt.
        stacked: whether the right one is learnt, and its matrices differ: what is stacked are not samples, then.
    """

    left: Tensor
    right: Tensor
    stacked: bool = False

    @property
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack of products."""
        return tuple(torch.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2]))


@dataclass(frozen=True)
class Pooling:
    """Events enter pooling windows: input [..., *size], each the `fan_out` windows over it: float64 [*size]."""

    input: Tensor
    fan_out: Tensor


@dataclass(frozen=True)
class Addition:
    """Two activations of one shape are added."""

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Normalisation:
    """A normalisation: input [R, C, ...].

    Args:
        input: what is normalised.
        learnt: the factor and what is added, [C] each, of a batch normalisation that can be folded into the layer
            before it; None of one that cannot, as its statistics are those of its input.
    """

    input: Tensor
    learnt: tuple[Tensor | None, Tensor | None] | None = None


Operation = Weighted | Product | Pooling | Addition | Normalisation
Reader = Callable[[Mapping[str, Any]], Operation | None]
Learnt = Callable[[Any], bool]


def read(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], learnt: Learnt) -> Operation | None:
    """Say what meets in a call, or return None if the call costs nothing, or is of a form that nobody here can read.

    Args:
        function: what is called.
        args: its arguments by position.
        kwargs: its arguments by name.
        learnt: whether a tensor comes from parameters alone (:mod:`hardware.origins`).
    """
    arguments = dict(zip(function.arguments, args, strict=False)) | dict(kwargs)
    if function.kind is Kind.PRODUCT:
        return _product(function, arguments, args, learnt)
    reader = _READERS.get(function.kind)
    return None if reader is None else reader(arguments | {"dimensions": function.dimensions, "name": function.name})


def _linear(arguments: Mapping[str, Any]) -> Operation:
    return Weighted(arguments["input"], arguments["weight"], None, arguments.get("bias"))


def _convolution(arguments: Mapping[str, Any]) -> Operation:
    kernel = arguments["weight"].shape[2:]
    dilation = _spread(arguments.get("dilation", 1), len(kernel))
    geometry = Geometry(
        stride=_spread(arguments.get("stride", 1), len(kernel)),
        padding=_padding(arguments.get("padding", 0), kernel, dilation),
        dilation=dilation,
        groups=arguments.get("groups", 1),
    )
    return Weighted(arguments["input"], arguments["weight"], geometry, arguments.get("bias"))


def _transposed(arguments: Mapping[str, Any]) -> Operation:
    dimensions = arguments["weight"].dim() - 2
    geometry = Geometry(
        stride=_spread(arguments.get("stride", 1), dimensions),
        padding=tuple((p, p) for p in _spread(arguments.get("padding", 0), dimensions)),
        dilation=_spread(arguments.get("dilation", 1), dimensions),
        groups=arguments.get("groups", 1),
        output_padding=_spread(arguments.get("output_padding", 0), dimensions),
        transposed=True,
    )
    return Weighted(arguments["input"], arguments["weight"], geometry, arguments.get("bias"))


def _product(
    function: Function, arguments: Mapping[str, Any], args: Sequence[Any], learnt: Learnt
) -> Weighted | Product | None:
    """A matrix product: one factor is learnt and a matrix or vector, or two activations (or stacks of weights) meet."""
    left, right = (arguments[name] for name in function.arguments[-2:])
    if function.name == "tensordot" and arguments.get("dims", args[2] if len(args) > 2 else 2) != 1:
        return None
    if function.name == "rmatmul":
        left, right = right, left
    by_left, by_right = learnt(left), learnt(right)
    factor = right.mT if function.name == "inner" and right.dim() > 1 else right
    if by_left == by_right:
        return Product(left, factor) if not by_left and min(left.dim(), right.dim()) >= 3 else None
    if min(left.dim(), right.dim()) > 2:
        return _stacked(right.mT, left.mT) if by_left else _stacked(left, factor)
    if by_left:  # [out, in] or [in] times [..., in, n]
        return _weighted(factor.mT, left, left) if right.dim() >= 2 else None
    added = arguments[function.arguments[0]] if len(function.arguments) == 3 else None
    bias = added if isinstance(added, Tensor) and learnt(added) and added.dim() == 1 else None
    return _weighted(left, factor.t(), right, bias)  # [..., in] times [in, out] or [in]


def _weighted(input: Tensor, weight: Tensor, stored: Tensor, bias: Tensor | None = None) -> Weighted | None:
    """input [..., in] meets weight [out, in] or [in]."""
    if input.dim() < 2 or weight.dim() > 2:
        return None
    matrix = weight if weight.dim() == 2 else weight[None]
    return Weighted(input, matrix, None, bias, stored)


def _stacked(left: Tensor, right: Tensor) -> Product | None:
    """Stacks of matrices, the right one learnt: [..., n, k] and [..., k, m]."""
    if left.dim() < 3 or left.shape[:-2] != right.shape[:-2]:
        return None
    matrices = right.flatten(0, -3)
    return Product(left, right, stacked=not bool((matrices == matrices[0]).all()))


def _pool(arguments: Mapping[str, Any]) -> Operation:
    kernel = arguments["kernel_size"]
    dimensions = len(kernel) if isinstance(kernel, Sequence) else arguments["dimensions"]
    kernel = _spread(kernel, dimensions)
    stride = _spread(arguments.get("stride") or kernel, dimensions)
    padding = _spread(arguments.get("padding", 0), dimensions)
    dilation = _spread(arguments.get("dilation", 1), dimensions)
    size = tuple(arguments["input"].shape[-dimensions:])
    ceil = arguments.get("ceil_mode", False)
    return Pooling(arguments["input"], _sliding_fan_out(size, kernel, stride, padding, dilation, ceil))


@lru_cache
def _sliding_fan_out(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
) -> Tensor:
    return window_fan_out(
        [
            sliding_windows(n, _pooled_size(n, k, s, p, d, ceil), k, s, p, d)
            for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
        ]
    )


def _pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """Windows along one dimension; with `ceil` the last one must still start inside the input or its padding."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return span // stride + 1
    outputs = -(-span // stride) + 1
    return outputs - 1 if (outputs - 1) * stride >= size + padding else outputs


def _adaptive_pool(arguments: Mapping[str, Any]) -> Operation:
    wanted = _spread(arguments["output_size"], arguments["dimensions"])
    return Pooling(arguments["input"], _adaptive_fan_out(tuple(arguments["input"].shape[-len(wanted) :]), wanted))


@lru_cache
def _adaptive_fan_out(size: Sequence[int], wanted: Sequence[int | None]) -> Tensor:
    return window_fan_out([adaptive_windows(n, outputs or n) for n, outputs in zip(size, wanted, strict=True)])


def _addition(arguments: Mapping[str, Any]) -> Operation | None:
    left, right = arguments["input"], arguments["other"]
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return None
    activations = left.shape == right.shape and left.dim() >= 2 and left.is_floating_point()
    return Addition(left, right) if activations else None


def _normalisation(arguments: Mapping[str, Any]) -> Operation:
    if arguments["name"] != "batch_norm":
        return Normalisation(arguments["input"])
    return Normalisation(arguments["input"], (arguments.get("weight"), arguments.get("bias")))


_READERS: dict[Kind, Reader] = {
    Kind.LINEAR: _linear,
    Kind.CONVOLUTION: _convolution,
    Kind.TRANSPOSED_CONVOLUTION: _transposed,
    Kind.POOLING: _pool,
    Kind.ADAPTIVE_POOLING: _adaptive_pool,
    Kind.ADDITION: _addition,
    Kind.NORMALISATION: _normalisation,
}

COSTLY = frozenset({*_READERS, Kind.PRODUCT, Kind.OPAQUE})
"""Kinds of functions that cost something; the cost of opaque ones cannot be read, so their presence is reported."""


def _spread(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """Spread a stride or the like over the spatial dimensions."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def _padding(
    padding: int | Sequence[int] | str, kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after the input; of an odd total PyTorch puts the extra zero at the end."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, str):  # "valid"; PyTorch itself refuses any other word
        padding = 0
    return tuple((p, p) for p in _spread(padding, len(kernel)))
