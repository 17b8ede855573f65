"""Statistics of a layer's inputs, gathered over calibration batches without keeping any of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from types import MappingProxyType

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.func import functional_call

from compressors.calibration.processes import reduced, share
from compressors.network.layers import Layer, LayerError, evaluating, hooks

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]

STRIP = 256  # rows of a symmetric product computed at once
UNFOLDED = 2**25  # entries of unfolded inputs held at once, as near as whole samples and steps allow


class CalibrationError(ValueError):
    """Calibration data that cannot be used."""

    exit_status = 2


def over_time(x: Tensor, response: Tensor) -> Tensor:
    """Filter ``x [T, ...]`` over time with a causal impulse response ``[T]``: ``M x``, M lower-triangular Toeplitz."""
    steps = torch.arange(len(response), device=response.device)
    lag = steps[:, None] - steps
    toeplitz = response[lag.clamp(min=0)] * (lag >= 0)
    return torch.tensordot(toeplitz.to(x), x, dims=1)


def unfolded(layer: Layer, x: Tensor) -> Tensor:
    """The input vectors that the rows of a layer's weight are multiplied with: ``[groups, vectors, d]``.

    ``x`` is ``[N, in]`` for a linear layer and ``[N, C, (H,) W]`` for a convolution, one vector for each position.
    """
    module = layer.module
    if isinstance(module, nn.Linear):
        return x.reshape(1, -1, module.in_features)
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise LayerError(f"layer {layer.name!r}: only convolutions with numeric zero padding are supported")
    kernel, dilation, padding, stride = module.kernel_size, module.dilation, module.padding, module.stride
    if isinstance(module, nn.Conv1d):
        x = x.unsqueeze(2)
        kernel, dilation, padding, stride = (1, *kernel), (1, *dilation), (0, *padding), (1, *stride)
    patches = F.unfold(x, kernel, dilation, padding, stride)  # [N, C * taps, positions]
    patches = patches.unflatten(1, (module.groups, -1))
    return patches.permute(1, 0, 3, 2).flatten(1, 2)


def all_steps(layer: Layer, x: Tensor) -> Tensor:
    """A layer's input ``[T, B, ...]``, also where it came as the one step ``[1, B, ...]`` that all of them repeat."""
    return x.expand(layer.timesteps, *x.shape[1:]) if len(x) == 1 else x


def vectors(layer: Layer, x: Tensor, response: Tensor | None) -> Iterator[Tensor]:
    """What a layer's rows are multiplied with, filtered over time if asked: ``x [T, B, ...]`` -> ``[groups, n, d]``.

    They come in parts of about :data:`UNFOLDED` entries: a convolution's are many times its input.

    Raises:
        CalibrationError: the input is not finite.
    """
    if not torch.isfinite(x).all():
        raise CalibrationError(f"layer {layer.name!r} receives NaN or infinite inputs from the calibration data")
    x = all_steps(layer, x)
    x = (x if response is None else over_time(x, response)).flatten(0, 1)
    entries = x[0].numel() * prod(getattr(layer.module, "kernel_size", ()))
    for part in x.split(max(1, UNFOLDED // entries)):
        yield unfolded(layer, part)


class _HessianSum:
    """A forward pre-hook that adds up ``2 z^T z`` over the inputs of one layer, filtered over time if asked."""

    def __init__(self, layer: Layer, response: Tensor | None, dtype: torch.dtype) -> None:
        weight = layer.rows
        self.layer, self.response = layer, response
        self.total = torch.zeros(layer.groups, weight.shape[1], weight.shape[1], dtype=dtype, device=weight.device)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for z in vectors(self.layer, inputs[0].to(self.total.dtype), self.response):
            add_products(self.total, z)

    def mean(self, samples: float) -> Tensor:
        """The Hessian, over the samples of all processes."""
        return symmetric(reduced(self.total)).div_(samples)


def add_products(total: Tensor, z: Tensor) -> None:
    """Add ``2 z^T z`` to the upper triangle of ``total [groups, d, d]``, in strips: little more than half the work.

    What it does below the diagonal is within a strip of it; see :func:`symmetric`.
    """
    for start in range(0, total.shape[1], STRIP):
        strip = slice(start, start + STRIP)
        total[:, strip, start:].baddbmm_(z[:, :, strip].mT, z[:, :, start:], alpha=2)


def symmetric(total: Tensor) -> Tensor:
    """The symmetric matrices of which ``total [groups, d, d]`` holds the upper triangles."""
    return total.triu() + total.triu(1).mT


def hessians(
    network: nn.Module,
    layers: Sequence[Layer],
    responses: Mapping[str, Tensor | None],
    batches: Callable[[], Iterable[Tensor]],
    *,
    dtype: torch.dtype = torch.float64,
    parameters: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """``H = 2 E[sum over time and positions of z z^T]`` of each layer, a mean over samples: ``[groups, d, d]``.

    ``z`` is a layer's unfolded input, filtered over time by ``responses[layer.name]`` ``[T]`` (SBC: the membrane), or
    as it is where that is None (OBC: the input current). All layers see the inputs of the network as it stands, but
    for the ``parameters`` (by qualified name) that take the place of its own. Under ``torch.distributed`` each rank
    takes its share of the batches, and the sums are reduced.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
        LayerError: a layer that cannot be unfolded.
    """
    sums = {layer.name: _HessianSum(layer, responses[layer.name], dtype) for layer in layers}
    count = observe(network, {layer.module: sums[layer.name] for layer in layers}, batches, parameters)
    return {name: sums.pop(name).mean(count) for name in [*sums]}


def drift(
    network: nn.Module,
    layer: Layer,
    response: Tensor | None,
    batches: Callable[[], Iterable[Tensor]],
    dense: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """How a layer's inputs changed: ``2 E[z' z'^T]`` and ``2 E[(z - z') z'^T]``, both ``[groups, d, d]``.

    ``z'`` are the inputs (filtered, unfolded; see :func:`hessians`) in the network as it stands, ``z`` those with the
    parameters ``dense`` (by qualified name).

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
    """
    weight, samples = layer.rows, 0
    now = torch.zeros(layer.groups, weight.shape[1], weight.shape[1], dtype=dtype, device=weight.device)
    change = torch.zeros_like(now)
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].to(dtype))

    with evaluating(network), hooks([layer.module], look, before=True):
        for x in share(batches()):
            samples += _run(network, x, dense)
            _run(network, x)
            for before, after in zip(*(vectors(layer, inputs, response) for inputs in seen), strict=True):
                add_products(now, after)
                change.baddbmm_((before - after).mT, after, alpha=2)
            seen.clear()
    count = _counted(samples, weight.device)
    return symmetric(reduced(now)).div_(count), reduced(change).div_(count)


def observe(
    network: nn.Module,
    watched: Mapping[nn.Module, Hook],
    batches: Callable[[], Iterable[Tensor]],
    parameters: Mapping[str, Tensor] = MappingProxyType({}),
) -> float:
    """Run the network over the batches, each hook seeing its module's inputs; the number of samples.

    ``parameters`` (by qualified name) take the place of the network's own.
    Under ``torch.distributed`` each rank sees its share of the batches, and the number is that of all together.

    Raises:
        CalibrationError: no calibration data.
    """
    with evaluating(network), ExitStack() as stack:
        for module, hook in watched.items():
            stack.enter_context(hooks([module], hook, before=True))
        samples = sum(_run(network, x, parameters) for x in share(batches()))
    return _counted(samples, next(network.parameters()).device)


def _counted(samples: int, device: torch.device) -> float:
    """The samples of all processes."""
    count = float(reduced(torch.tensor(samples, dtype=torch.float64, device=device)))
    if count == 0:
        raise CalibrationError("the calibration set is empty: ask for at least one sample")
    return count


def _run(network: nn.Module, x: Tensor, parameters: Mapping[str, Tensor] = MappingProxyType({})) -> int:
    functional.reset_net(network)
    functional_call(network, dict(parameters), (x,))
    return len(x)


def parts_of(layers: Sequence[Layer], dtype: torch.dtype, max_memory: int) -> list[list[Layer]]:
    """Layers in execution order, cut into parts whose Hessians fit into ``max_memory`` bytes; one layer at least."""
    parts: list[list[Layer]] = []
    used = 0
    for layer in layers:
        size = layer.groups * layer.rows.shape[1] ** 2 * dtype.itemsize
        if not parts or used + size > max_memory:
            parts.append([])
            used = 0
        parts[-1].append(layer)
        used += size
    return parts
