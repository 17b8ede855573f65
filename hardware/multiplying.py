"""Which calls multiply an activation by something learnt without being counted, so that reports name them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hardware.functions import Function, Kind
from hardware.origins import Origins, tensors_in

_HARMLESS = frozenset(
    {
        *("__get__", "__set__", "copy_", "size", "dim", "__len__", "is_floating_point"),
        *("t", "alias", "as_strided", "_unsafe_view", "_to_copy", "lift_fresh", "_reshape_alias"),
    }
)
"""Functions that are not described, and multiply nothing."""

_WEIGHTED = (Kind.LINEAR, Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION, Kind.NORMALISATION)
_INDEXING = ("getitem", "setitem")


def multiplies_learnt(
    name: str,
    function: Function | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    origins: Origins,
    module: nn.Module,
) -> bool:
    """Whether a call may multiply an activation by something learnt, or pick from one by the other.

    Args:
        name: of what is called.
        function: its description; of those that are not described nobody knows what they do.
        args: its arguments by position.
        kwargs: its arguments by name.
        origins: of the tensors.
        module: the module that calls.
    """
    if function is not None and function.name in _INDEXING:
        return _picks(args, origins)
    if not may_multiply(name, function):
        return False
    return origins.meet((args, kwargs)) or _scales_by_what_left(function, args, kwargs, origins, module)


def may_multiply(name: str, function: Function | None) -> bool:
    """Whether a function may multiply what meets in it: some are known to, and of those not described nobody knows."""
    return name not in _HARMLESS if function is None else function.multiplies


def multiplies_unseen(name: str, function: Function | None, arguments: Any, origins: Origins) -> bool:
    """As :func:`multiplies_learnt`, of a call in which nothing is counted: products of two activations are named too.

    ``arguments`` are its positional ones and its named ones.
    """
    if function is not None and function.kind in (Kind.PRODUCT, Kind.OPAQUE):
        return origins.any_activation(arguments)
    weighted = function is not None and function.kind in _WEIGHTED
    return (weighted or may_multiply(name, function)) and origins.meet(arguments)


def multiplies_transformed(name: str, function: Function | None, arguments: Any) -> bool:
    """Whether a call may multiply tensors at all: where `torch.vmap` hides their origins, that is all we know."""
    weighted = function is not None and function.kind in _WEIGHTED
    return (weighted or may_multiply(name, function)) and len(list(tensors_in(arguments))) > 1


def _picks(args: Sequence[Any], origins: Origins) -> bool:
    """Whether what is read or written where an activation says is learnt, or the places to read from are."""
    index = args[1]
    if len(args) == 2:  # x[index]
        return next(tensors_in(index), None) is not None and origins.meet(args)
    return origins.any_activation(index) and origins.meet(args)


def _scales_by_what_left(
    function: Function | None, args: Sequence[Any], kwargs: Mapping[str, Any], origins: Origins, module: nn.Module
) -> bool:
    """Whether an activation is multiplied by a Python number, where learnt ones have left torch."""
    if function is None or not function.scales:
        return False
    numbers = any(type(value) in (int, float) for value in (*args, *kwargs.values()))
    return numbers and origins.have_left(module) and origins.any_activation((args, kwargs))
