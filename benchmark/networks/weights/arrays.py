"""Arrays and grids inside JSON: base64 of zlib of their entries, with dtype and shape; read back within their size."""

import base64
import binascii
import math
import zlib
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from benchmark.networks.errors import CheckpointError
from compressors.compression import LayerCompression
from compressors.quantization.grids import Grid
from compressors.quantization.rescaw import MidRise
from hardware.storage import note, noted

LARGEST_BYTES = 2**30  # of one array, expanded
BITS = "bits"


class ArrayError(CheckpointError):
    """An array in a file that is not what the file says of it."""


class Strict(BaseModel):
    """A part of a file that has these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Array(Strict):
    """An array as it stands in JSON, not expanded yet.

    ``data`` is base64 of zlib of the entries, in row-major order and little-endian; dtype ``bits`` packs eight entries
    a byte, the first in the highest bit, and the last byte is filled up with zeros.
    """

    dtype: Literal["bits", "uint8", "int64", "float32", "float64"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    data: str

    @classmethod
    def of(cls, tensor: Tensor) -> "Array":
        """A tensor in this form."""
        entries = tensor.detach().cpu().contiguous().numpy()
        packed = entries.dtype == bool
        raw = np.packbits(entries) if packed else entries.astype(entries.dtype.newbyteorder("<"))
        data = base64.b64encode(zlib.compress(raw.tobytes(), 9)).decode("ascii")
        return cls(dtype=BITS if packed else str(entries.dtype), shape=list(entries.shape), data=data)  # type: ignore

    @property
    def size(self) -> int:
        """Bytes of the entries before compression, as the array declares them."""
        entries = math.prod(self.shape)
        return -(-entries // 8) if self.dtype == BITS else entries * np.dtype(self.dtype).itemsize

    def tensor(self) -> Tensor:
        """The entries, ``bits`` as bool. No more than the declared size is ever expanded.

        Raises:
            ArrayError: more than LARGEST_BYTES are declared, or the data are not so many.
        """
        if self.size > LARGEST_BYTES:
            raise ArrayError(f"an array of shape {self.shape} would take {self.size:,} bytes: too large")
        raw = np.frombuffer(self._raw(), np.uint8)
        if self.dtype == BITS:
            entries = np.unpackbits(raw, count=math.prod(self.shape)).astype(bool)
        else:
            entries = raw.view(np.dtype(self.dtype).newbyteorder("<")).astype(self.dtype)
        return torch.from_numpy(entries.reshape(self.shape))

    def _raw(self) -> bytes:
        expanding = zlib.decompressobj()
        try:
            raw = expanding.decompress(base64.b64decode(self.data, validate=True), self.size + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise ArrayError(f"an array of shape {self.shape} is damaged ({error})") from error
        if len(raw) != self.size or not expanding.eof or expanding.unused_data:
            raise ArrayError(f"the data of an array of shape {self.shape} are not {self.size:,} bytes")
        return raw


class StoredGrid(Strict):
    """A grid as it stands in JSON: width, scales and zero points, one of each for every row or for all."""

    bits: int
    scale: Array
    zero: Array

    @classmethod
    def of(cls, bits: int, scale: Tensor, zero: Tensor) -> "StoredGrid":
        """A grid in this form. Whole zero points are kept as bytes, those of grids without zero as floats."""
        whole = bool((zero == zero.round()).all())
        exact = scale if scale.dtype == torch.float64 else scale.float()
        return cls(bits=bits, scale=Array.of(exact), zero=Array.of(zero.to(torch.uint8) if whole else zero.float()))

    def grid(self, rows: int) -> Grid:
        """The grid of a weight of so many rows.

        Raises:
            ArrayError: scales or zero points are damaged, of another number, or out of range.
        """
        for array in (self.scale, self.zero):
            if array.shape not in ([1, 1], [rows, 1]):
                raise ArrayError(f"a grid's array has shape {array.shape}: {[rows, 1]} or [1, 1] fits the weight")
        scale = self.scale.tensor()
        zero = self.zero.tensor().to(scale.dtype)
        sound = scale.is_floating_point() and scale.isfinite().all() and (scale > 0).all() and zero.isfinite().all()
        if not sound or scale.shape != zero.shape or not 2 <= self.bits <= 8:
            raise ArrayError(f"a grid of {self.bits} bits has scales or zero points that are none")
        kind = Grid if (zero == zero.round()).all() else MidRise
        return kind(self.bits, scale, zero)


def noted_grids(network: nn.Module) -> dict[str, Any]:
    """The grids that a network's weights lie on, as noted on its layers: JSON-able, by layer name."""
    return {
        name: StoredGrid.of(stored.coding.bits, stored.scale, stored.zero).model_dump()
        for name, (layer, stored) in noted(network).items()
        if isinstance(layer.weight, Tensor) and stored.hold(layer.weight)
    }


def noted_layers(network: nn.Module) -> dict[str, LayerCompression]:
    """The layers whose weights lie on a grid, as noted on them, with their codes; by layer name."""
    layers = {}
    for name, grid in noted_grids(network).items():
        weight = network.get_parameter(f"{name}.weight").detach()
        levels = StoredGrid.model_validate(grid).grid(len(weight))
        codes = levels.codes(weight.flatten(1).to(levels.scale)).view(weight.shape)
        layers[name] = LayerCompression(name, tuple(weight.shape), weight != 0, grid=levels, codes=codes)
    return layers


def note_grids(network: nn.Module, grids: Any) -> None:
    """Note on a network's layers the grids that :func:`noted_grids` gave.

    Raises:
        ArrayError: these are no grids, or not this network's; names the layer.
    """
    try:
        parsed = _GRIDS.validate_python(grids)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArrayError(f"grid of {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    parameters = dict(network.named_parameters())
    for name, grid in parsed.items():
        weight = parameters.get(f"{name}.weight")
        if weight is None:
            raise ArrayError(f"grid of {name}: the network has no such layer")
        note(network.get_submodule(name), grid.grid(len(weight)).stored())


_GRIDS = TypeAdapter(dict[str, StoredGrid])
