"""Weights that other modules than their own compute with, as `F.linear(y, encoder.weight.t())` in a decoder does."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from hardware.functions import Function, Kind
from hardware.origins import Origins, tensors_in

_COMPUTING = (Kind.LINEAR, Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION)


class Borrowed:
    """Finds, in a forward pass that it is shown, the modules that compute with the weights of others.

    Args:
        network: whose pass it is.
        layers: the classes of layers whose weights are looked for.
    """

    def __init__(self, network: nn.Module, layers: tuple[type[nn.Module], ...]) -> None:
        self._names = {module: name or type(network).__name__ for name, module in network.named_modules()}
        self._origins = Origins(network)
        self._running: list[nn.Module] = [network]
        self._lenders: dict[str, set[nn.Module]] = {}  # parameter -> the layers whose weight it is
        of_weights = {id(weight): name for name, weight in network.named_parameters()}
        for module in network.modules():
            name = of_weights.get(id(module._parameters.get("weight"))) if isinstance(module, layers) else None
            if name is not None:
                self._lenders.setdefault(name, set()).add(module)
        self._borrowers: dict[nn.Module, dict[nn.Module, None]] = {}  # layer -> modules, in order

    def enter(self, module: nn.Module, inputs: Sequence[Any]) -> None:
        """A hook before every module."""
        self._running.append(module)

    def leave(self, module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
        """A hook after every module."""
        self._running.pop()

    def look(self, name: str, function: Function | None, arguments: Any, output: Any) -> None:
        """Take note of a function that the module at work has called."""
        user = self._running[-1]
        computes = function is not None and (function.kind in _COMPUTING or function.multiplies)
        if computes and self._origins.meet(arguments):
            for lender in self._lenders_of(arguments):
                self._borrowers.setdefault(lender, {})[user] = None
        self._origins.follow(name, arguments, output, user)

    def _lenders_of(self, arguments: Any) -> set[nn.Module]:
        """The layers with a weight among the arguments, but for those that the module at work is one of."""
        names = frozenset().union(*(self._origins.of(tensor) or () for tensor in tensors_in(arguments)))
        lending = [self._lenders[name] for name in names if name in self._lenders]
        return set().union(*(layers for layers in lending if self._running[-1] not in layers))

    def borrowers(self, layer: nn.Module) -> tuple[str, ...]:
        """Names of the modules that compute with a layer's weight too."""
        return tuple(self._names[module] for module in self._borrowers.get(layer, ()))
