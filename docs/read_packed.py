"""Read the packed networks that `snnbench compress` writes: numpy and json, nothing else. See packed_file.md."""

import json
from math import ceil, prod
from pathlib import Path

import numpy as np

DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def read(path):
    """The weights and all other tensors of a file, by name, as arrays."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    packed = json.loads(header.pop("__metadata__")["snnbench.packed"])["weights"]
    tensors = {}
    for name, about in header.items():
        first, last = (start + offset for offset in about["data_offsets"])
        tensors[name] = np.frombuffer(data[first:last], DTYPES[about["dtype"]]).reshape(about["shape"])
    return {name: unpack(name, tensors, about) for name, about in packed.items()} | tensors


def unpack(name, tensors, about):
    """One weight; its parts are taken out of the tensors."""
    slots, shape, width = about["slots"], about["shape"], about["num_bits"]

    def integers(part, count, bits):
        stream = np.unpackbits(tensors.pop(f"{name}_{part}"))[: count * bits].reshape(count, bits)
        return stream.astype(np.int64) @ (1 << np.arange(bits)[::-1])

    codes, kept = np.zeros(prod(shape) + 1, np.int64), np.zeros(prod(shape) + 1, bool)
    where = places(about["format"], slots, shape, integers)
    codes[where], kept[where] = integers("packed", slots, width), True
    codes, kept = codes[:-1].reshape(shape[0], -1), kept[:-1].reshape(shape)
    if about["type"] == "float":
        return codes.astype("<u4").view("<f4").reshape(shape)
    scale, zero = tensors.pop(f"{name}_scale"), 2 ** (width - 1)
    if not about.get("symmetric", True):
        zero = integers("zero_point", scale.size, width).reshape(scale.shape)
    whole = about["type"] == "int"
    steps = (codes + zero) % 2**width - zero if whole else codes - (2**width - 1) / 2
    return np.where(kept, (scale * steps.astype(np.float32)).reshape(shape), np.float32(0))


def places(form, slots, shape, integers):
    """Where the codes stand in the flattened weight; its size stands for outside of it."""
    n, rows, columns = prod(shape), shape[0], prod(shape[1:])
    if form in ("dense", "relative"):
        return np.arange(n) if form == "dense" else np.cumsum(integers("runs", slots, 4) + 1) - 1
    if form == "bitmask":
        return np.flatnonzero(integers("bitmask", n, 1))
    if form.startswith("csr"):
        row = np.repeat(np.arange(rows), np.diff(integers("row_offsets", rows + 1, slots.bit_length())))
        return row * columns + integers("col_indices", slots, int(form[3:] or (columns - 1).bit_length()))
    if form == "narrowed":
        kept = [np.flatnonzero(integers(f"{side}_bitmask", shape[i], 1)) for i, side in enumerate(("row", "channel"))]
        return np.arange(n).reshape(*shape[:2], -1)[np.ix_(*kept)].ravel()
    if form == "block4x4":
        across = ceil(columns / 4)
        down, right = np.divmod(np.flatnonzero(integers("bitmask", ceil(rows / 4) * across, 1)), across)
        row, column = down[:, None, None] * 4 + np.arange(4)[:, None], right[:, None, None] * 4 + np.arange(4)
    else:
        peak, size = map(int, form.split(":"))
        inside = integers("places", slots, (size - 1).bit_length()).reshape(rows, ceil(columns / size), peak)
        row, column = np.arange(rows)[:, None, None], np.arange(0, columns, size)[:, None] + inside
    return np.where((row < rows) & (column < columns), row * columns + column, n).ravel()
