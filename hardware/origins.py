"""Where tensors of a forward pass come from: from parameters alone, from constants, or from what the network is shown.

Whatever is computed from parameters and constants alone is *learnt*, and the names of its parameters go with it: a
masked, sliced, stacked or normalised weight is a weight. All else is an activation, and so is a tensor that nobody saw
being made.

Numbers can leave torch (as lists, NumPy arrays, Python numbers) and come back as new tensors. What a module makes of
numbers is learnt if only what is learnt has left torch in it before.
"""

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

Names = frozenset[str]

_LEAVING = frozenset({"numpy", "tolist", "item", "__array__", "__float__", "__int__", "__index__", "__complex__"})
_RETURNING = frozenset(
    {"from_numpy", "frombuffer", "as_tensor", "tensor", "asarray", "new_tensor", "scalar_tensor", "lift_fresh"}
)


def tensors_in(arguments: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, list | tuple):
        for part in arguments:
            yield from tensors_in(part)
    elif isinstance(arguments, dict):
        yield from tensors_in(list(arguments.values()))


class Origins:
    """The parameters that tensors come from, found by following PyTorch's functions.

    Tensors are known as objects, and forgotten when they are gone; none is kept alive.

    Args:
        net: its parameters are learnt, its buffers and the other tensors that its modules hold are constants.
    """

    def __init__(self, net: nn.Module) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Names]] = {}
        self._left: dict[nn.Module, set[Names | None]] = {}  # module -> origins of what left torch in it
        for module in net.modules():
            self._set([*module._buffers.values(), *vars(module).values()], frozenset())
        for name, parameter in net.named_parameters():
            self._set([parameter], frozenset({name}))

    def of(self, tensor: Tensor) -> Names | None:
        """The parameters that a tensor comes from, none of a constant; None for an activation."""
        reference, names = self._known.get(id(tensor), (None, None))
        if reference is not None and reference() is tensor:
            return names
        return frozenset({""}) if isinstance(tensor, nn.Parameter) else None

    def is_learnt(self, tensor: Any) -> bool:
        """Whether it is a tensor that comes from parameters alone."""
        return isinstance(tensor, Tensor) and bool(self.of(tensor))

    def any_activation(self, arguments: Any) -> bool:
        """Whether an activation is among the arguments of a call."""
        return any(self.of(tensor) is None for tensor in tensors_in(arguments))

    def meet(self, arguments: Any) -> bool:
        """Whether something learnt and an activation are among the arguments of a call."""
        found = [self.of(tensor) for tensor in tensors_in(arguments)]
        return None in found and any(found)

    def have_left(self, module: nn.Module) -> bool:
        """Whether something learnt has left torch in a module."""
        return any(self._left.get(module, ()))

    def may_be_either(self, function: str, module: nn.Module) -> bool:
        """Whether a function made a tensor of numbers that may be a module's learnt ones or its activations."""
        return function in _RETURNING and self.have_left(module) and None in self._left[module]

    def follow(self, function: str, arguments: Any, output: Any, module: nn.Module) -> None:
        """Take note of what a function that a module called made of its arguments."""
        found = [self.of(tensor) for tensor in tensors_in(arguments)]
        if function in _LEAVING:
            self._left.setdefault(module, set()).update(found)
        elif function in _RETURNING and not any(found):
            self._return(tensors_in(output), module)
        elif None not in found:
            self._set(tensors_in(output), _union(found))
        elif len(found) > found.count(None):  # it may have written into one that was known
            for tensor in tensors_in((arguments, output)):
                if not isinstance(tensor, nn.Parameter) and self._is_written(function, tensor, arguments, output):
                    self._known.pop(id(tensor), None)

    def _return(self, tensors: Iterable[Tensor], module: nn.Module) -> None:
        left = self._left.get(module, set())
        if any(left) and None not in left:
            self._set(tensors, _union(left))

    @staticmethod
    def _is_written(function: str, tensor: Tensor, arguments: Any, output: Any) -> bool:
        first = next(tensors_in(arguments))
        return any(tensor is made for made in tensors_in(output)) or (function == "__setitem__" and tensor is first)

    def forget(self) -> None:
        """Let go of what is known about tensors that are gone."""
        self._known = {key: entry for key, entry in self._known.items() if entry[0]() is not None}

    def _set(self, tensors: Iterable[Any], names: Names) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._known[id(tensor)] = (weakref.ref(tensor), names)


def _union(origins: Iterable[Names | None]) -> Names:
    return frozenset().union(*(names for names in origins if names))
