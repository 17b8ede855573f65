"""What was done to each weight of a network, as a file that a few lines of any language read."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmark.files import write_atomically
from compressors.compression import Compression, LayerCompression

FORMAT = "snnbench compression map 1"
READING = (
    "Arrays are base64 of zlib of their entries in row-major order, little-endian, of the dtype and shape beside them; "
    "dtype 'bits' packs eight entries a byte, the first in the highest bit, the last byte filled up with zeros. "
    "'mask' is 1 where a weight is kept. The weight of a layer with 'codes' is scale * (codes - zero) * mask, with one "
    "scale and zero for each output or for all; other weights stand in the network's own file."
)


def write_map(path: Path, compression: Compression) -> None:
    """Write masks, and of quantised layers codes, scales, zero points and widths, as one JSON file.

    The file says itself how it is read.

    Raises:
        StoreError: the folder is read-only or full.
    """
    layers = {layer.name.removeprefix("network."): _layer(layer) for layer in compression.layers}
    write_atomically(path, json.dumps({"format": FORMAT, "reading": READING, "layers": layers}, indent=1) + "\n")


def _layer(layer: LayerCompression) -> dict[str, Any]:
    told: dict[str, Any] = {"shape": list(layer.shape), "mask": _array(layer.mask)}
    if layer.outputs is not None:
        told["outputs"] = _array(layer.outputs)  # those of the dense layer that are left
    if layer.grid is not None and layer.codes is not None:
        grid = {"scale": _array(layer.grid.scale.float()), "zero": _array(layer.grid.zero.to(layer.codes.dtype))}
        told |= {"bits": layer.grid.bits, "codes": _array(layer.codes), **grid}
    return told


def _array(tensor: Tensor) -> dict[str, Any]:
    entries = tensor.detach().cpu().contiguous().numpy()
    bits = entries.dtype == bool
    raw = np.packbits(entries) if bits else entries.astype(entries.dtype.newbyteorder("<"))
    return {
        "dtype": "bits" if bits else str(entries.dtype),
        "shape": list(entries.shape),
        "data": base64.b64encode(zlib.compress(raw.tobytes(), 9)).decode("ascii"),
    }
