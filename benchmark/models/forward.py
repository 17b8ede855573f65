"""Forward passes that do less work and give the same bits."""

# mypy: disallow-untyped-defs=False
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from benchmark.models.multistep import STEPPED
from compressors.kernels import threads
from compressors.layers import hooks

STATELESS = tuple(STEPPED.values())
NEURONS = (neuron.IFNode, neuron.LIFNode)
STEP_FUNCTIONS = (surrogate.ATan, surrogate.Sigmoid, surrogate.PiecewiseQuadratic, surrogate.PiecewiseExp)
BLOCK = 4096  # potentials that a thread keeps in its first cache over all time steps
GRAIN = 2**17  # spikes that make a thread worth waking, 0.1 ms
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
def compiled_neurons(network: nn.Module) -> Iterator[None]:
    """Let IF and LIF neurons run all time steps in one compiled loop, where no gradient is wanted (CPU, float32).

    The arithmetic is SpikingJelly's, operation by operation; it makes a dozen passes over memory where this makes two.
    """
    nodes = [module for module in network.modules() if type(module) in NEURONS]
    for node in nodes:
        node.multi_step_forward = partial(_multi_step_forward, node)  # type: ignore[assignment]
    try:
        yield
    finally:
        for node in nodes:
            del node.multi_step_forward


def _multi_step_forward(node: Any, x: Tensor) -> Tensor:
    """Spikes ``[T, B, ...]`` for input currents ``x [T, B, ...]``; the node's potential is left where it ends."""
    if torch.is_grad_enabled() or not _compilable(node, x):
        return type(node).multi_step_forward(node, x)
    (start,) = node.materialize_states((x,), (node.v,), "m")
    potential = start.clone(memory_format=torch.contiguous_format)
    spikes = x.new_empty(x.shape)
    currents = x[:1] if x.stride(0) == 0 else x
    with threads(max(1, min(torch.get_num_threads(), spikes.numel() // GRAIN))):
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


def _compilable(node: Any, x: Tensor) -> bool:
    """Whether the compiled loop computes what this neuron would."""
    fires_ones = type(node.surrogate_function) in STEP_FUNCTIONS and node.surrogate_function.spiking
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x[0].is_contiguous()
    return fires_ones and plain and not node.store_v_seq


@njit(parallel=True, cache=True, error_model="numpy")
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
