"""Watch a network run: which operation, with which input and which weight, in which module.

Operations are seen where they happen (`torch.nn.functional`), not where modules announce them. The weight is
therefore the one the forward pass really uses (masked, parametrized, quantized in the forward pass), and a
layer of an unknown class is seen as well as nn.Conv2d. Module hooks only tell whose operation it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from spikingjelly.activation_based.neuron import BaseNode
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hardware.synops import Geometry, convolution_fan_out, count_pairs, examine, linear_fan_out
from hardware.tally import LayerTally, NetworkTally, NeuronTally, split_steps

_CONVOLUTION_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_ARGUMENTS = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip


@dataclass
class _Reach:
    """Fan-out of one weight for one input shape, and the weight it was computed from."""

    present: Tensor
    source: tuple[int, int] | None
    fan_out: Tensor  # float32 [entries]
    effective: int
    dense: int
    output_shape: tuple[int, ...]


class Tracer(TorchFunctionMode):
    """Counts every weighted operation of a network while it is the active function mode.

    Args:
        net: the network; layer names are those of `net.named_modules()`.

    Use: `attach()` once, `with tracer.batch(size)` around each forward pass, `detach()` at the end.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.tally = NetworkTally()
        self._names = {module: name or type(net).__name__ for name, module in net.named_modules()}
        self._owners: list[nn.Module] = []
        self._reach: dict[tuple[Any, ...], _Reach] = {}
        self._handles: list[Any] = []
        self._batch_size = 0

    def attach(self) -> None:
        """Hook into every module of the network."""
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._enter_module))
            # always_call: the stack of owners must be right again after an exception.
            self._handles.append(module.register_forward_hook(self._leave_module, always_call=True))

    def detach(self) -> None:
        """Remove every hook; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._reach.clear()

    @contextmanager
    def batch(self, size: int) -> Iterator[None]:
        """Count the forward pass inside as one batch of `size` samples."""
        self._owners.clear()
        self._batch_size = size
        with self:
            yield
        self.tally.close_batch(size)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count `func` if it is a weighted operation, then run it."""
        kwargs = kwargs or {}
        count = _COUNTED.get(getattr(func, "__name__", ""))
        if count is not None:
            count(self, func.__name__, *args, **kwargs)
        return func(*args, **kwargs)

    def _enter_module(self, module: nn.Module, _inputs: Any) -> None:
        self._owners.append(module)

    def _leave_module(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        self._owners.pop()
        if isinstance(module, BaseNode) and isinstance(output, Tensor):
            self._count_neurons(module, output)

    def _count_neurons(self, module: BaseNode, output: Tensor) -> None:
        name = self._names[module]
        kind = type(module).__name__
        tally = self.tally.neurons.setdefault(name, NeuronTally(name, kind))
        steps = len(output) if module.step_mode == "m" else 1
        tally.neurons = output.numel() // (steps * self._batch_size)
        tally.states = sum(
            isinstance(state, Tensor) and not key.endswith("_seq") for key, state in module._memories.items()
        )
        tally.updates += output.numel()
        tally.spikes += int(examine(output)[0].sum(dtype=torch.float64))

    def _count_linear(self, kind: str, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        def reach(present: Tensor) -> tuple[Tensor, tuple[int, ...]]:
            return linear_fan_out(present), (len(present),)

        self._count(kind, input, weight, 1, weight.shape[1], weight.shape[0], (), reach)

    def _count_convolution(self, kind: str, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(_CONVOLUTION_ARGUMENTS, args, strict=False)) | kwargs
        input, weight = given["input"], given["weight"]
        kernel = weight.shape[2:]
        dilation = _per_dimension(given.get("dilation", 1), len(kernel))
        geometry = Geometry(
            stride=_per_dimension(given.get("stride", 1), len(kernel)),
            padding=_padding(given.get("padding", 0), kernel, dilation),
            dilation=dilation,
            groups=given.get("groups", 1),
        )
        self._count_geometry(kind, input, weight, geometry, weight.shape[0] // geometry.groups, weight[0].numel())

    def _count_transposed(self, kind: str, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(_TRANSPOSED_ARGUMENTS, args, strict=False)) | kwargs
        input, weight = given["input"], given["weight"]
        dimensions = weight.dim() - 2
        geometry = Geometry(
            stride=_per_dimension(given.get("stride", 1), dimensions),
            padding=tuple((p, p) for p in _per_dimension(given.get("padding", 0), dimensions)),
            dilation=_per_dimension(given.get("dilation", 1), dimensions),
            groups=given.get("groups", 1),
            output_padding=_per_dimension(given.get("output_padding", 0), dimensions),
            transposed=True,
        )
        taps = weight[0, 0].numel()
        fan_in = weight.shape[0] // geometry.groups * taps
        self._count_geometry(kind, input, weight, geometry, weight.shape[1], fan_in)

    def _count_geometry(
        self, kind: str, input: Tensor, weight: Tensor, geometry: Geometry, channels: int, fan_in: int
    ) -> None:
        size = input.shape[2 - weight.dim() :]
        outputs = channels * geometry.groups

        def reach(present: Tensor) -> tuple[Tensor, tuple[int, ...]]:
            shape = (outputs, *geometry.output_size(size, weight.shape[2:]))
            return convolution_fan_out(present, size, geometry), shape

        taps = prod(weight.shape[2:])
        self._count(kind, input, weight, weight.dim() - 1, fan_in, channels * taps, (geometry,), reach)

    def _count(
        self,
        kind: str,
        input: Tensor,
        weight: Tensor,
        entry_dimensions: int,
        fan_in: int,
        fan_out: int,
        settings: tuple[Any, ...],
        reach_of: Callable[[Tensor], tuple[Tensor, tuple[int, ...]]],
    ) -> None:
        """Add one call to the tally of the layer it belongs to."""
        shape = tuple(input.shape[-entry_dimensions:])
        lead = tuple(input.shape[:-entry_dimensions]) or (1,)
        tally = self._tally_of(kind, weight, fan_in, fan_out)
        reach = self._reach_of((tally.name, shape, *settings), weight, input.device, reach_of)
        indicator, values = examine(input.detach().reshape(-1, prod(shape)))
        counts = count_pairs(indicator, reach.fan_out)
        steps = split_steps(counts, lead, self._batch_size, tally.name)
        total = int(counts.sum())
        by_value: float = total
        if values.kind not in ("silent", "spikes", "ternary"):
            magnitude = input.detach().abs().reshape(-1, prod(shape)).sum(0, dtype=torch.float64)
            by_value = float(magnitude @ reach.fan_out.double())
        tally.input_shape, tally.output_shape = shape, reach.output_shape
        tally.nonzero = reach.effective
        tally.calls += 1
        tally.input_entries += input.numel()
        tally.input_events += int(indicator.sum(1).sum(dtype=torch.float64))
        tally.synops += total
        tally.synops_by_value += by_value
        tally.dense += reach.dense * len(counts)
        tally.values |= values
        tally.add_steps(steps)

    def _tally_of(self, kind: str, weight: Tensor, fan_in: int, fan_out: int) -> LayerTally:
        """Return the tally of the current module; a second weight of one module gets a name of its own."""
        owner = self._names[self._owners[-1] if self._owners else self.net]
        shape = tuple(weight.shape)
        name, number = owner, 1
        while name in self.tally.layers and self.tally.layers[name].weight_shape != shape:
            number += 1
            name = f"{owner}#{number}"
        if name not in self.tally.layers:
            self.tally.layers[name] = LayerTally(name, kind, shape, 0, fan_in, fan_out)
        return self.tally.layers[name]

    def _reach_of(
        self,
        key: tuple[Any, ...],
        weight: Tensor,
        device: torch.device,
        reach_of: Callable[[Tensor], tuple[Tensor, tuple[int, ...]]],
    ) -> _Reach:
        """Return the fan-out of a weight, computed anew only if its zeros have moved since the last call."""
        source = None if weight.is_inference() else (weight.data_ptr(), weight._version)
        known = self._reach.get(key)
        if known is not None and source is not None and known.source == source:
            return known
        present = weight.detach() != 0
        if known is None or not torch.equal(known.present, present):
            fan_out, output_shape = reach_of(present)
            dense, _ = reach_of(torch.ones_like(present))
            known = _Reach(
                present=present,
                source=source,
                fan_out=fan_out.flatten().float().to(device),
                effective=int(present.sum()),
                dense=int(dense.sum()),
                output_shape=output_shape,
            )
        known.source = source
        self._reach[key] = known
        return known


_Counter = Callable[..., None]
_COUNTED: dict[str, _Counter] = {
    "linear": Tracer._count_linear,
    **{f"conv{n}d": Tracer._count_convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": Tracer._count_transposed for n in (1, 2, 3)},
}


def _per_dimension(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
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
    if padding == "valid":
        padding = 0
    assert not isinstance(padding, str)  # PyTorch itself refuses any other word
    return tuple((p, p) for p in _per_dimension(padding, len(kernel)))
