"""Fan-out: how many weights an input entry reaches, borders, stride, dilation and groups included.

A count of synaptic operations is then a dot product <x != 0, fan_out>: the sum over output channels is taken
over the weights once, and no second convolution is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

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

    def output_size(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of the output for a spatial input size and kernel size."""
        if self.transposed:
            return tuple(
                (n - 1) * s - sum(p) + d * (k - 1) + 1 + o
                for n, k, s, p, d, o in zip(
                    size, kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True
                )
            )
        return tuple(
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        )


def convolution_fan_out(present: Tensor, size: Sequence[int], geometry: Geometry) -> Tensor:
    """Number of weights that each input entry of a convolution reaches.

    Args:
        present: bool [C_out, C_in / groups, *kernel] ([C_in, C_out / groups, *kernel] if transposed), where
            a weight counts (is not zero).
        size: spatial size of the input.
        geometry: stride, padding, dilation, groups, transposed.

    Returns:
        float64 [C_in, *size] on the CPU, integers.
    """
    dimensions = len(size)
    # On the CPU and in float64: other backends may pick a Winograd or FFT algorithm, which is not exact.
    everywhere = torch.ones(1, 1, *geometry.output_size(size, present.shape[2:]), dtype=torch.float64)
    if geometry.transposed:
        taps = present.cpu().sum(1, keepdim=True, dtype=torch.float64)  # [C_in, 1, *kernel]
        padding = [before for before, _ in geometry.padding]
        reached = _CONVOLUTION[dimensions](
            everywhere, taps, stride=geometry.stride, padding=padding, dilation=geometry.dilation
        )
        return reached[0][(slice(None), *(slice(n) for n in size))]
    taps = present.cpu().unflatten(0, (geometry.groups, -1)).sum(1, dtype=torch.float64).flatten(0, 1)
    reached = _TRANSPOSED[dimensions](everywhere, taps[None], stride=geometry.stride, dilation=geometry.dilation)[
        0
    ]  # [C_in, *padded input]
    # Cut the padding off, and add the positions at the far end that no kernel position touches.
    crop = [
        amount
        for n, m, (before, _) in zip(size, reached.shape[1:], geometry.padding, strict=True)
        for amount in (n + before - m, -before)
    ]
    return F.pad(reached, crop[::-1])


def linear_fan_out(present: Tensor) -> Tensor:
    """Number of weights that each input of a linear layer reaches: bool [out, in] -> float64 [in]."""
    return present.cpu().sum(0, dtype=torch.float64)


def window_fan_out(windows: Sequence[Tensor]) -> Tensor:
    """Number of pooling windows that cover each position.

    Args:
        windows: for each spatial dimension bool [outputs, inputs], which positions a window covers.

    Returns:
        float64 [*size].
    """
    covers = [window.sum(0, dtype=torch.float64) for window in windows]
    return reduce(lambda product, cover: product[..., None] * cover, covers)


def sliding_windows(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Which positions each of `outputs` sliding windows covers: bool [outputs, size]."""
    starts = torch.arange(outputs)[:, None, None] * stride - padding
    taps = torch.arange(kernel)[None, :, None] * dilation
    return (starts + taps == torch.arange(size)).any(1)


def adaptive_windows(size: int, outputs: int) -> Tensor:
    """Which positions each window of an adaptive pooling covers: bool [outputs, size]."""
    window, position = torch.arange(outputs)[:, None], torch.arange(size)
    return (window * size // outputs <= position) & (position < -(-(window + 1) * size // outputs))
