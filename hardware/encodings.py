"""Layers written in each memory format, bit by bit, and read back: what `memory.layouts` claims, done.

Weights are unsigned codes of `bits` bits; code 0 is the weight zero. The shape, the width and the number of
kept weights stand beside the bits, as a network's configuration holds them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.memory import BLOCK, RUN_BITS, in_blocks, in_groups, index_bits

Codes = NDArray[np.int64]
Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Encoded:
    """A layer's weights as bits.

    Args:
        format: name of the format, as in `memory.layouts`.
        shape: shape of the weight.
        bits: bits of one code.
        kept: number of nonzero codes.
        length: number of bits of the payload that count.
        payload: the bits, most significant first, filled up to whole bytes.
    """

    format: str
    shape: tuple[int, ...]
    bits: int
    kept: int
    length: int
    payload: bytes


def encode(codes: Codes, bits: int, form: str) -> Encoded:
    """Write codes [rows, channels, *taps] in a format.

    Raises:
        ValueError: if a code does not fit `bits` bits, or the format is unknown or cannot hold these zeros.
    """
    if codes.size and not (codes.min() >= 0 and int(codes.max()) < 2**bits):
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits")
    matrix = codes.reshape(len(codes), -1)
    if ":" in form:
        stream = _write_groups(matrix, bits, *map(int, form.split(":")))
    elif form.startswith("csr"):
        stream = _write_csr(matrix, bits, _column_bits(form, matrix.shape[1]))
    elif form in _WRITERS:
        stream = _WRITERS[form](codes, bits)
    else:
        raise ValueError(f"unknown memory format {form!r}: the formats are csr, csr8, csr16, p:M and "
                         f"{', '.join(_WRITERS)}")  # fmt: skip
    payload = np.packbits(stream).tobytes()
    return Encoded(form, codes.shape, bits, int(np.count_nonzero(codes)), len(stream), payload)


def decode(encoded: Encoded) -> Codes:
    """Read codes back: int64 of `encoded.shape`."""
    stream = np.unpackbits(np.frombuffer(encoded.payload, np.uint8), count=encoded.length).astype(bool)
    shape = (encoded.shape[0], int(np.prod(encoded.shape[1:])))
    if ":" in encoded.format:
        matrix = _read_groups(stream, shape, encoded.bits, *map(int, encoded.format.split(":")))
    elif encoded.format.startswith("csr"):
        width = _column_bits(encoded.format, shape[1])
        matrix = _read_csr(stream, shape, encoded.bits, encoded.kept, width)
    else:
        matrix = _READERS[encoded.format](stream, encoded)
    return matrix.reshape(encoded.shape)


def _pack(values: NDArray[np.generic], width: int) -> Bits:
    """Integers as bits, most significant first: [n] -> bool [n * width]."""
    places = np.arange(width - 1, -1, -1)
    return ((np.asarray(values, np.int64).reshape(-1, 1) >> places) & 1).astype(bool).ravel()


def _unpack(stream: Bits, width: int) -> Codes:
    """Bits as integers: bool [n * width] -> [n]; width 0 says nothing but zeros."""
    weights = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
    return stream.reshape(-1, width) @ weights


def _take(stream: Bits, *lengths: int) -> list[Bits]:
    """Cut a stream into parts of these lengths and the rest."""
    return np.split(stream, np.cumsum(lengths))


def _write_dense(codes: Codes, bits: int) -> Bits:
    return _pack(codes, bits)


def _read_dense(stream: Bits, encoded: Encoded) -> Codes:
    return _unpack(stream, encoded.bits)


def _write_bitmask(codes: Codes, bits: int) -> Bits:
    present = codes.ravel() != 0
    return np.concatenate([present, _pack(codes.ravel()[present], bits)])


def _read_bitmask(stream: Bits, encoded: Encoded) -> Codes:
    present, values = _take(stream, int(np.prod(encoded.shape)))
    codes = np.zeros(present.size, np.int64)
    codes[present] = _unpack(values, encoded.bits)
    return codes


def _column_bits(form: str, columns: int) -> int:
    width = int(form[3:]) if form != "csr" else index_bits(columns)
    if columns > 2**width:
        raise ValueError(f"{form} cannot number {columns} columns: use a wider index")
    return width


def _write_csr(matrix: Codes, bits: int, column_bits: int) -> Bits:
    rows, columns = np.nonzero(matrix)
    pointers = np.searchsorted(rows, np.arange(len(matrix) + 1))
    values = matrix[rows, columns]
    return np.concatenate(
        [_pack(pointers, index_bits(len(rows) + 1)), _pack(columns, column_bits), _pack(values, bits)]
    )


def _read_csr(stream: Bits, shape: tuple[int, int], bits: int, kept: int, column_bits: int) -> Codes:
    width = index_bits(kept + 1)
    pointer_bits, place_bits, values = _take(stream, (shape[0] + 1) * width, kept * column_bits)
    matrix = np.zeros(shape, np.int64)
    if kept:
        columns = _unpack(place_bits, column_bits) if column_bits else np.zeros(kept, np.int64)
        rows = np.repeat(np.arange(shape[0]), np.diff(_unpack(pointer_bits, width)))
        matrix[rows, columns] = _unpack(values, bits)
    return matrix


def _write_relative(codes: Codes, bits: int) -> Bits:
    flat = codes.ravel()
    kept = np.flatnonzero(flat)
    zeros = np.diff(kept, prepend=-1) - 1
    fillers = zeros >> RUN_BITS
    ends = np.cumsum(fillers + 1) - 1  # the slot of each kept weight; the slots between are fillers
    longest = 2**RUN_BITS - 1
    runs = np.full(len(kept) + int(fillers.sum()), longest)
    values = np.zeros(len(runs), np.int64)
    runs[ends], values[ends] = zeros & longest, flat[kept]
    return np.concatenate([_pack(runs, RUN_BITS), _pack(values, bits)])


def _read_relative(stream: Bits, encoded: Encoded) -> Codes:
    slots = encoded.length // (encoded.bits + RUN_BITS)
    run_bits, values = _take(stream, slots * RUN_BITS)
    codes = np.zeros(int(np.prod(encoded.shape)), np.int64)
    places = np.cumsum(_unpack(run_bits, RUN_BITS) + 1) - 1
    codes[places] = _unpack(values, encoded.bits)
    return codes


def _write_groups(matrix: Codes, bits: int, peak: int, size: int) -> Bits:
    groups = in_groups(matrix, size)
    if np.count_nonzero(groups, axis=-1).max() > peak:
        raise ValueError(f"a group of {size} weights keeps more than {peak}: the layer is not {peak}:{size}")
    # Kept weights first, in their order; a free slot holds the zero of a place that is not kept.
    places = np.argsort(groups == 0, axis=-1, kind="stable")[..., :peak]
    values = np.take_along_axis(groups, places, axis=-1)
    return np.concatenate([_pack(places, index_bits(size)), _pack(values, bits)])


def _read_groups(stream: Bits, shape: tuple[int, int], bits: int, peak: int, size: int) -> Codes:
    slots = (shape[0], -(-shape[1] // size), peak)
    place_bits, values = _take(stream, int(np.prod(slots)) * index_bits(size))
    groups = np.zeros((*slots[:2], size), np.int64)
    places = _unpack(place_bits, index_bits(size)).reshape(slots)
    np.put_along_axis(groups, places, _unpack(values, bits).reshape(slots), axis=-1)
    return groups.reshape(shape[0], -1)[:, : shape[1]]


def _write_blocks(codes: Codes, bits: int) -> Bits:
    blocks = in_blocks(codes.reshape(len(codes), -1)).swapaxes(1, 2)
    present = blocks.any(axis=(2, 3))
    return np.concatenate([present.ravel(), _pack(blocks[present], bits)])


def _read_blocks(stream: Bits, encoded: Encoded) -> Codes:
    rows, columns = encoded.shape[0], int(np.prod(encoded.shape[1:]))
    grid = (-(-rows // BLOCK), -(-columns // BLOCK))
    present, values = _take(stream, grid[0] * grid[1])
    blocks = np.zeros((*grid, BLOCK, BLOCK), np.int64)
    blocks[present.reshape(grid)] = _unpack(values, encoded.bits).reshape(-1, BLOCK, BLOCK)
    return blocks.swapaxes(1, 2).reshape(grid[0] * BLOCK, -1)[:rows, :columns]


def _write_narrowed(codes: Codes, bits: int) -> Bits:
    rows = codes.any(axis=tuple(range(1, codes.ndim)))
    channels = codes.any(axis=(0, *range(2, codes.ndim)))
    return np.concatenate([rows, channels, _pack(codes[rows][:, channels], bits)])


def _read_narrowed(stream: Bits, encoded: Encoded) -> Codes:
    rows, channels, values = _take(stream, *encoded.shape[:2])
    codes = np.zeros(encoded.shape, np.int64)
    kept = codes[rows][:, channels].shape
    codes[np.ix_(rows, channels)] = _unpack(values, encoded.bits).reshape(kept)
    return codes


_WRITERS = {
    "dense": _write_dense,
    "bitmask": _write_bitmask,
    "relative": _write_relative,
    "block4x4": _write_blocks,
    "narrowed": _write_narrowed,
}
_READERS = {
    "dense": _read_dense,
    "bitmask": _read_bitmask,
    "relative": _read_relative,
    "block4x4": _read_blocks,
    "narrowed": _read_narrowed,
}
