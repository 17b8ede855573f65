"""Which layers of a network can be compressed, in order of execution, and what follows each of them."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode

from compressors.network.borrowed import Borrowed
from hardware.functions import Function, Kind, describe
from hardware.layers import TRANSPARENT
from hardware.neurons import is_neuron
from hardware.origins import tensors_in

COMPRESSIBLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""The layers with weights that compressors know; :func:`left_alone` names the others."""


class LayerError(ValueError):
    """A network, layer or pattern that a compressor cannot work with."""

    exit_status = 2


@dataclass(frozen=True)
class Layer:
    """A layer that can be compressed, with the BatchNorm and the neuron that take its output (None where none does)."""

    name: str
    module: nn.Linear | nn.Conv1d | nn.Conv2d
    norm: _BatchNorm | None
    neuron: nn.Module | None
    timesteps: int  # of the network
    pooled_neuron: nn.Module | None = None  # the one that takes the output after a pool, where none takes it itself
    repeated: bool = False  # the one step that it computes stands for all: an image that is shown again and again
    calls: int = 1  # that make up a pass: more than one where the network goes through time in a loop of its own
    tied: tuple[nn.Linear | nn.Conv1d | nn.Conv2d, ...] = ()  # others that compute with the very same weight
    borrowers: tuple[str, ...] = ()  # modules of other kinds that do so too, on inputs that nobody looks at

    @property
    def modules(self) -> tuple[nn.Linear | nn.Conv1d | nn.Conv2d, ...]:
        """All modules that compute with the layer's weight."""
        return (self.module, *self.tied)

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for a linear layer."""
        return getattr(self.module, "groups", 1)

    @property
    def channel_neuron(self) -> nn.Module | None:
        """The neuron whose channels are this layer's, be there a pool before it or not."""
        return self.neuron or self.pooled_neuron

    @property
    def rows(self) -> Tensor:
        """The weight as a matrix, one row an output unit: ``[out, in/groups * taps]`` (a view)."""
        return self.module.weight.detach().flatten(1)

    def batchnorm_factor(self) -> Tensor:
        """The factor BatchNorm puts on each output unit, ``gamma / sqrt(var + eps)``: ``[out]`` (ones without it)."""
        norm = self.norm
        if norm is None or norm.running_var is None:
            return torch.ones(len(self.rows), device=self.rows.device)
        factor = torch.rsqrt(norm.running_var + norm.eps)
        return factor if norm.weight is None else factor * norm.weight.detach()


@contextmanager
def hooks(modules: Sequence[nn.Module], hook: Callable[..., Any], before: bool = False) -> Iterator[None]:
    """Register ``hook`` on every module (before or after its forward pass), and take it off again whatever happens.

    It is the first of those before the pass, and the last of those after it. Its inputs are all arguments of the call,
    those given by name (``layer(input=x)``) after the others. What a hook before the pass returns takes the place of
    the first of them.
    """

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = hook(module, (*args, *kwargs.values()))
        if first is None:
            return None
        return ((first, *args[1:]), kwargs) if args else ((), kwargs | {next(iter(kwargs)): first})

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return hook(module, (*args, *kwargs.values()), output)

    handles = [
        module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
        if before
        else module.register_forward_hook(leave, with_kwargs=True)
        for module in modules
    ]
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

    What follows a layer is found by following its output tensor from operation to operation, not by names or
    positions: through an optional BatchNorm, dropout, changes of shape, additions (of a shortcut, say) and factors that
    are numbers to the first neuron that takes it. What is added to a layer's output does not change how the membrane
    responds to that layer, and a factor does so for all steps alike. A layer whose output is pooled, multiplied by
    another tensor or otherwise computed with before a neuron has no neuron here. A layer that is used several times
    stands in the list once, with what follows its first use, and so do several that share one weight
    (:attr:`Layer.tied`). A neuron behind a pool is known as :attr:`Layer.pooled_neuron`.

    A layer that does not see time steps and samples apart is left out, and named by :func:`left_alone`.

    Args:
        network: any network of SpikingJelly and torch layers.
        forward: runs one small batch through it.

    Raises:
        LayerError: the pass ran through no layer that can be compressed; says why.
    """
    names = {module: name for name, module in network.named_modules()}
    watched = _watch(network, forward)
    seen = watched.seeing_time()
    sharing: dict[int, list[Any]] = {}  # modules by the weight that they share
    for module in seen:
        sharing.setdefault(id(module.weight), []).append(module)
    if sharing:
        return [watched.layer(names[first], first, others) for first, *others in sharing.values()]
    if not watched.modules:
        raise LayerError("the network has no linear or convolutional layer that its forward pass reaches")
    raise LayerError(
        f"layer {names[watched.modules[0]]!r} {NO_TIME}: build the network from spikingjelly.activation_based.layer in "
        "step mode 'm', inputs [T, B, ...]"
    )


def _watch(network: nn.Module, forward: Callable[[], Any]) -> "_Pass":
    modules = [*network.modules()]
    neurons = [module for module in modules if is_neuron(module)]
    inside = {part for module in neurons for part in module.modules() if part is not module}
    leaves = [m for m in modules if is_neuron(m) or (m not in inside and not any(m.children()))]
    borrowed = Borrowed(network, COMPRESSIBLE)
    watch = _Watch(borrowed)
    with (
        evaluating(network),
        hooks(modules, borrowed.enter, before=True),
        hooks(neurons, watch.enter_neuron, before=True),
        hooks(leaves, watch.leave),
        hooks(modules, borrowed.leave),
        watch,
    ):
        forward()
    return _Pass(watch)


class _Pass:
    """What ran in a forward pass, and how it went through time.

    Args:
        watch: what was watched.

    Attributes:
        modules: the compressible ones, in order of execution.
        rounds: how often the network calls its parts: more than once if it loops over time.
        timesteps: of the network.
    """

    def __init__(self, watch: "_Watch") -> None:
        self.watch = watch
        self.uses: dict[Any, list[int]] = {}  # compressible module or neuron -> places of its events
        for place, event in enumerate(watch.events):
            if isinstance(event.what, nn.Module) and (isinstance(event.what, COMPRESSIBLE) or is_neuron(event.what)):
                self.uses.setdefault(event.what, []).append(place)
        self.modules = [module for module in self.uses if isinstance(module, COMPRESSIBLE)]
        neurons = [module for module in self.uses if module not in self.modules]
        self.rounds = min((len(self.uses[neuron]) for neuron in neurons), default=1)
        if not any(len(self.uses[module]) % self.rounds == 0 for module in self.modules):
            self.rounds = 1
        timed = neurons or [module for module in self.modules if _has_steps(module)]
        self.timesteps = max(map(self._steps, timed), default=1)

    def _steps(self, module: nn.Module) -> int:
        """Time steps that a module sees: those of all its uses where the network loops over time."""
        uses = self.uses[module]
        lengths = [len(x) for place in uses for x in self.watch.events[place].inputs[:1]]
        return sum(lengths) if 1 < self.rounds == len(uses) else max(lengths, default=0)

    def seeing_time(self) -> list[Any]:
        """The compressible modules that see time steps and samples apart."""
        return [module for module in self.modules if all(map(self._sees_time, self.uses[module]))]

    def _sees_time(self, place: int) -> bool:
        """Whether a layer was given ``[T, B, ...]``, of one sample; a linear layer takes that in any mode."""
        event = self.watch.events[place]
        if _has_steps(event.what):
            return True
        if not isinstance(event.what, nn.Linear) or not event.inputs:
            return False
        shape = tuple(event.inputs[0].shape)
        return len(shape) > 2 and shape[:2] == (self.timesteps, 1)

    def layer(self, name: str, module: Any, tied: Sequence[Any]) -> Layer:
        """The layer of a module, with what follows its first use."""
        start, *_ = places = self.uses[module]
        event, later = self.watch.events[start], self.watch.events[start + 1 :]
        norm, neuron = _followers(event, later)
        pooled = _followers(event, later, pools=True)[1] if neuron is None else None
        fed = neuron or pooled
        repeated = len(places) == 1 and self.watch.repeats(start, None if fed is None else self.uses[fed][0])
        calls = len(places) if self.rounds > 1 and len(places) % self.rounds == 0 else 1
        borrowers = tuple(name for part in (module, *tied) for name in self.watch.borrowed.borrowers(part))
        return Layer(name, module, norm, neuron, self.timesteps, pooled, repeated, calls, tuple(tied), borrowers)


NO_TIME = "sees one time step at a time, or steps and samples as one"
"""Why a layer is left alone that has no step mode."""


def _has_steps(what: Any) -> bool:
    """Whether it is a compressible layer in multi-step mode."""
    return isinstance(what, COMPRESSIBLE) and getattr(what, "step_mode", None) == "m"


@dataclass(frozen=True)
class _Event:
    """A module or function that took tensors and gave one."""

    what: nn.Module | Function
    inputs: tuple[Tensor, ...]  # holding the tensors keeps their storages distinct
    output: Tensor


class _Watch(TorchFunctionMode):
    """Writes down, in order, the leaf modules that run; outside of neurons, what adds, scales, reshapes and pools.

    Args:
        borrowed: is shown every function.
    """

    def __init__(self, borrowed: Borrowed) -> None:
        super().__init__()
        self.borrowed = borrowed
        self.events: list[_Event] = []
        self._in_neuron = False
        self._repeating: dict[int, Tensor] = {}  # storages of tensors whose steps are one and the same

    def repeats(self, start: int, neuron: int | None) -> bool:
        """Whether the one step that event ``start`` takes stands for all.

        It does if it was cut from steps that are one and the same, or if the neuron behind it, event ``neuron``, takes
        more of them.
        """
        (x,) = self.events[start].inputs
        taken = () if neuron is None else self.events[neuron].inputs
        return len(x) == 1 and (_storage(x) in self._repeating or any(len(steps) > 1 for steps in taken))

    def enter_neuron(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A hook before a neuron: what it computes inside is its own affair."""
        self._in_neuron = True

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A hook after a leaf module; of one that gives no tensor nobody knows what follows."""
        self._in_neuron = False
        if isinstance(output, Tensor):
            self.events.append(_Event(module, tuple(tensors_in(inputs[:1])), output))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        function = describe(func)
        self.borrowed.look(getattr(func, "__name__", ""), function, (args, kwargs), output)
        if isinstance(output, Tensor) and output.ndim and len(output) > 1 and output.stride(0) == 0:
            self._repeating[_storage(output)] = output
        if not self._in_neuron and function is not None and isinstance(output, Tensor):
            taken = tuple(x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor))
            if function.kind is Kind.ADDITION:
                self.events.append(_Event(function, taken, output))
            elif function.keeps_entries or function.is_pooling or (function.scales and len(taken) == 1):
                self.events.append(_Event(function, taken[:1], output))
        return output


def _storage(tensor: Tensor) -> int:
    """What a tensor and its views share."""
    return tensor.untyped_storage().data_ptr()


def _followers(
    start: _Event, later: Sequence[_Event], *, pools: bool = False
) -> tuple[_BatchNorm | None, nn.Module | None]:
    """The BatchNorm and the neuron that the output of ``start`` reaches, along the branch that fires first.

    With ``pools`` it may be pooled on the way.
    """
    branches: dict[int, _BatchNorm | None] = {_storage(start.output): None}  # storage -> the BatchNorm on the way there
    norm = None
    for event in later:
        taken = [storage for storage in map(_storage, event.inputs) if storage in branches]
        if not taken:
            continue
        passed = branches[taken[0]]
        if isinstance(event.what, _BatchNorm) and passed is None:
            passed = event.what
            norm = norm or passed
        elif isinstance(event.what, nn.Module) and is_neuron(event.what):
            return passed, event.what
        elif not _passes_on(event.what, pools):
            continue
        branches[_storage(event.output)] = passed
    return norm, None


def _passes_on(what: nn.Module | Function, pools: bool) -> bool:
    """Whether the output of a module or function stands for its input, perhaps with a shortcut added to it."""
    if isinstance(what, nn.Module):
        return isinstance(what, TRANSPARENT)
    return pools or not what.is_pooling


def left_alone(network: nn.Module, layers: Sequence[Layer], exclude: Sequence[str] = ()) -> tuple[str, ...]:
    """The weights (parameters of two dimensions and more) that are in none of these layers: ``name (class)`` each.

    They belong to layers of other kinds, to some that the forward pass does not reach, or to some left out on purpose;
    of layers that see no time, and are not left out by a pattern of ``exclude``, it is said. Named too are modules that
    compute with the weight of one of these layers (:attr:`Layer.borrowers`).
    """
    inside = {part for entry in layers for module in entry.modules for part in module.modules()}
    borrowing = [f"{user}, which uses the weight of {entry.name} too" for entry in layers for user in entry.borrowers]
    return (*_others(network, inside, exclude), *borrowing)


def _others(network: nn.Module, inside: Container[nn.Module], exclude: Sequence[str]) -> Iterator[str]:
    return (
        f"{name} ({type(module).__name__}{'' if matches(name, exclude) else _reason(module)})"
        for name, module in network.named_modules()
        if module not in inside and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    )


def _reason(module: nn.Module) -> str:
    """What to say of a layer that could be compressed and is not."""
    timeless = isinstance(module, COMPRESSIBLE) and not _has_steps(module)
    return f", which {NO_TIME}" if timeless else ""


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a layer's name matches one of some shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def select(
    layers: list[Layer], include: Sequence[str], exclude: Sequence[str], others: Sequence[str] = ()
) -> list[Layer]:
    """The layers whose names match a pattern of ``include`` and none of ``exclude`` (shell patterns).

    ``others`` are names of modules that are left alone anyway, and may be excluded all the same.

    Raises:
        LayerError: a pattern matches no layer, or no layer is left.
    """
    names = [entry.name for entry in layers]
    known = ", ".join(names)
    for pattern, among in [*((p, names) for p in include), *((p, (*names, *others)) for p in exclude)]:
        if not any(matches(name, [pattern]) for name in among):
            raise LayerError(f"the pattern {pattern!r} matches no layer; the network's layers: {known}")
    chosen = [entry for entry in layers if matches(entry.name, include) and not matches(entry.name, exclude)]
    if not chosen:
        raise LayerError(f"no layer is left to compress: `exclude` takes out all of: {known}")
    return chosen


def has_own_weight(layer: Layer) -> bool:
    """Whether a layer's weight is a parameter of its module, and is not computed anew in every pass."""
    return "weight" in layer.module._parameters


def require_own_weight(layer: Layer) -> None:
    """Refuse a layer whose weight is computed anew in every pass: whatever is written there would be lost.

    Raises:
        LayerError: names the layer, what computes its weight, and how to take that off.
    """
    module = layer.module
    if has_own_weight(layer):
        return
    hooked = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
    if any(isinstance(hook, prune.BasePruningMethod) for hook in module._forward_pre_hooks.values()):
        what, remedy = "torch's pruning", "torch.nn.utils.prune.remove(layer, 'weight')"
    elif parametrize.is_parametrized(module, "weight"):
        what, remedy = "a parametrization", "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
    elif "SpectralNorm" in hooked:
        what, remedy = "spectral_norm", "torch.nn.utils.remove_spectral_norm(layer)"
    elif "WeightNorm" in hooked:
        what, remedy = "weight_norm", "torch.nn.utils.remove_weight_norm(layer)"
    else:
        what, remedy = "its module", "keeping it as an nn.Parameter"
    raise LayerError(
        f"the weight of layer {layer.name!r} is computed anew in every pass by {what}: make it plain by {remedy}, or "
        "exclude the layer"
    )


def forget_state(network: nn.Module) -> None:
    """Reset all neurons, those that SpikingJelly's cache of them does not know included."""
    functional.invalidate_reset_cache(network)
    functional.reset_net(network)
