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
    form, slots, shape, width = about["format"], about["slots"], about["shape"], about["num_bits"]
    n, rows, columns = prod(shape), shape[0], prod(shape[1:])

    def integers(part, count, bits):
        stream = np.unpackbits(tensors.pop(f"{name}_{part}"))[: count * bits].reshape(count, bits)
        return stream.astype(np.int64) @ (1 << np.arange(bits)[::-1])

    codes, places = integers("packed", slots, width), np.arange(slots)
    if form == "bitmask":
        places = np.flatnonzero(integers("bitmask", n, 1))
    elif form.startswith("csr"):
        row = np.repeat(np.arange(rows), np.diff(integers("row_offsets", rows + 1, slots.bit_length())))
        places = row * columns + integers("col_indices", slots, int(form[3:] or (columns - 1).bit_length()))
    elif form == "relative":
        places = np.cumsum(integers("runs", slots, 4) + 1) - 1
    elif form == "narrowed":
        kept = [np.flatnonzero(integers(f"{side}_bitmask", shape[i], 1)) for i, side in enumerate(("row", "channel"))]
        places = np.arange(n).reshape(*shape[:2], -1)[np.ix_(*kept)].ravel()
    elif form != "dense":  # groups and blocks may reach over the end of a row, or of all rows
        if form == "block4x4":
            across = ceil(columns / 4)
            down, right = np.divmod(np.flatnonzero(integers("bitmask", ceil(rows / 4) * across, 1)), across)
            row, column = down[:, None, None] * 4 + np.arange(4)[:, None], right[:, None, None] * 4 + np.arange(4)
        else:
            peak, size = map(int, form.split(":"))
            inside = integers("places", slots, (size - 1).bit_length()).reshape(rows, ceil(columns / size), peak)
            row, column = np.arange(rows)[:, None, None], np.arange(0, columns, size)[:, None] + inside
        places = np.where((row < rows) & (column < columns), row * columns + column, n).ravel()
    flat, kept = np.zeros(n + 1, np.int64), np.zeros(n + 1, bool)
    flat[places], kept[places] = codes, True
    codes, kept = flat[:n].reshape(rows, columns), kept[:n].reshape(rows, columns)
    if about["type"] == "float":
        return codes.astype("<u4").view("<f4").reshape(shape)
    scale = tensors.pop(f"{name}_scale")
    if about["type"] == "midrise":
        steps = codes - (2**width - 1) / 2
    else:
        middle = about.get("symmetric", True)
        zero = 2 ** (width - 1) if middle else integers("zero_point", scale.size, width).reshape(scale.shape)
        steps = (codes + zero) % 2**width - zero
    return np.where(kept, scale * steps.astype(np.float32), np.float32(0)).reshape(shape)
