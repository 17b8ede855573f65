"""Synaptic operations: the exact number of (nonzero input entry, nonzero weight) pairs.

A pair is one operation, because the event reaches the synapse and the synapse is there. The sum over output
channels is taken over the weights once: `fan_out[c, position]` is the number of nonzero weights that an input
entry reaches, border, stride, dilation and groups included, so a count is a dot product <x != 0, fan_out>
and needs no second convolution.

All counts are integers. They are computed in float32 only where every partial sum stays below 2**24, where
float32 represents each integer, and by multiply-and-sum rather than by a matrix product, so that no reduced
precision mode (TF32, bfloat16) of a device can touch them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_EXACT_FLOAT32 = 2**24

_CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Geometry:
    """How a convolution slides: each entry has one value per spatial dimension.

    Args:
        stride: step of the kernel in positions.
        padding: zeros before and after the input, in positions.
        dilation: distance of neighbouring taps in positions.
        groups: number of channel groups.
        output_padding: positions added at the end of the output, transposed convolutions only.
        transposed: whether this is a transposed convolution.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    output_padding: tuple[int, ...] = ()
    transposed: bool = False

    def output_size(self, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """Return the spatial size of the output for a spatial input size and kernel size."""
        if self.transposed:
            return [
                (n - 1) * s - sum(p) + d * (k - 1) + 1 + o
                for n, k, s, p, d, o in zip(
                    size, kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True
                )
            ]
        return [
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        ]


def convolution_fan_out(present: Tensor, size: Sequence[int], geometry: Geometry) -> Tensor:
    """Number of weights that each input entry of a convolution reaches.

    Args:
        present: bool [C_out, C_in / groups, *kernel] ([C_in, C_out / groups, *kernel] if transposed), where
            a weight counts (is not zero).
        size: spatial size of the input.
        geometry: stride, padding, dilation, groups, transposed.

    Returns:
        float64 [C_in, *size], integers.
    """
    dimensions = len(size)
    output = geometry.output_size(size, present.shape[2:])
    everywhere = torch.ones(1, 1, *output, dtype=torch.float64)
    # On the CPU and in float64: other backends may pick a Winograd or FFT algorithm, which is not exact.
    if geometry.transposed:
        taps = present.cpu().sum(1, keepdim=True, dtype=torch.float64)  # [C_in, 1, *kernel]
        padding = [before for before, _ in geometry.padding]
        reached = _CONVOLUTION[dimensions](
            everywhere, taps, stride=geometry.stride, padding=padding, dilation=geometry.dilation
        )
        inside = tuple(slice(n) for n in size)
        return reached[0][(slice(None), *inside)]
    taps = present.cpu().unflatten(0, (geometry.groups, -1)).sum(1, dtype=torch.float64).flatten(0, 1)
    reached = _TRANSPOSED[dimensions](everywhere, taps[None], stride=geometry.stride, dilation=geometry.dilation)[
        0
    ]  # [C_in, *padded input]
    # Cut the zeros of the padding off, and add the rows at the far end that no kernel position touches.
    crop = [
        amount
        for n, m, (before, _) in zip(size, reached.shape[1:], geometry.padding, strict=True)
        for amount in (n + before - m, -before)
    ]
    return F.pad(reached, crop[::-1])


def linear_fan_out(present: Tensor) -> Tensor:
    """Number of weights that each input of a linear layer reaches: bool [out, in] -> float64 [in]."""
    return present.sum(0, dtype=torch.float64)


def count_pairs(indicator: Tensor, fan_out: Tensor) -> Tensor:
    """Sum the fan-out of the entries that are there, exactly.

    Args:
        indicator: float32 [rows, entries] of zeros and ones.
        fan_out: float32 [entries], integers >= 0.

    Returns:
        int64 [rows].
    """
    widest = int(fan_out.max()) if fan_out.numel() else 0
    span = max(1, _EXACT_FLOAT32 // max(1, widest))
    parts = zip(indicator.split(span, dim=1), fan_out.split(span), strict=True)
    counts = torch.zeros(len(indicator), dtype=torch.int64, device=indicator.device)
    for present, reach in parts:
        counts += (present * reach).sum(1).to(torch.int64)
    return counts


@dataclass(frozen=True)
class ValueRange:
    """What is known of the values a layer has received; decides between accumulate and multiply-accumulate.

    Args:
        smallest: smallest magnitude of a nonzero value (infinity before the first).
        largest: largest magnitude.
        negative: whether a value below zero was seen.
        integer: whether all values were integers.
    """

    smallest: float = float("inf")
    largest: float = 0.0
    negative: bool = False
    integer: bool = True

    def __or__(self, other: "ValueRange") -> "ValueRange":
        return ValueRange(
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            self.negative or other.negative,
            self.integer and other.integer,
        )

    @property
    def kind(self) -> str:
        """One of silent, spikes (0, 1), ternary (-1, 0, 1), graded (integers), scaled ({0, theta}), real."""
        if self.largest == 0.0:
            return "silent"
        if self.integer and self.largest == 1.0:
            return "ternary" if self.negative else "spikes"
        if self.smallest == self.largest:
            return "scaled"
        return "graded" if self.integer else "real"


def examine(values: Tensor) -> tuple[Tensor, ValueRange]:
    """Return where `values` are not zero (float32, same shape) and what values they take."""
    values = values if values.is_floating_point() else values.float()
    if torch.equal(values.sign(), values):  # only -1, 0 and 1: nothing more to compute, the usual case
        lowest, highest = (float(v) for v in torch.aminmax(values))
        indicator = (values.abs() if lowest < 0 else values).float()
        there = max(-lowest, highest)
        return indicator, ValueRange(1.0 if there else float("inf"), there, lowest < 0)
    magnitude = values.abs()
    present = values != 0
    smallest = float(magnitude.masked_fill(~present, float("inf")).min())
    return present.float(), ValueRange(
        smallest, float(magnitude.max()), bool((values < 0).any()), torch.equal(values.trunc(), values)
    )
