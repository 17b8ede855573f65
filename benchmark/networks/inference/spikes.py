"""Convolution of spikes on the CPU, without the zeros and to the bits of torch's own.

**The idea.** A neuron sends zeros and ones, most of them zeros, and a convolution of a tensor library multiplies by
every one of them. With spikes, a convolution is a sum of weights: of those whose input is 1. This module writes down
where the ones are (:func:`encode`), once for the whole activation, and for every output position adds up the weights
that belong to the ones in its window (:func:`convolve`), :data:`LANES` output channels at a time, each in its register.

**The same bits.** Floating-point sums depend on the order of their terms. On CPUs torch hands convolutions to oneDNN,
which goes through blocks of input channels, in each block through the kernel's rows, its columns, and the block's
channels; adding 0 times a weight changes no sum. Adding the remaining weights in that order therefore gives oneDNN's
sums to the last bit, so that no score, spike or count depends on whether this module was used. How long a block is, and
whether it has a sum of its own, depends on the processor (:data:`ORDERS`); :func:`torchs_order` finds it out once,
from an example whose sums have other bits in every other order. The innermost loop (:func:`_add_weights`) is written in
LLVM's instructions, because it is fast only if the sums of all lanes stay in registers, which numba does not promise.

**What it is worth.** Together with the compiled neurons and pooling of :mod:`benchmark.networks.inference.forward`,
inference is 1.6 times (VGG-16), 1.7 times (SEW-ResNet18) and 1.5 times (Spikformer) as fast as SpikingJelly's
multi-step run on two cores without a GPU. ``python -m benchmark.perf inference`` measures it on your
machine; with ``SNNBENCH_SPIKE_CONVOLUTION=0`` before it, without this module.

**When it steps aside.** :func:`conv2d` returns None, and the caller takes torch's convolution, where

- ``SNNBENCH_SPIKE_CONVOLUTION=0`` is set in the environment (:data:`SWITCH`);
- torch adds in none of the known orders, as on processors that are not x86, or with a later oneDNN that adds otherwise;
- the values are not all 0 or 1 (looked for in a sample first, then in all of them);
- more than a fifth of them are ones, output channels are few, or the activation is small: nothing would be gained;
- a weight is not finite: zero times infinity is no zero.

The caller steps aside before that for gradients, other devices and types, groups, dilation and other paddings.
"""

# mypy: disallow-untyped-defs=False
import os
from functools import cache
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from compressors.threads import parallel_loop

SWITCH = "SNNBENCH_SPIKE_CONVOLUTION"
"""Environment variable: ``0`` turns this module off."""

LANES = 64  # output channels that are added up in registers
PIXELS = 64  # whose sums a thread keeps in its second cache
DENSEST = 0.2  # share of entries that are spikes, up to which it pays to leave out the others
FEWEST = 48  # output channels, below which looking spikes up takes longer than multiplying by zeros
SMALLEST = 2**15  # entries of an activation that is worth a look; torch's own order is another one below 20,480
WIDEST = 2**11  # columns, whose places have 16 bits
CHUNK = 16  # places that are copied at a time
BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
COUNTS = BYTES.sum(1, dtype=np.uint64)
BITS = np.argsort(1 - BYTES, axis=1, kind="stable").astype(np.uint16)
"""How many bits of a byte are ones, and which: those come first."""
ONE = np.int32(0x3F800000)  # the bits of 1.0


class Order(NamedTuple):
    """How a convolution adds up: blocks of input channels, in each the kernel's rows, its columns, the channels.

    Args:
        channels: of a block.
        apart: whether each block has a sum of its own, which is added to that of the others.
    """

    channels: int
    apart: bool


ORDERS = (Order(16, apart=True), Order(8, apart=False))
"""Those of oneDNN's direct convolution with AVX-512 and with AVX2."""


class Spikes(NamedTuple):
    """Where an activation ``[N, C, H, W]`` is 1, in the order in which a convolution comes there.

    Args:
        places: ``column * channels + channel`` of every spike, columns counted from the padding's first and channels
            within their block: uint16 ``[N * blocks * H, ...]``.
        starts: at which of them each column begins: int32 ``[N * blocks * H, W + 2 * padding + 1]``.
        shape: of the activation.
        padding: in rows and columns.
        channels: of a block.
    """

    places: np.ndarray
    starts: np.ndarray
    shape: tuple[int, ...]
    padding: tuple[int, int]
    channels: int


@cache
def torchs_order() -> Order | None:
    """The order of torch's convolution on this processor; None if it is none of ours.

    An example tells, in which sums of another order have other bits.
    """
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(16, 48, 11, 13, generator=generator) < 0.3).float()
    weight, bias = torch.randn(80, 48, 3, 3, generator=generator), torch.randn(80, generator=generator)
    with torch.no_grad():
        expected = F.conv2d(x, weight, bias, padding=1)
        for known in ORDERS:
            spikes = encode(x, (1, 1), known.channels)
            if spikes is not None and torch.equal(convolve(spikes, weight, bias, (1, 1), known), expected):
                return known
    return None


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor | None:
    """Convolution of ``x [N, C, H, W]`` with ``weight [O, C, *kernel]``, both float32 on the CPU, without gradients.

    None where this module steps aside: switched off, nothing to gain, values that are no spikes, an unknown order.
    """
    if os.environ.get(SWITCH) == "0" or not _fit(x, weight) or not _few_spikes(x, weight):
        return None
    known = torchs_order()
    spikes = None if known is None else encode(x, padding, known.channels)
    return None if known is None or spikes is None else convolve(spikes, weight, bias, stride, known)


def _fit(x: Tensor, weight: Tensor) -> bool:
    """Whether this is a convolution that may gain, of a size for which torch has one order."""
    if x.ndim != 4 or x.shape[1] != weight.shape[1] or not x.is_contiguous():
        return False
    if x.numel() < SMALLEST or len(weight) < FEWEST:
        return False
    (height, width), kernel = x.shape[2:], weight.shape[2:]
    return kernel[0] <= height and kernel[1] <= width <= WIDEST


def _few_spikes(x: Tensor, weight: Tensor) -> bool:
    """Whether a sample of the batch looks like spikes, few enough for that many output channels; zeros stay zeros."""
    sample, outputs = x[:: max(1, len(x) // 4)], len(weight)
    events, lanes = float(sample.sum()), -(-outputs // LANES) * LANES
    if not 0 <= events * lanes <= DENSEST * sample.numel() * outputs:
        return False
    looks_like_spikes = float((sample * sample).sum()) == events
    return looks_like_spikes and isfinite(weight.sum())  # a zero times infinity is none


def encode(x: Tensor, padding: tuple[int, int], channels: int) -> Spikes | None:
    """The spikes of ``x [N, C, H, W]`` (contiguous float32), in blocks of so many channels; None if it holds others."""
    images, inputs, height, width = x.shape
    lines, columns = images * -(-inputs // channels) * height, width + 2 * padding[1]
    places = np.empty((lines, columns * channels + CHUNK), dtype=np.uint16)
    starts = np.empty((lines, columns + 1), dtype=np.int32)
    only = _encode(x.detach().numpy().view(np.int32), channels, padding[1], places, starts, BITS, COUNTS)
    return Spikes(places, starts, tuple(x.shape), padding, channels) if only else None


def convolve(spikes: Spikes, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], order: Order) -> Tensor:
    """Sums ``[N, O, H', W']`` of ``weight [O, C, *kernel]`` over the spikes in each window, and ``bias [O]``."""
    images, inputs, *size = spikes.shape
    outputs, _, *kernel = weight.shape
    sizes = [(size[i] + 2 * spikes.padding[i] - kernel[i]) // stride[i] + 1 for i in range(2)]
    padded = -(-outputs // LANES) * LANES
    packed = np.zeros((-(-inputs // order.channels), kernel[0] * kernel[1] * order.channels, padded), np.float32)
    _pack(weight.detach().contiguous().flatten(2).numpy(), order.channels, packed)
    start = np.zeros(padded, np.float32)
    if bias is not None:
        start[:outputs] = bias.detach().numpy()
    sums = torch.empty(images, outputs, *sizes)
    geometry = (size[0], spikes.padding[0], *stride, *kernel)
    _add_up(spikes.places, spikes.starts, geometry, packed, start, order.channels, order.apart, sums.numpy())
    return sums


@parallel_loop
def _encode(x, channels, padding, places, starts, bits, counts):
    """Write places and starts for ``x [N, C, H, W]``, the bits of float32; whether all are those of 0 or 1."""
    images, inputs, height, width = x.shape
    blocks = len(places) // (images * height)
    strange = 0
    for line in prange(len(places)):
        image, block, row = line // (blocks * height), line // height % blocks, line % height
        masks = np.zeros(width, dtype=np.int32)
        odd = np.int32(0)
        for channel in range(block * channels, min(inputs, (block + 1) * channels)):
            for column in range(width):
                entry = x[image, channel, row, column]
                spike = entry >> 23 & 1  # of the exponent: 127 for 1, 0 for 0
                odd |= entry ^ (-spike & ONE)
                masks[column] |= spike << (channel - block * channels)
        strange += odd != 0
        end = np.uint64(0)
        starts[line, : padding + 1] = 0
        for column in range(width):
            for first in range(0, channels, 8):
                byte = masks[column] >> first & 255
                base = np.uint16((column + padding) * channels + first)
                for i in range(8):
                    places[line, end + np.uint64(i)] = base + bits[byte, i]
                end += counts[byte]
            starts[line, padding + column + 1] = end
        starts[line, padding + width + 1 :] = end
    return strange == 0


@parallel_loop
def _pack(weight, channels, packed):
    """Write ``weight [O, C, K]`` in the order in which it is added: ``packed [blocks, K * channels, O or more]``."""
    outputs, inputs, kernel = weight.shape
    for block in prange(len(packed)):
        for first in range(0, outputs, 16):  # what is written stays in the cache until it is a line
            for channel in range(block * channels, min(inputs, (block + 1) * channels)):
                for k in range(kernel):
                    for output in range(first, min(outputs, first + 16)):
                        packed[block, k * channels + channel - block * channels, output] = weight[output, channel, k]


@parallel_loop
def _add_up(places, starts, geometry, packed, start, channels, apart, sums):
    """Write ``sums [N, O, H', W']``. ``geometry``: input height, padding of rows, strides, kernel."""
    images, _, height, width = sums.shape
    blocks, taps, padded = packed.shape
    rows = max(1, PIXELS // width)
    for part in prange(-(-images * height // rows)):
        first, last = part * rows, min(images * height, (part + 1) * rows)
        totals = np.empty((rows * width, padded), dtype=np.float32)
        totals[:] = start
        offsets = np.empty(taps + CHUNK, dtype=np.uint32)
        for block in range(blocks):
            weights = packed.ctypes.data + block * taps * padded * 4
            for row in range(first, last):
                line = (row // height * blocks + block) * geometry[0]
                for column in range(width):
                    count = _look_up(places, starts, geometry, line, row % height, column, channels, padded, offsets)
                    total = totals.ctypes.data + ((row - first) * width + column) * padded * 4
                    for lane in range(0, padded * 4, LANES * 4):
                        _add_weights(weights + lane, offsets.ctypes.data, count, total + lane, apart)  # type: ignore[call-arg]
        for row in range(first, last):
            _turn(totals[(row - first) * width :], sums[row // height, :, row % height])


@njit(error_model="numpy")
def _turn(totals, sums):
    """Write the transposed ``totals [W' or more, O or more]`` to ``sums [O, W']``."""
    outputs, width = sums.shape
    for output in range(outputs):
        for column in range(width):
            sums[output, column] = totals[column, output]


@njit(error_model="numpy")
def _look_up(places, starts, geometry, line, row, column, channels, padded, offsets):
    """Write where the weights of a window's spikes lie, in bytes from the first of the block; how many they are."""
    height, padding, row_stride, column_stride, kernel_rows, kernel_columns = geometry
    top, left = row * row_stride - padding, column * column_stride
    count = np.uint64(0)
    for i in range(max(0, -top), min(kernel_rows, height - top)):
        source = line + top + i
        at, end = np.uint64(starts[source, left]), np.uint64(starts[source, left + kernel_columns])
        base = np.int32((i * kernel_columns - left) * channels)
        while at < end:
            for k in range(CHUNK):
                tap = base + np.int32(places[source, at + np.uint64(k)])
                offsets[count + np.uint64(k)] = np.uint32(tap * np.int32(padded * 4))
            count, at = count + np.uint64(CHUNK), at + np.uint64(CHUNK)
        count -= at - end
    return np.int64(count)


@intrinsic
def _add_weights(typing, first, offsets, count, total, apart):
    """Add up ``LANES`` float32 at each of the addresses ``first + offsets[i]``, one after the other, in registers.

    The sum begins with the ``total``, or with nothing and is added to it in the end where it is to be kept apart.
    All but ``count`` and ``apart`` are addresses.
    """

    def build(context, builder, signature, arguments):
        first, offsets, count, total, apart = arguments
        lanes = ir.VectorType(ir.FloatType(), LANES)
        none = ir.Constant(lanes, None)
        offsets = builder.inttoptr(offsets, ir.IntType(32).as_pointer())
        total = builder.inttoptr(total, lanes.as_pointer())
        before = builder.load(total, align=4)
        held = cgutils.alloca_once_value(builder, builder.select(apart, none, before))
        with cgutils.for_range(builder, count) as loop:
            offset = builder.zext(builder.load(builder.gep(offsets, [loop.index])), first.type)
            row = builder.inttoptr(builder.add(first, offset), lanes.as_pointer())
            builder.store(builder.fadd(builder.load(held), builder.load(row, align=4)), held)
        added = builder.load(held)
        builder.store(builder.select(apart, builder.fadd(before, added), added), total, align=4)
        return context.get_dummy_value()

    address = types.intp
    return types.void(address, address, types.intp, address, types.boolean), build
