"""IF and LIF neurons in one compiled loop over all time steps, with SpikingJelly's arithmetic and gradients.

SpikingJelly's neuron on a CPU is a dozen torch operations a step, forward, and two dozen backward, each a pass over
memory. Here a block of neurons stays in the first cache from the first step to the last: one read of the currents and
one write of the spikes; where a gradient is wanted also one write of the charged potentials, and backward one read of
them and of the spikes' gradients, and one write of the currents'.
"""

# mypy: disallow-untyped-defs=False
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressors.threads import parallel_loop, threads
from hardware.neurons import sends_binary_spikes

NEURONS = (neuron.IFNode, neuron.LIFNode)  # whose potentials the loop knows how to charge
BLOCK = 2048  # neurons of which a thread keeps the potentials in its first cache over all time steps
GRAIN = 2**17  # entries that make a thread worth waking, 0.1 ms
ZERO, ONE = np.float32(0), np.float32(1)


class _Kind(NamedTuple):
    """What the loops know of a neuron, in float32."""

    tau: np.float32  # 0 without a leak
    decay_input: bool
    threshold: np.float32
    reset: np.float32  # what a neuron that fired is set to
    soft: bool  # it loses the threshold instead

    @classmethod
    def of(cls, node: Any) -> "_Kind":
        return cls(
            np.float32(getattr(node, "tau", 0)),
            getattr(node, "decay_input", False),
            np.float32(node.v_threshold),
            np.float32(node.v_reset or 0),
            node.v_reset is None,
        )


def multi_step(node: Any, x: Tensor) -> Tensor:
    """Spikes ``[T, B, ...]`` for input currents ``x [T, B, ...]``; the node's potential is left where it ends.

    Spikes, potentials and gradients are equal to the class's own to the bit. What the loop does not know (other
    devices and types, surrogate gradients other than the arctangent's, a reset with a gradient) is left to the class.
    Currents that autocast computed in bfloat16 are added up in float32, as autocast has it for sums, and their spikes,
    zeros and ones, are bfloat16 again.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return multi_step(node, x.float()).to(x.dtype)
    if not _known(node, x):
        return type(node).multi_step_forward(node, x)
    (start,) = node.materialize_states((x,), (node.v,), "m")
    if torch.is_grad_enabled() and (x.requires_grad or start.requires_grad):
        spikes, node.v = _Firing.apply(x, start, _Kind.of(node), float(node.surrogate_function.alpha))
        return spikes
    spikes, node.v = _fired(x, start, _Kind.of(node), None)
    return spikes


def charged(node: Any, x: Tensor) -> Tensor | None:
    """Potentials before each reset, ``[T, B, ...]``, of a neuron at rest that takes ``x [T, B, ...]``.

    None where the loop does not know the neuron or the device. Its state is left alone. What
    :func:`compressors.network.neurons.charged` tells of any neuron that shows its potentials, step by step, the loop
    tells of those that it knows in one pass.
    """
    if type(node) not in NEURONS or not _known(node, x):
        return None
    potentials = x.new_empty(x.shape)
    _fired(x, x.new_full(x.shape[1:], node.v_reset or 0), _Kind.of(node), potentials)
    return potentials


def _known(node: Any, x: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x[0].is_contiguous()
    if not plain or not sends_binary_spikes(node) or node.store_v_seq:
        return False
    step = node.surrogate_function
    learns = node.detach_reset and type(step) is surrogate.ATan and isinstance(step.alpha, int | float)
    return learns or not torch.is_grad_enabled()


class _Firing(torch.autograd.Function):
    """Spikes and last potentials of currents and first potentials, with the arctangent's surrogate gradient."""

    @staticmethod
    def forward(ctx, x, start, kind, alpha):
        charged = x.new_empty(x.shape)
        spikes, potential = _fired(x, start, kind, charged)
        ctx.save_for_backward(charged)
        ctx.kind, ctx.alpha = kind, alpha
        return spikes, potential

    @staticmethod
    @once_differentiable
    def backward(ctx, of_spikes, of_potential):
        (charged,) = ctx.saved_tensors
        of_currents = torch.empty_like(charged)
        carry = of_potential.clone(memory_format=torch.contiguous_format)
        with threads_for(charged):
            _unfire(
                of_spikes.contiguous().flatten(1).numpy(),
                charged.flatten(1).numpy(),
                carry.flatten().numpy(),
                of_currents.flatten(1).numpy(),
                *ctx.kind,
                np.float32(math.pi / 2 * ctx.alpha),
                np.float32(ctx.alpha / 2),
            )
        return of_currents, carry, None, None


def _fired(x: Tensor, start: Tensor, kind: _Kind, charged: Tensor | None) -> tuple[Tensor, Tensor]:
    """Spikes ``[T, ...]`` and last potentials; what the potentials were before each reset is written to ``charged``."""
    potential = start.detach().clone(memory_format=torch.contiguous_format)
    spikes = x.new_empty(x.shape)
    currents = x[:1] if x.stride(0) == 0 else x
    kept = x.new_empty((0, potential.numel())) if charged is None else charged.flatten(1)
    with threads_for(spikes):
        _fire(
            currents.detach().flatten(1).numpy(),
            potential.flatten().numpy(),
            spikes.flatten(1).numpy(),
            kept.numpy(),
            *kind,
        )
    return spikes, potential


def threads_for(x: Tensor) -> Any:
    """As many threads as torch may use, and no more than there is work for."""
    return threads(max(1, min(torch.get_num_threads(), x.numel() // GRAIN)))


@parallel_loop
def _fire(x, potential, spikes, charged, tau, decay_input, threshold, reset, soft):
    """Charge, fire and reset ``potential [n]`` in each step of ``x [T or 1, n]``; ``spikes [T, n]`` are written.

    So are the potentials before each reset to ``charged [T, n]``, unless it is empty. All numbers are float32, and
    each operation rounds as torch's does.
    """
    steps, size = spikes.shape
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min(size, (block + 1) * BLOCK)
        v = potential[start:stop]
        for step in range(steps):
            current, fired = x[min(step, len(x) - 1), start:stop], spikes[step, start:stop]
            for i in range(stop - start):
                if tau == 0:
                    v[i] = v[i] + current[i]
                elif decay_input:
                    v[i] = v[i] + (current[i] - (v[i] - reset)) / tau
                else:
                    v[i] = v[i] - (v[i] - reset) / tau + current[i]
            if len(charged):
                charged[step, start:stop] = v
            for i in range(stop - start):
                spike = ONE if v[i] >= threshold else ZERO
                v[i] = v[i] - spike * threshold if soft else spike * reset + (ONE - spike) * v[i]
                fired[i] = spike


@parallel_loop
def _unfire(of_spikes, charged, carry, of_currents, tau, decay_input, threshold, reset, soft, slope, half):
    """The gradient of ``x [T, n]``, written to ``of_currents``, from that of the spikes, ``of_spikes [T, n]``.

    ``carry [n]`` is the gradient of the last potentials, and becomes that of the first. ``half`` and ``slope`` are the
    arctangent's: its gradient is ``half / (1 + (slope (h - threshold))^2)``.
    """
    steps, size = charged.shape
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min(size, (block + 1) * BLOCK)
        c = carry[start:stop]
        for back in range(steps):
            step = steps - 1 - back
            h, spike_gradient = charged[step, start:stop], of_spikes[step, start:stop]
            gradient = of_currents[step, start:stop]
            for i in range(stop - start):
                z = (h[i] - threshold) * slope
                stays = ONE if soft or h[i] < threshold else ZERO
                g = spike_gradient[i] * (ONE / (ONE + z * z) * half) + c[i] * stays
                leaked = g / tau if tau != 0 else ZERO
                gradient[i] = leaked if tau != 0 and decay_input else g
                c[i] = g - leaked
