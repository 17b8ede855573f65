"""Forward passes that do less work and give the same bits."""

# mypy: disallow-untyped-defs=False
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair
from torch.overrides import handle_torch_function, has_torch_function

from benchmark.networks.inference import firing, spikes
from benchmark.networks.inference.multistep import STEPPED
from compressors.network.layers import hooks
from compressors.threads import parallel_loop
from hardware.functions import stands_in_for

STATELESS = tuple(STEPPED.values())
Run = Callable[..., Tensor]
Size = int | tuple[int, int]


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
    """Let neurons, convolutions and max pooling run in compiled loops (CPU, float32), gradients included.

    The arithmetic is SpikingJelly's and torch's, operation by operation. IF and LIF neurons take a dozen passes over
    memory there and two or three here (:mod:`benchmark.networks.inference.firing`); pooling there looks up every entry
    of every window by itself, and takes rows together here, where no gradient is wanted; convolutions of few spikes
    leave out the zeros, forward.

    Inside, the modules' own methods are replaced, instance by instance, and their classes' are back afterwards. The
    network must stay the very same modules: the optimizer, masks, hooks, names in the state dict and everybody who
    asks for a module's class hold on to them, so neither other modules nor other classes will do. A hook will not
    either: it can change what a module returns, but not how it computes it, and hooks of others must see the result.
    Where something is not what a loop knows, the class's own method runs.
    """
    neurons = [module for module in network.modules() if type(module) in firing.NEURONS]
    pools = [module for module in network.modules() if type(module) is layer.MaxPool2d]
    convolutions = [module for module in network.modules() if _is_plain_convolution(module)]
    replaced: list[tuple[nn.Module, str, Run]] = [(node, "multi_step_forward", firing.multi_step) for node in neurons]
    replaced += [(pool, "forward", _max_pool) for pool in pools]
    replaced += [(convolution, "_conv_forward", _convolve) for convolution in convolutions]
    for module, name, function in replaced:
        setattr(module, name, partial(function, module))
    try:
        yield
    finally:
        for module, name, _ in replaced:
            delattr(module, name)


def _in_memory(x: Tensor) -> bool:
    """Whether ``x`` is of the kind that the loops take."""
    return x.device.type == "cpu" and x.dtype == torch.float32


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
    if torch.is_grad_enabled() or not _in_memory(input) or not input.is_contiguous():
        return F.max_pool2d(input, kernel_size, stride, padding)
    sizes = F.max_pool2d(input.new_empty(input.shape, device="meta"), kernel_size, stride, padding).shape
    maxima = input.new_empty(sizes)
    with firing.threads_for(input):
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
    if not _in_memory(input) or weight.dtype != input.dtype:
        return F.conv2d(input, weight, bias, stride, padding)
    with firing.threads_for(input), torch.no_grad():
        sums = spikes.conv2d(input, weight, bias, stride, padding)
    if sums is None:
        return F.conv2d(input, weight, bias, stride, padding)
    learns = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (input, weight, bias))
    return _Convolution.apply(input, weight, bias, stride, padding, sums) if learns else sums


class _Convolution(torch.autograd.Function):
    """Sums that are there already, with the gradients of the convolution that they are the sums of."""

    @staticmethod
    def forward(ctx, input, weight, bias, stride, padding, sums):
        ctx.save_for_backward(input, weight)
        ctx.windows, ctx.biases = (stride, padding), None if bias is None else list(bias.shape)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, of_sums):
        input, weight = ctx.saved_tensors
        stride, padding = ctx.windows
        settings = (ctx.biases, stride, padding, (1, 1), False, (0, 0), 1, ctx.needs_input_grad[:3])
        gradients = torch.ops.aten.convolution_backward(of_sums, input, weight, *settings)
        return *gradients, None, None, None
