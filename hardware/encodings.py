"""Layers written in each memory format of :mod:`hardware.memory`, and read back: what its formulas claim, done.

Weights are unsigned codes of some bits each. A format keeps the codes of some positions of the weight, its slots, in
an order of its own, and an index of unsigned integers that says which positions these are:

| format   | slots, in order                         | index                                                |
|----------|-----------------------------------------|------------------------------------------------------|
| dense    | all weights, row-major                  | none                                                 |
| bitmask  | kept weights, row-major                 | `bitmask`: 1 bit a weight                            |
| csr      | kept weights, row-major                 | `row_offsets` [R + 1], `col_indices`: those of scipy |
| relative | kept weights and fillers, row-major     | `runs`: 4 bits a slot, the zeros before it           |
| p:M      | p places of every M consecutive weights | `places`: the place in its group of each slot        |
| block4x4 | 16 weights of a kept block, row-major   | `bitmask`: 1 bit a block                             |
| narrowed | kept rows x kept channels, row-major    | `row_bitmask`, `channel_bitmask`                     |

Slots that hold no weight hold code 0, which then stands for the weight zero: fillers bridge 16 zeros, a group may keep
fewer than p, and the last groups and blocks may reach over the end of the matrix.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hardware.memory import BLOCK, GROUPS, RUN_BITS, in_blocks, in_groups, index_bits

Codes = NDArray[np.uint32]
Integers = NDArray[np.integer]
Present = NDArray[np.bool_]
Shape = tuple[int, ...]
Places = NDArray[np.int64] | slice  # of the slots in the flattened weight; one past its end: outside of the matrix

_CHUNK = 2**16  # a multiple of 8: whole bytes at any width


class EncodingError(ValueError):
    """Codes that a format cannot hold, or an index that no layer of this shape has."""


@dataclass(frozen=True)
class Field:
    """A part of an index: ``entries`` unsigned integers of ``width`` bits each."""

    entries: int
    width: int

    @property
    def bits(self) -> int:
        """Bits of all entries."""
        return self.entries * self.width


@dataclass(frozen=True)
class Encoded:
    """A layer's weights in one format.

    Args:
        format: its name, as in :func:`hardware.memory.layouts`.
        shape: shape of the weight.
        bits: bits of one code.
        values: the codes of the slots.
        index: the parts of the index by name.
    """

    format: str
    shape: Shape
    bits: int
    values: Codes
    index: Mapping[str, Integers] = field(default_factory=dict)

    @property
    def index_bits(self) -> int:
        """Bits of the index."""
        fields = index_fields(self.format, self.shape, len(self.values))
        return sum(part.bits for part in fields.values())

    @property
    def total_bits(self) -> int:
        """Bits of codes and index."""
        return len(self.values) * self.bits + self.index_bits


def encode(codes: Integers, bits: int, form: str, present: Present | None = None) -> Encoded:
    """Write codes [rows, channels, *taps] in a format.

    Args:
        codes: from 0 to 2^bits - 1.
        bits: 1 to 32.
        form: name of the format.
        present: which weights are kept, where code 0 stands for a value as well; by default the codes that are not 0.

    Raises:
        EncodingError: a code does not fit, the format is unknown, or it cannot hold these zeros.
    """
    if codes.size and not (codes.min() >= 0 and int(codes.max()) < 2**bits):
        raise EncodingError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits")
    layout = _layout(form)
    index = layout.index(codes != 0 if present is None else present)
    values = np.append(codes.ravel(), 0).astype(np.uint32)[layout.places(codes.shape, index)]
    if present is not None and len(values) != np.count_nonzero(present):
        raise EncodingError(f"{form} stores zeros, for which these codes have no place")
    return Encoded(form, codes.shape, bits, values, index)


def decode(encoded: Encoded) -> tuple[Codes, Present]:
    """Read codes back, with the positions that have a slot, both of ``encoded.shape``; code 0 elsewhere.

    Raises:
        EncodingError: the index is not one of this format and shape.
    """
    for name, part in index_fields(encoded.format, encoded.shape, len(encoded.values)).items():
        if len(encoded.index[name]) != part.entries:
            raise EncodingError(f"{len(encoded.index[name])} entries of {name} instead of {part.entries}")
    places = _layout(encoded.format).places(encoded.shape, encoded.index)
    weights = prod(encoded.shape)
    slots = weights if isinstance(places, slice) else len(places)
    if slots != len(encoded.values):
        raise EncodingError(f"{len(encoded.values)} values, and places for {slots}")
    codes, stored = np.zeros(weights + 1, np.uint32), np.zeros(weights + 1, bool)
    codes[places], stored[places] = encoded.values, True
    return codes[:-1].reshape(encoded.shape), stored[:-1].reshape(encoded.shape)


def index_fields(form: str, shape: Shape, slots: int) -> dict[str, Field]:
    """The parts of the index of a layer [rows, channels, *taps] with so many slots, by name.

    Raises:
        EncodingError: the format is unknown, or cannot number so many columns.
    """
    return _layout(form).fields(shape, slots)


def pack(values: Integers, width: int) -> NDArray[np.uint8]:
    """Unsigned integers in ``width`` bits each, most significant bit first, the last byte filled up with zeros."""
    if width % 8 == 0:
        return values.astype(">u4").reshape(-1, 1).view(np.uint8)[:, 4 - width // 8 :].ravel()
    parts = [_bits(values[start : start + _CHUNK], width) for start in range(0, len(values), _CHUNK)]
    return np.concatenate([np.packbits(part) for part in parts] or [np.zeros(0, np.uint8)])


def unpack(data: NDArray[np.uint8], entries: int, width: int) -> Codes:
    """The integers that :func:`pack` wrote: uint32 [entries].

    Raises:
        EncodingError: there are more or fewer bytes than so many entries take.
    """
    size = -(-entries * width // 8)
    if data.size != size:
        raise EncodingError(f"{data.size} bytes instead of the {size} of {entries} entries of {width} bits")
    if width % 8 == 0:
        return _integers(data.reshape(entries, width // 8))
    parts = []
    for start in range(0, entries, _CHUNK):
        count = min(_CHUNK, entries - start)
        bits = np.unpackbits(data[start * width // 8 :], count=count * width).reshape(count, width)
        parts.append(_integers(np.packbits(np.pad(bits, ((0, 0), (-width % 8, 0))), axis=1)))
    return np.concatenate(parts or [np.zeros(0, np.uint32)])


def _integers(data: NDArray[np.uint8]) -> Codes:
    """Big-endian bytes as integers: [n, 0 to 4] -> [n]."""
    padded = np.pad(data, ((0, 0), (4 - data.shape[1], 0)))
    return padded.view(">u4").ravel().astype(np.uint32)


def _bits(values: Integers, width: int) -> NDArray[np.uint8]:
    """Bits of integers: [n] -> uint8 [n, width], zeros and ones."""
    return np.unpackbits(values.astype(">u4").reshape(-1, 1).view(np.uint8), axis=1)[:, 32 - width :]


class _Layout(Protocol):
    """One format: its index, and where its slots are."""

    def index(self, present: Present) -> dict[str, Integers]:
        """The index of a layer with these weights kept."""

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        """What the index consists of."""

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        """Where the slots are in the flattened weight: raises EncodingError if the index is not one of this shape."""


def _layout(form: str) -> _Layout:
    if form in _PLAIN:
        return _PLAIN[form]
    if group := re.fullmatch(r"(\d{1,2}):(\d{1,2})", form):
        peak, size = int(group[1]), int(group[2])
        if size in GROUPS and peak <= size:
            return _Groups(peak, size)
    raise EncodingError(f"unknown memory format {form!r}: the formats are {', '.join(_PLAIN)} and p:M of {GROUPS}")


def _matrix(shape: Shape) -> tuple[int, int]:
    """Rows and columns."""
    return shape[0], prod(shape[1:])


class _Dense:
    def index(self, present: Present) -> dict[str, Integers]:
        return {}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        return {}

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        return slice(0, prod(shape))


class _Bitmask:
    def index(self, present: Present) -> dict[str, Integers]:
        return {"bitmask": present.ravel().astype(np.uint8)}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        return {"bitmask": Field(prod(shape), 1)}

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        return np.flatnonzero(index["bitmask"])


@dataclass(frozen=True)
class _CSR:
    """Column indices of ``width`` bits; None: as few as tell all columns apart."""

    width: int | None = None

    def index(self, present: Present) -> dict[str, Integers]:
        matrix = present.reshape(len(present), -1)
        self._column_bits(matrix.shape[1])
        rows, columns = np.nonzero(matrix)
        return {"row_offsets": np.searchsorted(rows, np.arange(len(matrix) + 1)), "col_indices": columns}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        rows, columns = _matrix(shape)
        return {
            "row_offsets": Field(rows + 1, index_bits(slots + 1)),
            "col_indices": Field(slots, self._column_bits(columns)),
        }

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        rows, columns = _matrix(shape)
        offsets, column = index["row_offsets"].astype(np.int64), index["col_indices"].astype(np.int64)
        counts = np.diff(offsets)
        if offsets[0] != 0 or offsets[-1] != len(column) or (counts < 0).any():
            raise EncodingError(f"the row offsets do not rise from 0 to {len(column)}")
        if (column >= columns).any():
            raise EncodingError(f"column {column.max()} of {columns}")
        places = np.repeat(np.arange(rows), counts) * columns + column
        if (np.diff(places) <= 0).any():
            raise EncodingError("the columns of a row do not rise")
        return places

    def _column_bits(self, columns: int) -> int:
        width = index_bits(columns) if self.width is None else self.width
        if columns > 2**width:
            raise EncodingError(f"csr{width} cannot number {columns} columns: use a wider index")
        return width


class _Relative:
    def index(self, present: Present) -> dict[str, Integers]:
        zeros = np.diff(np.flatnonzero(present), prepend=-1) - 1
        fillers = zeros >> RUN_BITS
        runs = np.full(len(zeros) + int(fillers.sum()), 2**RUN_BITS - 1)
        runs[np.cumsum(fillers + 1) - 1] = zeros % 2**RUN_BITS
        return {"runs": runs}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        return {"runs": Field(slots, RUN_BITS)}

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        places = np.cumsum(index["runs"].astype(np.int64) + 1) - 1
        if len(places) and places[-1] >= prod(shape):
            raise EncodingError(f"the runs end at weight {places[-1]} of {prod(shape)}")
        return places


@dataclass(frozen=True)
class _Groups:
    """At most ``peak`` of every ``size`` consecutive weights of a row."""

    peak: int
    size: int

    def index(self, present: Present) -> dict[str, Integers]:
        groups = in_groups(present.reshape(len(present), -1), self.size)
        if np.count_nonzero(groups, axis=-1).max() > self.peak:
            raise EncodingError(
                f"a group of {self.size} weights keeps more than {self.peak}: the layer is not {self.peak}:{self.size}"
            )
        # Kept weights first, in their order; a free slot holds the zero of a place that is not kept.
        return {"places": np.argsort(groups == 0, axis=-1, kind="stable")[..., : self.peak].ravel()}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        return {"places": Field(slots, index_bits(self.size))}

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        rows, columns = _matrix(shape)
        slots = (rows, -(-columns // self.size), self.peak)
        if len(index["places"]) != prod(slots):
            raise EncodingError(f"{len(index['places'])} places instead of {prod(slots)}")
        inside = index["places"].astype(np.int64).reshape(slots)
        if (np.diff(np.sort(inside, axis=-1), axis=-1) == 0).any():
            raise EncodingError("a group has a place twice")
        column = np.arange(0, columns, self.size)[:, None] + inside
        flat = np.arange(rows)[:, None, None] * columns + column
        return np.where(column < columns, flat, prod(shape)).ravel()


class _Blocks:
    def index(self, present: Present) -> dict[str, Integers]:
        blocks = in_blocks(present.reshape(len(present), -1))
        return {"bitmask": blocks.any(axis=(1, 3)).ravel().astype(np.uint8)}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        return {"bitmask": Field(prod(-(-side // BLOCK) for side in _matrix(shape)), 1)}

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        rows, columns = _matrix(shape)
        down, right = np.divmod(np.flatnonzero(index["bitmask"]), -(-columns // BLOCK))
        row = down[:, None, None] * BLOCK + np.arange(BLOCK)[:, None]
        column = right[:, None, None] * BLOCK + np.arange(BLOCK)
        inside = (row < rows) & (column < columns)
        return np.where(inside, row * columns + column, prod(shape)).ravel()


class _Narrowed:
    def index(self, present: Present) -> dict[str, Integers]:
        windows = present.reshape(*present.shape[:2], -1).any(axis=2).astype(np.uint8)
        return {"row_bitmask": windows.max(axis=1), "channel_bitmask": windows.max(axis=0)}

    def fields(self, shape: Shape, slots: int) -> dict[str, Field]:
        return {"row_bitmask": Field(shape[0], 1), "channel_bitmask": Field(shape[1], 1)}

    def places(self, shape: Shape, index: Mapping[str, Integers]) -> Places:
        rows, channels = np.flatnonzero(index["row_bitmask"]), np.flatnonzero(index["channel_bitmask"])
        taps = prod(shape[2:])
        windows = rows[:, None] * shape[1] + channels
        return (windows[..., None] * taps + np.arange(taps)).ravel()


_PLAIN: dict[str, _Layout] = {
    "dense": _Dense(),
    "bitmask": _Bitmask(),
    "csr": _CSR(),
    "csr8": _CSR(8),
    "csr16": _CSR(16),
    "relative": _Relative(),
    "block4x4": _Blocks(),
    "narrowed": _Narrowed(),
}
