"""Counting by hand: walk over every (output, input entry, weight) triple of the convolution's definition."""

from itertools import product

import numpy as np


def count_convolution(x, weight, stride, padding, dilation, groups):
    """Pairs per row. x: [R, C, *size], weight: [C_out, C / groups, *kernel], padding: pairs per dimension."""
    rows, _, *size = x.shape
    out_channels, in_per_group, *kernel = weight.shape
    output = [
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    counts = np.zeros(rows, dtype=np.int64)
    for o, i in product(range(out_channels), range(in_per_group)):
        channel = o // (out_channels // groups) * in_per_group + i
        for tap, place in product(product(*map(range, kernel)), product(*map(range, output))):
            at = [q * s - p[0] + t * d for q, s, p, t, d in zip(place, stride, padding, tap, dilation, strict=True)]
            inside = all(0 <= a < n for a, n in zip(at, size, strict=True))
            if inside and weight[(o, i, *tap)] != 0:
                counts += x[(slice(None), channel, *at)] != 0
    return counts


def count_transposed(x, weight, stride, padding, dilation, groups, output_padding):
    """Pairs per row. x: [R, C, *size], weight: [C, C_out / groups, *kernel]."""
    rows, in_channels, *size = x.shape
    _, out_per_group, *kernel = weight.shape
    output = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + e
        for n, k, s, p, d, e in zip(size, kernel, stride, padding, dilation, output_padding, strict=True)
    ]
    counts = np.zeros(rows, dtype=np.int64)
    for i, o in product(range(in_channels), range(out_per_group)):
        for tap, place in product(product(*map(range, kernel)), product(*map(range, size))):
            to = [q * s - p + t * d for q, s, p, t, d in zip(place, stride, padding, tap, dilation, strict=True)]
            inside = all(0 <= a < n for a, n in zip(to, output, strict=True))
            if inside and weight[(i, o, *tap)] != 0:
                counts += x[(slice(None), i, *place)] != 0
    return counts


def count_linear(x, weight):
    """Pairs per row. x: [R, I], weight: [O, I]."""
    counts = np.zeros(len(x), dtype=np.int64)
    for o, i in product(*map(range, weight.shape)):
        if weight[o, i] != 0:
            counts += x[:, i] != 0
    return counts
