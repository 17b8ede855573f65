"""Watch a network run: which operation, with which input and which weight, in which module.

Operations are seen where they happen (`torch.nn.functional`), not where modules announce them. The weight is
therefore the one the forward pass really uses (masked, parametrized, quantized in the forward pass), and a
layer of an unknown class is seen as well as nn.Conv2d. Module hooks only tell whose operation it is. Where no function
shows what happens (scripted functions, extensions, `torch.vmap`), nothing is counted, and whatever multiplies is named.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchmetrics import Metric

from hardware.functions import FUNCTIONS, Function, Kind, describe, writes_in_place
from hardware.geometry import convolution_fan_out, linear_fan_out
from hardware.memory import Mask
from hardware.multiplying import multiplies_learnt, multiplies_transformed, multiplies_unseen
from hardware.neurons import count_states, is_neuron, is_unknown_neuron, sends_binary_spikes
from hardware.operations import COSTLY, Addition, Normalisation, Operation, Pooling, Product, Weighted, read
from hardware.origins import Origins
from hardware.synops import (
    Examined,
    ValueRange,
    count_by_value,
    count_meetings,
    count_pairs,
    count_products,
    count_row_products,
    examine,
    of_spikes,
)
from hardware.tally import LayerTally, NetworkTally, NeuronTally, OtherTally, folds_of, split_steps
from hardware.unannounced import Unannounced


@dataclass
class _Reach:
    """Fan-out of one weight for one input shape, and the weight it was computed from."""

    present: Tensor
    source: tuple[int, int] | None
    fan_out: Tensor  # float32 [entries]
    largest: int  # fan-out
    synapses: int
    dense: int
    mask: Mask


@dataclass(frozen=True)
class _Known:
    """An activation (held, so that nothing else can come to lie there) and what was seen of it."""

    activation: Tensor
    seen: Examined

    def is_seen_as(self, other: Tensor) -> bool:
        """Whether the other is all of the same memory, in whatever shape."""
        one = self.activation
        same_place = other.data_ptr() == one.data_ptr() and other.numel() == one.numel() and other.dtype == one.dtype
        return same_place and other.is_contiguous() and one.is_contiguous()


class Tracer(TorchFunctionMode):
    """Counts the operations of a network while it is the active function mode.

    Args:
        net: the network; layer names are those of `net.named_modules()`.

    Use: `attach()` once, `with tracer.batch(size)` around each forward pass, `detach()` at the end.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.tally = NetworkTally()
        self._names = {
            module: name or type(net).__name__
            for name, module in net.named_modules()
            if not isinstance(module, Metric)  # measures the network, and is none of it
        }
        self._neurons = set(filter(is_neuron, self._names))
        self._unknown_neurons = set(filter(is_unknown_neuron, self._names))
        self._parameters = dict(net.named_parameters())
        self._storing: dict[tuple[Any, ...], str] = {}  # weight -> the layer that it is stored for
        self._origins = Origins(net)
        self._unannounced = Unannounced(self._look_at_unannounced)
        self._owners: list[nn.Module] = []
        self._inside_neuron = 0  # what a neuron computes is one update, not additions
        self._inside_unknown = 0  # neurons that are named as wholes
        self._reach: dict[tuple[Any, ...], _Reach] = {}
        self._handles: list[Any] = []
        # A residual block shows its input to a second layer after two neurons have fired.
        self._known: deque[_Known] = deque(maxlen=3)
        self._batch_size = 0
        self._steps = 1  # of the last weighted layer: tells products how time was folded
        self._known_steps = self._steps_of_neurons()
        self._last_weighted: LayerTally | None = None

    def attach(self) -> None:
        """Hook into every module of the network; those of torch.jit take no hooks, and are named as wholes."""
        scripted = [module for module in self._names if isinstance(module, torch.jit.ScriptModule)]
        inside = {part for module in scripted for part in module.modules() if part is not module}
        for module in scripted:
            if module not in inside:
                self._name_uncounted(module, "a module of torch.jit")
        for module in self._names.keys() - {*scripted}:
            self._handles.append(module.register_forward_pre_hook(self._enter_module))
            # always_call: the stack of owners must be right again after an exception.
            self._handles.append(module.register_forward_hook(self._leave_module, always_call=True))

    def detach(self) -> None:
        """Remove every hook; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextmanager
    def batch(self, size: int) -> Iterator[None]:
        """Count the forward pass inside as one batch of `size` samples."""
        self._owners.clear()
        self._inside_neuron = self._inside_unknown = 0
        self._batch_size = size
        with torch.compiler.set_stance("force_eager"), self, self._unannounced:  # compiled code shows no functions
            yield
        self._known.clear()
        self._origins.forget()
        self.tally.close_batch(size)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count `func` if it is an operation of the network, then run it."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if writes_in_place(name, kwargs):
            self._known.clear()
        if not self._owners or self._inside_neuron:
            return func(*args, **kwargs)
        with self._unannounced.paused():
            return self._watch(func, name, args, kwargs)

    def _watch(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of the network; count it, or name it where it multiplies and cannot be counted."""
        owner, function = self._owners[-1], describe(func)
        if _transformed():
            if not self._inside_unknown and multiplies_transformed(name, function, (args, kwargs)):
                self._name_uncounted(owner, f"{name.strip('_')} in torch.vmap")
            return func(*args, **kwargs)
        counted = self._count(func, args, kwargs)
        named = not counted and not self._inside_unknown
        if named and multiplies_learnt(name, function, args, kwargs, self._origins, owner):
            self._name_uncounted(owner, name.strip("_"))
        output = func(*args, **kwargs)
        self._follow(name, (args, kwargs), output)
        return output

    def _look_at_unannounced(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Name an operation that multiplies where nobody can count: in a scripted function, say."""
        if not self._owners or self._inside_neuron or self._inside_unknown:
            return
        if multiplies_unseen(name, FUNCTIONS.get(name.strip("_")), (args, kwargs), self._origins):
            self._name_uncounted(self._owners[-1], f"{name.strip('_')} in a scripted function or an extension")
        self._follow(name, (args, kwargs), output)

    def _follow(self, name: str, arguments: Any, output: Any) -> None:
        """Take note of where an operation's output comes from, and name it where that cannot be told."""
        owner = self._owners[-1]
        self._origins.follow(name, arguments, output, owner)
        if self._origins.may_be_either(name, owner):
            self._name_uncounted(owner, "a tensor of numbers that had left torch, learnt ones and others")

    def _enter_module(self, module: nn.Module, _inputs: Any) -> None:
        self._owners.append(module)
        self._inside_neuron += module in self._neurons
        self._inside_unknown += module in self._unknown_neurons

    def _leave_module(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        self._owners.pop()
        if module in self._unknown_neurons:
            self._inside_unknown -= 1
            self._name_uncounted(module, f"neuron {type(module).__name__}")
        if module not in self._neurons:
            return
        self._inside_neuron -= 1
        if isinstance(output, Tensor) and not _transformed():
            # Hooks run inside the modes: what they compute is not the network's.
            with torch._C.DisableTorchFunction(), self._unannounced.paused():
                self._count_neurons(module, output.detach())
        elif output is not None:  # None: the forward pass failed
            self._name_uncounted(module, f"spikes of {type(module).__name__}")

    def _name_uncounted(self, module: nn.Module, what: str) -> None:
        self.tally.uncounted[f"{self._names[module]}: {what}"] = None

    def _count(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Count a call; whether that could be done, or there is nothing to count."""
        function, module = describe(func), self._owners[-1]
        if function is None or function.kind not in COSTLY:
            return False
        if function.kind is Kind.OPAQUE:
            self._name_uncounted(module, getattr(func, "__name__", ""))
            return True
        if function.kind is Kind.ADDITION and not self._origins.any_activation((args, kwargs)):
            return True  # of weights and constants
        operation = read(function, args, kwargs, self._origins.is_learnt)
        if function.kind is Kind.PRODUCT and not self._can_be_shared(operation):
            if self._origins.any_activation((args, kwargs)):
                self._name_uncounted(module, function.name)
            return True
        self._count_operation(self._names[module], function, operation)
        return operation is not None

    def _count_operation(self, owner: str, function: Function, operation: Operation | None) -> None:
        match operation:
            case Weighted():
                self._count_weighted(owner, "linear" if function.kind is Kind.PRODUCT else function.name, operation)
            case Product():
                self._count_product(owner, operation)
            case Pooling():
                self._count_pooling(owner, function.name, operation)
            case Addition():
                self._count_addition(owner, operation)
            case Normalisation():
                self._count_normalisation(owner, function.name, operation)

    def _can_be_shared(self, operation: Operation | None) -> bool:
        """Whether the rows of a matrix product can be dealt out to the samples, and no sample sees another's.

        Those of one that nobody here can read cannot.
        """
        if isinstance(operation, Product):
            return self._samples_in_rows(operation) or prod(operation.stack) % self._batch_size == 0
        if not isinstance(operation, Weighted):
            return False
        lead = operation.input.shape[: -len(operation.entry_shape)]
        return prod(lead[: folds_of(lead, self._batch_size, self._known_steps)]) % self._batch_size == 0

    def _samples_in_rows(self, operation: Product) -> bool:
        """Whether a product has a learnt matrix for each step (or head), and the rows of the other one are samples."""
        return operation.stacked and operation.left.shape[-2] == self._batch_size

    def _steps_of_neurons(self) -> int | None:
        """Steps of a call where all neurons take single steps; None where that is to be seen."""
        modes = {getattr(module, "step_mode", None) for module in self._neurons}
        return 1 if modes == {"s"} else None

    def _count_neurons(self, module: Any, output: Tensor) -> None:
        name, kind = self._names[module], type(module).__name__
        if module.step_mode == "s" and len(output) != self._batch_size:
            rows = f"{len(output)} rows for {self._batch_size} samples"
            self._name_uncounted(module, f"neurons of {kind}, in single-step mode with {rows}")
            return
        tally = self.tally.neurons.setdefault(name, NeuronTally(name, kind))
        steps = len(output) if module.step_mode == "m" else 1
        self._known_steps = steps
        tally.neurons = output.numel() // (steps * self._batch_size)
        tally.states = count_states(module)
        if not tally.states:
            self._name_uncounted(module, f"state of {kind}")
        tally.updates += output.numel()
        # A hook beside ours may have changed what the neuron sent out.
        plain = sends_binary_spikes(module) and len(module._forward_hooks) == 1
        seen = of_spikes(output) if plain else examine(output)
        tally.spikes += seen.events
        self._known.append(_Known(output, seen))

    def _look_at(self, activation: Tensor) -> Examined:
        """What an activation holds; what a neuron sent out or a layer received needs no second look."""
        for known in self._known:
            if known.is_seen_as(activation):
                return known.seen
        seen = examine(activation)
        self._known.append(_Known(activation, seen))
        return seen

    def _count_weighted(self, owner: str, kind: str, operation: Weighted) -> None:
        shape = operation.entry_shape
        rows = operation.input.detach().reshape(-1, prod(shape))
        lead = tuple(operation.input.shape[: -len(shape)]) or (1,)
        key = self._key(operation.weight if operation.stored is None else operation.stored)
        tally = self._layer(owner, kind, tuple(operation.weight.shape), lambda known: known.weight_key == key)
        tally.weight_key = key
        tally.shared = not self._stores(tally.name, key)
        reach = self._reach_of((tally.name, shape, operation.geometry), operation)
        seen = self._look_at(rows)
        pairs = count_pairs(rows, reach.fan_out, reach.largest, seen.values)
        steps = split_steps(pairs, lead, self._batch_size, tally.name, self._known_steps)
        tally.add_steps(steps)
        tally.synops_by_value += _by_value(rows, reach, seen.values, pairs)
        tally.fan_in, tally.fan_out, tally.mask = operation.fan_in, operation.fan_out, reach.mask
        tally.biases = self._biases(tally.name, operation.bias)
        tally.input_shape, tally.output_shape = shape, operation.output_shape
        tally.synapses = reach.synapses
        tally.input_entries += rows.numel()
        tally.input_events += seen.events
        tally.dense += reach.dense * len(rows)
        tally.values |= seen.values
        self._steps, self._last_weighted = len(steps), tally

    def _key(self, weight: Tensor) -> tuple[Any, ...]:
        """Tells a weight from others, and knows it again: the parameters it comes from, and which part it is of one.

        What is computed has the parameters' names and its shape; a view has its place; transposed it is the same.
        """
        names = tuple(sorted(self._origins.of(weight) or ()))
        parameter = self._parameters.get(names[0]) if len(names) == 1 else None
        if parameter is None or weight.untyped_storage().data_ptr() != parameter.untyped_storage().data_ptr():
            return names, tuple(weight.shape)
        axes = sorted((size, step) for size, step in zip(weight.shape, weight.stride(), strict=True) if size > 1)
        return names, (weight.storage_offset(), *axes)

    def _stores(self, owner: str, key: tuple[Any, ...]) -> bool:
        """Whether a weight is stored for this layer, and not for another one that has it as well."""
        names = key[0]
        self.tally.stored |= {name: owner for name in names if name not in self.tally.stored}
        return not names or self._storing.setdefault(key, owner) == owner

    def _biases(self, owner: str, bias: Tensor | None) -> int:
        if bias is None or not self._stores(f"{owner}: bias", self._key(bias)):
            return 0
        return bias.numel()

    def _count_product(self, owner: str, operation: Product) -> None:
        left, right = operation.left.detach(), operation.right.detach()
        shapes = tuple(left.shape[-2:]), tuple(right.shape[-2:])
        tally = self._layer(
            f"{owner}.product", "product", (), lambda known: (known.input_shape, known.output_shape) == shapes
        )
        tally.input_shape, tally.output_shape = shapes
        left_seen, right_seen = examine(left), examine(right)
        counts = count_products(left, right)
        tally.add_steps(self._dealt_out(counts, operation))
        tally.synops_by_value += int(counts.sum())
        tally.input_entries += left.numel() + right.numel()
        tally.input_events += left_seen.events + right_seen.events
        tally.dense += counts.numel() * left.shape[-2] * left.shape[-1] * right.shape[-1]
        tally.values |= left_seen.values
        known = tally.other_values
        tally.other_values = right_seen.values if known is None else known | right_seen.values

    def _dealt_out(self, counts: Tensor, operation: Product) -> Tensor:
        """The pairs of a stack of products, `counts` [...], by steps and samples: [steps, B]."""
        if self._samples_in_rows(operation):
            rows = count_row_products(operation.left.detach(), operation.right.detach()).reshape(-1, self._batch_size)
            return rows if len(rows) == self._known_steps else rows.sum(0, keepdim=True)
        folds = self._steps * self._batch_size
        if counts.numel() % folds:
            folds = self._batch_size
        return split_steps(counts.reshape(-1), (folds, counts.numel() // folds), self._batch_size, "")

    def _count_pooling(self, owner: str, kind: str, operation: Pooling) -> None:
        rows = operation.input.detach().reshape(-1, operation.fan_out.numel())
        windows = operation.fan_out.flatten().float()
        pairs = count_pairs(rows, windows.to(rows.device), int(windows.max()), self._look_at(rows).values)
        self._other(owner, kind).operations += int(pairs.sum())

    def _count_addition(self, owner: str, operation: Addition) -> None:
        meetings = count_meetings(operation.left.detach(), operation.right.detach())
        self._other(owner, "addition").operations += meetings

    def _count_normalisation(self, owner: str, kind: str, operation: Normalisation) -> None:
        tally = self._other(owner, kind)
        tally.operations += operation.input.numel()
        if operation.learnt is None:
            return  # what it has learnt is stored as it is
        channels = operation.input.shape[1]
        for tensor in operation.learnt:
            if tensor is not None:
                self._stores(owner, self._key(tensor))
        layer = self._last_weighted
        if layer is not None and layer.output_shape[0] == channels:
            layer.norm_channels = channels
        else:
            tally.parameters = 2 * channels

    def _other(self, owner: str, kind: str) -> OtherTally:
        return self.tally.others.setdefault(f"{owner}: {kind}", OtherTally(owner, kind))

    def _layer(
        self, base: str, kind: str, weight_shape: tuple[int, ...], same: Callable[[LayerTally], bool]
    ) -> LayerTally:
        """Return the tally of a module's operation; a second weight of one module gets a name of its own."""
        name, number = base, 1
        while name in self.tally.layers and not same(self.tally.layers[name]):
            number += 1
            name = f"{base}#{number}"
        return self.tally.layers.setdefault(name, LayerTally(name, kind, weight_shape))

    def _reach_of(self, key: tuple[Any, ...], operation: Weighted) -> _Reach:
        """Return the fan-out of a weight, computed anew only if its zeros have moved since the last call."""
        weight = operation.weight
        # A weight computed in the forward pass may come to lie where the last one lay: its zeros are compared.
        source = (weight.data_ptr(), weight._version) if isinstance(weight, nn.Parameter) else None
        known = self._reach.get(key)
        if known is not None and source is not None and known.source == source:
            return known
        present = weight.detach() != 0
        if known is None or not torch.equal(known.present, present):
            known = _reach(present, source, operation)
            self._reach[key] = known
        known.source = source
        return known


def _transformed() -> bool:
    """Whether `torch.vmap`, or another transform of functions, is at work: tensors then hide what they hold."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _by_value(rows: Tensor, reach: _Reach, values: ValueRange, pairs: Tensor) -> int:
    """Operations if an integer event counts as often as its value says; real values have no such count."""
    if not values.integer:
        return 0
    if values.largest <= 1:
        return int(pairs.sum())
    return count_by_value(rows, reach.fan_out, reach.largest, values)


def _reach(present: Tensor, source: tuple[int, int] | None, operation: Weighted) -> _Reach:
    fan_out = _fan_out(present, operation)
    return _Reach(
        present=present,
        source=source,
        largest=int(fan_out.max()),
        fan_out=fan_out.flatten().float().to(operation.input.device),
        synapses=int(fan_out.sum()),
        dense=int(_fan_out(torch.ones_like(present), operation).sum()),
        mask=Mask.of(present.cpu().numpy()),
    )


def _fan_out(present: Tensor, operation: Weighted) -> Tensor:
    if operation.geometry is None:
        return linear_fan_out(present)
    return convolution_fan_out(present, operation.entry_shape[1:], operation.geometry)
