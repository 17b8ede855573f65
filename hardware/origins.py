"""Where tensors of a forward pass come from: from parameters alone, from constants, or from what the network is shown.

Whatever is computed from parameters and constants alone is *learnt*, and the names of its parameters go with it: a
masked, sliced, stacked or normalised weight is a weight. All else is an activation, and so is a tensor that nobody saw
being made.
"""

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

Names = frozenset[str]

_FOREIGN = frozenset({"from_numpy", "frombuffer", "as_tensor", "tensor", "asarray"})  # may hold what was computed


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

    def follow(self, function: str, arguments: Any, output: Any) -> None:
        """Take note of what a function made of its arguments."""
        found = [self.of(tensor) for tensor in tensors_in(arguments)]
        if function in _FOREIGN:
            return
        if None not in found:
            self._set(tensors_in(output), frozenset().union(*(names for names in found if names)))
        elif len(found) > found.count(None):  # it may have written into one that was known
            for tensor in tensors_in((arguments, output)):
                if not isinstance(tensor, nn.Parameter) and self._is_written(function, tensor, arguments, output):
                    self._known.pop(id(tensor), None)

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
