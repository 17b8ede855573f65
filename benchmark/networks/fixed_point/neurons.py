"""Integrate-and-fire neurons, leaky or not, whose potentials are whole numbers of a fixed width."""

# mypy: disallow-untyped-defs=False
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor

from benchmark.networks.fixed_point.scheme import FRACTION_BITS, FixedPoint, FixedPointError, Leak
from compressors.threads import parallel_loop, threads

BLOCK = 4096  # potentials that a thread keeps in its first cache over all time steps
GRAIN = 2**17  # entries that make a thread worth waking
KINDS = ("none", "shift", "factor")
SHIFT, FACTOR = 1, 2
FRACTION, LOW = np.int32(FRACTION_BITS), np.int32(2**FRACTION_BITS - 1)


class IntegerNeuron(MemoryModule):
    """A layer of neurons in whole numbers: ``[T, B, ...]`` currents to ``[T, B, ...]`` spikes, zeros and ones.

    In each step the potential leaks, takes the step's current, is brought back into its range, and fires where it
    reaches the threshold. A neuron that fired is set to 0 or, with a soft reset, loses the threshold. A resting
    potential other than 0 is left out by counting from there. Currents come as floats that hold whole numbers;
    potentials are int32.

    Args:
        threshold: 1 or more, in units of the potential.
        soft: whether the reset subtracts.
        leak: from step to step.
        scheme: the potential's width, and what happens beyond it.
        unit: what one unit of the potential stands for in the network that this one was made from.

    Attributes:
        overflows: how many potentials left their range since :meth:`forget_overflows`.
        updates: how many there were.
    """

    v: Any  # int32 [B, ...] between steps

    def __init__(self, threshold: int, soft: bool, leak: Leak, scheme: FixedPoint, unit: float) -> None:
        super().__init__()
        self.register_memory("v", 0)
        self.v_threshold, self.v_reset = threshold, None if soft else 0
        self.leak, self.scheme, self.unit = leak, scheme, unit
        self.step_mode = "m"
        self.forget_overflows()

    def forget_overflows(self) -> None:
        """Count from zero."""
        self.overflows = self.updates = 0

    def supported_step_mode(self) -> tuple[str]:
        """All steps at once."""
        return ("m",)

    def extra_repr(self) -> str:
        """For people."""
        return f"threshold={self.v_threshold}, reset={self.v_reset}, leak={self.leak}, {self.scheme}"

    def forward(self, x: Tensor) -> Tensor:
        """Spikes for currents ``x``, of the dtype float32.

        Raises:
            FixedPointError: a current is no whole number.
        """
        potential = self.v if isinstance(self.v, Tensor) else torch.zeros(x.shape[1:], dtype=torch.int32)
        self.v = potential.to(x.device).contiguous()
        spikes = x.new_empty(x.shape, dtype=torch.float32)
        currents = x[:1] if x.stride(0) == 0 else x  # an image that is shown again and again
        run = self._compiled if x.device.type == "cpu" else self._stepwise
        overflows, fractions = run(currents.detach(), spikes)
        if fractions:
            raise FixedPointError(f"{fractions:,} currents are no whole numbers: the arithmetic was not exact")
        self.overflows += overflows
        self.updates += x.numel()
        return spikes

    def _compiled(self, x: Tensor, spikes: Tensor) -> tuple[int, int]:
        scheme = self.scheme
        with threads(max(1, min(torch.get_num_threads(), spikes.numel() // GRAIN))):
            return _fire(
                x.contiguous().flatten(1).numpy(),
                self.v.flatten().numpy(),
                spikes.flatten(1).numpy(),
                *(KINDS.index(self.leak.kind), np.int32(self.leak.amount)),
                *(np.int32(self.v_threshold), self.v_reset is None),
                *(np.int32(scheme.lowest), np.int32(scheme.highest), scheme.overflow == "wrap"),
            )

    def _stepwise(self, x: Tensor, spikes: Tensor) -> tuple[int, int]:
        """The same in torch's operations, for other devices."""
        lowest, highest = self.scheme.lowest, self.scheme.highest
        v = self.v.long()
        outside = torch.zeros((), dtype=torch.int64, device=x.device)
        for step in range(len(spikes)):
            h = self._leaked(v) + x[min(step, len(x) - 1)].long()
            outside += ((h < lowest) | (h > highest)).sum()
            wraps = self.scheme.overflow == "wrap"
            h = ((h - lowest) & (highest - lowest)) + lowest if wraps else h.clamp(lowest, highest)
            fired = h >= self.v_threshold
            spikes[step] = fired
            v = h - fired * self.v_threshold if self.v_reset is None else h * ~fired
        self.v = v.int()
        return int(outside), int((x.frac() != 0).sum())

    def _leaked(self, v: Tensor) -> Tensor:
        if self.leak.kind == "factor":
            return v.sign() * ((v.abs() * self.leak.amount) >> FRACTION_BITS)
        return v if self.leak.kind == "none" else v - (v >> self.leak.amount)


@parallel_loop
def _fire(x, potential, spikes, kind, amount, threshold, soft, lowest, highest, wraps):
    """Leak, charge, fire and reset ``potential [n]`` (int32) in each step of ``x [T or 1, n]``; writes ``spikes``.

    Returns how many potentials left their range, and how many currents are no whole numbers.
    """
    steps, size = spikes.shape
    outside, fractions = 0, 0
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min(size, (block + 1) * BLOCK)
        v = potential[start:stop]
        for step in range(steps):
            _leak(v, kind, amount)
            fractions += _charge(v, x[min(step, len(x) - 1), start:stop])
            outside += _bring_back(v, lowest, highest, wraps)
            _fire_and_reset(v, spikes[step, start:stop], threshold, soft)
    return outside, fractions


@njit(error_model="numpy")
def _leak(v, kind, amount):
    """What is left of potentials; the factor's product would need more than 32 bits, and is taken in two parts."""
    if kind == SHIFT:
        for i in range(len(v)):
            v[i] -= v[i] >> amount
    elif kind == FACTOR:
        for i in range(len(v)):
            size = np.int32(abs(v[i]))
            high, low = size >> FRACTION, size & LOW
            left = np.int32(high * amount + (low * amount >> FRACTION))
            v[i] = left if v[i] >= 0 else -left


@njit(error_model="numpy")
def _charge(v, currents):
    """Add currents; how many of them are no whole numbers."""
    fractions = np.int32(0)
    for i in range(len(v)):
        current = np.int32(currents[i])
        fractions += np.int32(current != currents[i])
        v[i] += current
    return fractions


@njit(error_model="numpy")
def _bring_back(v, lowest, highest, wraps):
    """Bring potentials back into their range; how many were outside."""
    outside = np.int32(0)
    for i in range(len(v)):
        outside += np.int32(v[i] < lowest) | np.int32(v[i] > highest)
    if outside and wraps:
        for i in range(len(v)):
            v[i] = ((v[i] - lowest) & (highest - lowest)) + lowest
    elif outside:
        for i in range(len(v)):
            v[i] = min(max(v[i], lowest), highest)
    return outside


@njit(error_model="numpy")
def _fire_and_reset(v, spikes, threshold, soft):
    """Write who fires, and set those to 0 or take the threshold from them."""
    for i in range(len(v)):
        fires = np.int32(v[i] >= threshold)
        spikes[i] = fires
        v[i] = v[i] - fires * threshold if soft else v[i] * (np.int32(1) - fires)
