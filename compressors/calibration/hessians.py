"""Second moments of a layer's inputs over the calibration data, its Hessian among them; no batch is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.func import functional_call

from compressors.calibration.processes import Batches, batches_of_rank, summed_over_ranks
from compressors.network.layers import Layer, LayerError, evaluating, hooks

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]

STRIP = 256  # rows of a symmetric product computed at once
UNFOLDED = 2**25  # entries of unfolded inputs held at once; more where a single frame has more


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
    """A layer's input at all steps, ``[T, B, ...]``; of a repeated image it computes one, ``[1, B, ...]``."""
    return x.expand(layer.timesteps, *x.shape[1:]) if layer.repeated else x


def whole_passes(layer: Layer, take: Callable[[Layer, Tensor], None]) -> dict[nn.Module, Hook]:
    """Forward pre-hooks that hand ``take`` a layer's input, one whole sequence ``[T, B, ...]`` at a time.

    Args:
        layer: one whose network loops over time gets its steps in several calls, which are put together.
        take: is told the layer, of which ``module`` is the one that runs, since several may share its weight.

    Returns:
        The hooks by module. They raise a LayerError where a pass is no whole number of sequences.
    """
    return {module: _WholePasses(replace(layer, module=module), take) for module in layer.modules}


class _WholePasses:
    """A forward pre-hook, see :func:`whole_passes`."""

    def __init__(self, layer: Layer, take: Callable[[Layer, Tensor], None]) -> None:
        self.layer, self.take = layer, take
        self.calls: list[Tensor] = []

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.layer.calls == 1:
            self.take(self.layer, inputs[0])
            return
        self.calls.append(inputs[0].clone())  # the network may go on to write into it
        if len(self.calls) < self.layer.calls:
            return
        x = torch.cat(self.calls)
        self.calls.clear()
        if len(x) != self.layer.timesteps:
            raise LayerError(
                f"layer {self.layer.name!r} runs through {len(x)} time steps of a network of {self.layer.timesteps}, "
                "which loops over time: hand the network whole sequences [T, B, ...], or exclude the layer"
            )
        self.take(self.layer, x)


def vectors(layer: Layer, x: Tensor, response: Tensor | None) -> Iterator[Tensor]:
    """The vectors that a layer's rows are multiplied with: ``x [T, B, ...]`` -> parts of ``[groups, n, d]``.

    ``x`` is filtered over time by the impulse response ``[T]``, where there is one. The vectors come in parts of about
    :data:`UNFOLDED` entries, since those of a convolution take many times the memory of its input.

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
    """Adds up ``2 z^T z`` over the inputs of one layer, filtered by its response."""

    def __init__(self, layer: Layer, response: Tensor | None, dtype: torch.dtype) -> None:
        weight = layer.rows
        self.response = response
        self.total = torch.zeros(layer.groups, weight.shape[1], weight.shape[1], dtype=dtype, device=weight.device)

    def add(self, layer: Layer, x: Tensor) -> None:
        """Add an input ``x [T, B, ...]`` of the layer."""
        for z in vectors(layer, x.to(self.total.dtype), self.response):
            add_products(self.total, z)

    def mean(self, samples: float) -> Tensor:
        """The Hessian, a mean over the samples of all ranks, of which there are ``samples``."""
        return symmetric(summed_over_ranks(self.total)).div_(samples)


def add_products(total: Tensor, z: Tensor) -> None:
    """Add ``2 z^T z`` to the upper triangle of ``total [groups, d, d]``; ``z`` is ``[groups, n, d]``.

    The product is computed in strips of :data:`STRIP` rows from the diagonal on, little more than half the work of the
    whole. Entries below the diagonal are wrong afterwards; :func:`symmetric` puts them right.
    """
    for start in range(0, total.shape[1], STRIP):
        strip = slice(start, start + STRIP)
        total[:, strip, start:].baddbmm_(z[:, :, strip].mT, z[:, :, start:], alpha=2)


def symmetric(total: Tensor) -> Tensor:
    """The symmetric matrices whose upper triangles are those of ``total [groups, d, d]``."""
    return total.triu() + total.triu(1).mT


def hessians(
    network: nn.Module,
    layers: Sequence[Layer],
    responses: Mapping[str, Tensor | None],
    batches: Batches,
    *,
    dtype: torch.dtype = torch.float64,
    parameters: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """``H = 2 E[sum over time and positions of z z^T]`` of each layer, a mean over samples: ``[groups, d, d]``.

    ``z`` is a layer's unfolded input, filtered over time by ``responses[layer.name]`` ``[T]`` (SBC: the membrane), or
    not filtered where that is None (OBC: the input current). The network runs with ``parameters`` (by qualified name)
    in place of its own. Under ``torch.distributed`` each rank runs a part of the batches, and the sums are those of
    all.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
        LayerError: a layer that cannot be unfolded.
    """
    sums = {layer.name: _HessianSum(layer, responses[layer.name], dtype) for layer in layers}
    watched = {module: hook for layer in layers for module, hook in whole_passes(layer, sums[layer.name].add).items()}
    count = observe(network, watched, batches, parameters)
    return {name: sums.pop(name).mean(count) for name in [*sums]}


@dataclass(frozen=True)
class Drift:
    """How a layer's inputs changed: ``z'`` now, ``z`` before; means over samples.

    Args:
        seen: ``2 E[z' z'^T]``, ``[groups, d, d]``.
        change: ``2 E[(z - z') z'^T]``, ``[groups, d, d]``.
        samples: how many the means are over.
    """

    seen: Tensor
    change: Tensor
    samples: float

    def __add__(self, other: "Drift") -> "Drift":
        """That of both one's samples and the other's."""
        samples = self.samples + other.samples
        share = self.samples / samples
        seen, change = self.seen.lerp(other.seen, 1 - share), self.change.lerp(other.change, 1 - share)
        return Drift(seen, change, samples)


def drift(
    network: nn.Module,
    layer: Layer,
    response: Tensor | None,
    batches: Batches,
    dense: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float64,
) -> Drift:
    """How compressed layers changed the inputs of a later one.

    ``z'`` of :class:`Drift` are the inputs (filtered, unfolded; see :func:`hessians`) in the network with its present
    parameters, ``z`` those with the parameters ``dense`` (by qualified name).

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
    """
    weight, samples = layer.rows, 0
    present = torch.zeros(layer.groups, weight.shape[1], weight.shape[1], dtype=dtype, device=weight.device)
    change = torch.zeros_like(present)
    recorded: list[tuple[Layer, Tensor]] = []  # inputs of one pass, in the order of the layer's uses

    def record(use: Layer, inputs: Tensor) -> None:
        recorded.append((use, inputs.to(dtype, copy=True)))  # the network may go on to write into them

    with evaluating(network), watching(whole_passes(layer, record)):
        for x in batches_of_rank(batches()):
            samples += _run(network, x, dense)
            in_dense = recorded[:]
            recorded.clear()
            _run(network, x)
            for (use, before), (_, after) in zip(in_dense, recorded, strict=True):
                for old, new in zip(vectors(use, before, response), vectors(use, after, response), strict=True):
                    add_products(present, new)
                    change.baddbmm_((old - new).mT, new, alpha=2)
            recorded.clear()
    count = counted(samples, weight.device)
    return Drift(symmetric(summed_over_ranks(present)).div_(count), summed_over_ranks(change).div_(count), count)


@contextmanager
def watching(watched: Mapping[nn.Module, Hook]) -> Iterator[None]:
    """Call the hook of each module with the module's inputs, inside."""
    with ExitStack() as stack:
        for module, hook in watched.items():
            stack.enter_context(hooks([module], hook, before=True))
        yield


def observe(
    network: nn.Module,
    watched: Mapping[nn.Module, Hook],
    batches: Batches,
    parameters: Mapping[str, Tensor] = MappingProxyType({}),
) -> float:
    """Run the network over the batches, and call the hook of each watched module with the module's inputs.

    Args:
        network: in evaluation mode meanwhile.
        watched: hooks by module.
        batches: the calibration data; under ``torch.distributed`` each rank runs a part of them.
        parameters: take the place of the network's own, by qualified name.

    Returns:
        The number of samples that all ranks ran together.

    Raises:
        CalibrationError: no calibration data.
    """
    with evaluating(network), watching(watched):
        samples = sum(_run(network, x, parameters) for x in batches_of_rank(batches()))
    return counted(samples, next(network.parameters()).device)


def counted(samples: int, device: torch.device) -> float:
    """The number of samples of all ranks, from that of this one."""
    count = float(summed_over_ranks(torch.tensor(samples, dtype=torch.float64, device=device)))
    if count == 0:
        raise CalibrationError("the calibration set is empty: ask for at least one sample")
    return count


def _run(network: nn.Module, x: Tensor, parameters: Mapping[str, Tensor] = MappingProxyType({})) -> int:
    functional.reset_net(network)
    functional_call(network, dict(parameters), (x,))
    return len(x)


def parts_of(layers: Sequence[Layer], sizes: Mapping[str, int], max_memory: int) -> list[list[Layer]]:
    """Split the layers into consecutive parts whose Hessians fit into ``max_memory`` bytes; a part has at least one.

    ``sizes`` are the bytes that the Hessians of each layer take.
    """
    parts: list[list[Layer]] = []
    used = 0
    for layer in layers:
        size = sizes[layer.name]
        if not parts or used + size > max_memory:
            parts.append([])
            used = 0
        parts[-1].append(layer)
        used += size
    return parts
