"""A network in whole numbers as NumPy loops over them: as plain as can be, and as slow."""

import numpy as np

from benchmark.networks.fixed_point.scheme import FixedPoint, Leak


def linear(x, weight, bias=None):
    """``x [N, in]`` times ``weight [out, in]``, int64."""
    total = x @ weight.T
    return total if bias is None else total + bias


def convolution(x, weight, bias, stride, padding, dilation, groups):
    """``x [N, C, H, W]`` with ``weight [O, C / groups, h, w]``, int64."""
    (rows, columns), images = weight.shape[2:], len(x)
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    height = (x.shape[2] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    width = (x.shape[3] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    outputs, inputs = len(weight) // groups, weight.shape[1]
    total = np.zeros((images, len(weight), height, width), dtype=np.int64)
    for o in range(len(weight)):
        first = o // outputs * inputs
        for i, j in np.ndindex(height, width):
            window = x[
                :,
                first : first + inputs,
                i * stride[0] : i * stride[0] + dilation[0] * (rows - 1) + 1 : dilation[0],
                j * stride[1] : j * stride[1] + dilation[1] * (columns - 1) + 1 : dilation[1],
            ]
            total[:, o, i, j] = (window * weight[o]).sum((1, 2, 3))
    return total if bias is None else total + bias[:, None, None]


def pool(x, size, how):
    """Windows of ``x [N, C, H, W]`` side by side, put together by ``np.sum`` or ``np.max``."""
    height, width = x.shape[2] // size, x.shape[3] // size
    windows = x[:, :, : height * size, : width * size].reshape(*x.shape[:2], height, size, width, size)
    return how(windows, axis=(3, 5))


def neuron(x, threshold: int, soft: bool, leak: Leak, scheme: FixedPoint):
    """Spikes for currents ``x [T, ...]``, int64, one potential at a time."""
    spikes = np.zeros_like(x)
    for place in np.ndindex(x.shape[1:]):
        v = 0
        for step in range(len(x)):
            h = _inside(_left(v, leak) + int(x[(step, *place)]), scheme)
            spikes[(step, *place)] = fires = h >= threshold
            v = (h - threshold if soft else 0) if fires else h
    return spikes


def _left(v: int, leak: Leak) -> int:
    if leak.kind == "shift":
        return v - v // 2**leak.amount
    if leak.kind == "factor":
        size = abs(v) * leak.amount // 4096
        return size if v >= 0 else -size
    return v


def _inside(h: int, scheme: FixedPoint) -> int:
    values = 2**scheme.potential_bits
    if scheme.overflow == "wrap":
        return (h + values // 2) % values - values // 2
    return max(-values // 2, min(values // 2 - 1, h))
