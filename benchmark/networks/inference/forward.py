"""Forward passes that do less work and give the same bits."""

# mypy: disallow-untyped-defs=False
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torch.overrides import handle_torch_function, has_torch_function

from benchmark.networks.inference import spikes
from benchmark.networks.inference.multistep import STEPPED
from compressors.network.layers import hooks
from compressors.threads import parallel_loop, threads
from hardware.functions import stands_in_for
from hardware.neurons import sends_binary_spikes

STATELESS = tuple(STEPPED.values())
NEURONS = (neuron.IFNode, neuron.LIFNode)  # whose potentials the compiled loop knows how to charge
BLOCK = 4096  # potentials that a thread keeps in its first cache over all time steps
GRAIN = 2**17  # entries that make a thread worth waking, 0.1 ms
Run = Callable[..., Tensor]
Size = int | tuple[int, int]
ZERO, ONE = np.float32(0), np.float32(1)


@contextmanager
def each_image_once(network: nn.Module) -> Iterator[None]:
    """Let layers without state compute one time step of an input ``[T, B, ...]`` whose steps are one and the same.

    Such an input repeats a tensor as a view (``expand``), and so does the layer's output: everything before the first
    neurons sees an image once. Hooks on the layer see the one step, ``[1, B, ...]``.
    """
    steps: dict[nn.Module, int] = {}  # of the inputs that were cut

    def cut(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        x = inputs[0]
        if len(x) == 1 or x.stride(0) != 0:
            return None
        steps[module] = len(x)
        return x[:1]

    def repeat(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return output.expand(steps.pop(module), *output.shape[1:]) if module in steps else None

    layers = [module for module in network.modules() if isinstance(module, STATELESS)]
    with hooks(layers, cut, before=True), hooks(layers, repeat):
        yield


@contextmanager
def compiled(network: nn.Module) -> Iterator[None]:
    """Let neurons, convolutions and max pooling run in compiled loops, where no gradient is wanted (CPU, float32).

    The arithmetic is SpikingJelly's and torch's, operation by operation. IF and LIF neurons take a dozen passes over
    memory there and two here; pooling there looks up every entry of every window by itself, and takes rows together
    here; convolutions of few spikes leave out the zeros.

    Inside, the modules' own methods are replaced, instance by instance, and their classes' are back afterwards. The
    network must stay the very same modules: the optimizer, masks, hooks, names in the state dict and everybody who
    asks for a module's class hold on to them, so neither other modules nor other classes will do. A hook will not
    either: it can change what a module returns, but not how it computes it, and hooks of others must see the result.
    Where a gradient is wanted, or an input is not what a loop knows, the class's own method runs.
    """
    neurons = [module for module in network.modules() if type(module) in NEURONS]
    pools = [module for module in network.modules() if type(module) is layer.MaxPool2d]
    convolutions = [module for module in network.modules() if _is_plain_convolution(module)]
    replaced: list[tuple[nn.Module, str, Run]] = [(node, "multi_step_forward", _multi_step_forward) for node in neurons]
    replaced += [(pool, "forward", _max_pool) for pool in pools]
    replaced += [(convolution, "_conv_forward", _convolve) for convolution in convolutions]
    for module, name, function in replaced:
        setattr(module, name, partial(function, module))
    try:
        yield
    finally:
        for module, name, _ in replaced:
            delattr(module, name)


def _multi_step_forward(node: Any, x: Tensor) -> Tensor:
    """Spikes ``[T, B, ...]`` for input currents ``x [T, B, ...]``; the node's potential is left where it ends."""
    loop_fires_alike = sends_binary_spikes(node) and not node.store_v_seq
    if not loop_fires_alike or not _plain(x) or not x[0].is_contiguous():
        return type(node).multi_step_forward(node, x)
    (start,) = node.materialize_states((x,), (node.v,), "m")
    potential = start.clone(memory_format=torch.contiguous_format)
    spikes = x.new_empty(x.shape)
    currents = x[:1] if x.stride(0) == 0 else x
    with _threads_for(spikes):
        _fire(
            currents.detach().flatten(1).numpy(),
            potential.flatten().numpy(),
            spikes.flatten(1).numpy(),
            np.float32(getattr(node, "tau", 0)),
            getattr(node, "decay_input", False),
            np.float32(node.v_threshold),
            np.float32(node.v_reset or 0),
            node.v_reset is None,
        )
    node.v = potential
    return spikes


def _plain(x: Tensor) -> bool:
    """Whether ``x`` is of the kind that the loops take, and nobody wants a gradient."""
    return not torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32


def _threads_for(x: Tensor) -> AbstractContextManager[None]:
    """As many threads as torch may use, and no more than there is work for."""
    return threads(max(1, min(torch.get_num_threads(), x.numel() // GRAIN)))


@parallel_loop
def _fire(x, potential, spikes, tau, decay_input, threshold, reset, soft):
    """Charge, fire and reset ``potential [n]`` in each step of ``x [T or 1, n]``; ``spikes [T, n]`` are written.

    Without a leak ``tau`` is 0. All numbers are float32, and each operation rounds as torch's does.
    """
    steps, size = spikes.shape
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min(size, (block + 1) * BLOCK)
        v = potential[start:stop]
        for step in range(steps):
            current, fired = x[min(step, len(x) - 1), start:stop], spikes[step, start:stop]
            for i in range(stop - start):
                if tau == 0:
                    h = v[i] + current[i]
                elif decay_input:
                    h = v[i] + (current[i] - (v[i] - reset)) / tau
                else:
                    h = v[i] - (v[i] - reset) / tau + current[i]
                spike = ONE if h >= threshold else ZERO
                v[i] = h - spike * threshold if soft else spike * reset + (ONE - spike) * h
                fired[i] = spike


def _max_pool(pool: Any, x: Tensor) -> Tensor:
    """Maxima ``[T, B, C, H', W']`` of ``x [T, B, C, H, W]``, in windows that the loop knows."""
    simple = pool.step_mode == "m" and pool.dilation == 1 and not pool.ceil_mode and not pool.return_indices
    if not simple or x.ndim != 5:
        return type(pool).forward(pool, x)
    windows = (pool.kernel_size, pool.stride, pool.padding)
    return functional.seq_to_ann_forward(x, lambda steps: max_pool2d(steps, *windows))


@stands_in_for("max_pool2d")
def max_pool2d(input: Tensor, kernel_size: Size, stride: Size, padding: Size) -> Tensor:
    """Maxima of ``input [N, C, H, W]``; whoever watches functions sees the call, and may run it."""
    if has_torch_function((input,)):
        return handle_torch_function(max_pool2d, (input,), input, kernel_size, stride, padding)
    if not _plain(input) or not input.is_contiguous():
        return F.max_pool2d(input, kernel_size, stride, padding)
    sizes = F.max_pool2d(input.new_empty(input.shape, device="meta"), kernel_size, stride, padding).shape
    maxima = input.new_empty(sizes)
    with _threads_for(input):
        _maxima(
            input.detach().flatten(0, 1).numpy(),
            maxima.flatten(0, 1).numpy(),
            *(_pair(size) for size in (kernel_size, stride, padding)),
        )
    return maxima


@parallel_loop
def _maxima(x, maxima, kernel, stride, padding):
    """Largest entries of windows: of their rows first, ``x [n, H, W]``, then of columns; ``maxima [n, H', W']``."""
    height, width = x.shape[1:]
    for plane in prange(len(x)):
        padded = np.full(width + 2 * padding[1], -np.inf, dtype=x.dtype)
        tallest = padded[padding[1] : padding[1] + width]
        for row, target in enumerate(maxima[plane]):
            top = row * stride[0] - padding[0]
            tallest[:] = x[plane, max(top, 0)]
            for i in range(max(top, 0) + 1, min(top + kernel[0], height)):
                _raise_to(tallest, x[plane, i])
            target[:] = padded[:: stride[1]][: len(target)]
            for i in range(1, kernel[1]):
                _raise_to(target, padded[i :: stride[1]])


@njit(error_model="numpy")
def _raise_to(values, others):
    """Let each value be the larger of the two; what is undefined is largest."""
    for i in range(len(values)):
        value, other = values[i], others[i]
        values[i] = other if other > value or other != other else value


def _is_plain_convolution(module: nn.Module) -> bool:
    """Whether it computes what ``nn.Conv2d`` does, in windows that the loop over spikes knows."""
    if not isinstance(module, nn.Conv2d) or type(module)._conv_forward is not nn.Conv2d._conv_forward:
        return False
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str) and module.kernel_size != (1, 1)


def _convolve(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return conv2d(x, weight, bias, module.stride, module.padding)


@stands_in_for("conv2d")
def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Convolution of ``input [N, C, H, W]``; whoever watches functions sees the call, and may run it."""
    if has_torch_function((input, weight)):
        return handle_torch_function(conv2d, (input, weight), input, weight, bias, stride, padding)
    if _plain(input) and weight.dtype == input.dtype:
        with _threads_for(input):
            sums = spikes.conv2d(input, weight, bias, stride, padding)
        if sums is not None:
            return sums
    return F.conv2d(input, weight, bias, stride, padding)
