"""Compressed networks as compressed files: each weight in the smallest memory format, as the record counts it.

The file is an ordinary ``.safetensors``: any reader of that format opens it, sees the biases, BatchNorms and leaks as
they are, and the packed weights as bytes with names; a reader without any library takes a few lines more, since the
container is a length, a JSON header and the tensors one after the other. A container of our own would have saved
nothing but the header's few hundred bytes.

A weight ``1.weight`` becomes the tensors (the names follow those of compressed-tensors where it has the same thing)

* ``1.weight_packed``: its codes, ``num_bits`` each, most significant bit first, whole bytes;
* ``1.weight_bitmask``, ``_row_offsets``, ``_col_indices``, ``_runs``, ``_places``, ``_row_bitmask`` or
  ``_channel_bitmask``: the index of its format, packed likewise, with the widths of :mod:`hardware.encodings`;
* ``1.weight_scale``, ``1.weight_zero_point``: of quantised weights; zero points are packed in ``num_bits`` each;

and an entry of the JSON under :data:`KEY` in the header's metadata, a :class:`PackedWeight`. Each tensor is rounded up
to whole bytes, so all of them together are the record's bits of weights, index and scales, and less than a byte a
tensor. Everything else of the network's state is stored plain. What a code means depends on its ``type``:

* ``float``: 32 bits of an IEEE 754 number. A negative zero is written as zero.
* ``int``: ``scale * (((code + zero) mod 2^num_bits) - zero)``, ``zero`` being ``2^(num_bits - 1)`` where it is
  ``symmetric`` (then the code is a two's complement), else the zero point. Code 0 is the weight zero.
* ``midrise``: ``scale * (code - (2^num_bits - 1) / 2)``, a grid without zero; weights without a slot are zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from compressors.compression import LayerCompression
from compressors.quantization.grids import Grid
from hardware.encodings import Encoded, decode, encode, index_fields, pack, unpack
from hardware.memory import Mask, WeightCoding, best_format, format_bits
from hardware.storage import StoredWeights

KEY = "snnbench.packed"
FORMAT: Literal["snnbench packed weights 1"] = "snnbench packed weights 1"
WEIGHTS_PER_BYTE = 1024  # of a file that is read; deflate's own limit
SMALL = 2**24  # weights that are read whatever the size of the file

Floats = NDArray[np.float32]
Meaning = Literal["float", "int", "midrise"]  # of a code


class PackedError(ValueError):
    """A packed weight that cannot be one of its shape and format. Names the weight."""


class PackedWeight(BaseModel):
    """How one weight is packed.

    Args:
        format: name of the memory format.
        shape: of the weight.
        type: what a code means, see the module's text.
        num_bits: bits of one code: 32 of ``float``, else 2 to 8.
        symmetric: whether the zero point is in the middle, and not stored.
        slots: number of codes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: str
    shape: list[PositiveInt] = Field(min_length=2)
    type: Meaning
    num_bits: int = Field(ge=2, le=32)
    symmetric: bool = True
    slots: int = Field(ge=0)


class Contents(BaseModel):
    """What the header says of the packed weights, by the weight's name in the network's state."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["snnbench packed weights 1"]
    weights: dict[str, PackedWeight]


@dataclass(frozen=True)
class Packed:
    """Tensors and header text of a packed file, and the bytes of the tensors by what they hold."""

    tensors: Mapping[str, Tensor]
    contents: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class _Grid:
    """Numpy's view of a grid: scale ``[rows, 1]`` or ``[1, 1]``, and zero points, None where they are implied."""

    type: Literal["int", "midrise"]
    bits: int
    scale: Floats
    zero: NDArray[np.int64] | None

    @classmethod
    def of(cls, grid: Grid) -> "_Grid":
        """The same grid."""
        scale = grid.scale.detach().float().cpu().numpy().copy()
        if not grid.coding().has_zero:
            return cls("midrise", grid.bits, scale, None)
        zero = None if grid.symmetric else grid.zero.detach().cpu().numpy().astype(np.int64)
        return cls("int", grid.bits, scale, zero)

    def parts(self) -> dict[str, NDArray[Any]]:
        """What stands in the file beside the codes."""
        points = {} if self.zero is None else {"zero_point": pack(self.zero.ravel(), self.bits)}
        return {"scale": self.scale} | points

    @property
    def middle(self) -> NDArray[np.int64]:
        """The zero point of integer codes."""
        return np.full((1, 1), 2 ** (self.bits - 1)) if self.zero is None else self.zero

    def stored(self, codes: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.integer]:
        """Codes of the compression's account as they stand in a file: 0 is the weight zero, if the grid has one."""
        if self.type == "midrise":
            return codes * mask
        rows = codes.reshape(len(codes), -1).astype(np.int64)
        return ((rows - self.middle) % 2**self.bits).reshape(codes.shape) * mask

    def values(self, codes: NDArray[np.uint32], present: NDArray[np.bool_]) -> Floats:
        """The weights that stand for codes of a file, of their shape."""
        rows = codes.reshape(len(codes), -1).astype(np.int64)
        if self.type == "midrise":
            steps = rows.astype(np.float32) - np.float32((2**self.bits - 1) / 2)
        else:
            steps = ((rows + self.middle) % 2**self.bits - self.middle).astype(np.float32)
        return np.where(present, (self.scale * steps).reshape(codes.shape), np.float32(0))

    def stored_weights(self) -> StoredWeights:
        """How the weights are stored, for counting."""
        zero = np.full_like(self.scale, (2**self.bits - 1) / 2) if self.type == "midrise" else self.middle
        levels = np.broadcast_to(zero, self.scale.shape).astype(np.float32)
        return StoredWeights(self.coding(), torch.from_numpy(self.scale), torch.from_numpy(levels))

    def coding(self) -> WeightCoding:
        """How wide the weights are, for counting."""
        points = 0 if self.zero is None else self.zero.size
        return WeightCoding(
            self.bits,
            scales=self.scale.size,
            zero_points=points,
            zero_point_bits=8 if self.type == "midrise" else self.bits,
            has_zero=self.type == "int",
        )


def pack_state(state: Mapping[str, Tensor], layers: Mapping[str, LayerCompression]) -> Packed:
    """Pack every weight of a network's state: each float32 tensor of two dimensions or more.

    Args:
        state: name -> tensor.
        layers: what was done to a weight, by its name in the state; quantised ones are packed as their codes.

    Raises:
        PackedError: a plain tensor has the name of a part of a packed one.
    """
    tensors = {name: tensor for name, tensor in state.items() if not _is_weight(tensor)}
    weights: dict[str, PackedWeight] = {}
    sizes = dict.fromkeys(("weights", "index", "scales"), 0)
    sizes["others"] = sum(tensor.nbytes for tensor in tensors.values())
    for name in state.keys() - tensors.keys():
        weights[name], parts = _pack(state[name], layers.get(name))
        for part, array in parts.items():
            if f"{name}_{part}" in tensors:
                raise PackedError(f"packed weight {name}: the network has a tensor {name}_{part}")
            tensors[f"{name}_{part}"] = torch.from_numpy(array)
            sizes[_HOLDS.get(part, "index")] += array.nbytes
    contents = Contents(format=FORMAT, weights=dict(sorted(weights.items())))
    return Packed(tensors, contents.model_dump_json(exclude_defaults=True), sizes)


_HOLDS = {"packed": "weights", "scale": "scales", "zero_point": "scales"}  # part -> what its bytes are; else index


def _is_weight(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.ndim >= 2 and tensor.numel() > 0


def _pack(tensor: Tensor, layer: LayerCompression | None) -> tuple[PackedWeight, dict[str, NDArray[Any]]]:
    """Description and parts of one weight."""
    weight = np.ascontiguousarray(tensor.numpy())
    kept = weight != 0
    if layer is None or layer.grid is None or layer.codes is None:
        kind: Meaning = "float"
        coding, grid_parts = WeightCoding(), {}
        codes: NDArray[np.integer] = weight.view(np.uint32) * kept
    else:
        grid = _Grid.of(layer.grid)
        kind, coding, grid_parts = grid.type, grid.coding(), grid.parts()
        codes = grid.stored(layer.codes.cpu().numpy(), layer.mask.cpu().numpy())
    form = best_format(format_bits(Mask.of(kept), coding))
    encoded = encode(codes, coding.bits, form, None if coding.has_zero else kept)
    slots = len(encoded.values)
    fields = index_fields(form, encoded.shape, slots)
    index = {part: pack(encoded.index[part], size.width) for part, size in fields.items()}
    entry = PackedWeight(
        format=form,
        shape=list(weight.shape),
        type=kind,
        num_bits=coding.bits,
        symmetric="zero_point" not in grid_parts,
        slots=slots,
    )
    return entry, {"packed": pack(encoded.values, coding.bits)} | index | grid_parts


def unpack_state(tensors: Mapping[str, Tensor], contents: str) -> tuple[dict[str, Tensor], dict[str, StoredWeights]]:
    """The network's state that was packed, and how the weights of its quantised layers are stored, by layer name.

    Raises:
        PackedError: the header does not describe these tensors, or an index points out of its weight; nothing of the
            size that the header claims is allocated before it is held against the file's.
    """
    try:
        weights = Contents.model_validate_json(contents).weights
    except ValidationError as error:
        first = error.errors()[0]
        raise PackedError(f"packed weights: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _refuse_swollen(weights, sum(tensor.nbytes for tensor in tensors.values()))
    left = dict(tensors)
    state: dict[str, Tensor] = {}
    quantised: dict[str, StoredWeights] = {}
    for name, entry in weights.items():
        try:
            state[name], stored = _unpack(_Reader(name, left), entry)
        except ValueError as error:
            raise PackedError(f"packed weight {name}: {error}") from None
        if stored is not None:
            quantised[name.removesuffix(".weight")] = stored
    for name in state.keys() & left.keys():
        raise PackedError(f"packed weight {name}: the file also has it plain")
    return left | state, quantised


def _refuse_swollen(weights: Mapping[str, PackedWeight], size: int) -> None:
    """A few bytes can say that there are more zeros than fit into memory."""
    total = 0
    for name, entry in weights.items():
        total += prod(entry.shape)
        if total > size * WEIGHTS_PER_BYTE + SMALL:
            raise PackedError(f"packed weight {name}: {entry.shape} is too large for a file of {size:,} bytes")


@dataclass(frozen=True)
class _Reader:
    """Takes the tensors of one weight out of those of the file."""

    name: str
    tensors: dict[str, Tensor]

    def take(self, part: str, dtype: torch.dtype = torch.uint8) -> NDArray[Any]:
        """A part's entries."""
        tensor = self.tensors.pop(f"{self.name}_{part}", None)
        if tensor is None or tensor.dtype != dtype:
            raise ValueError(f"there is no tensor {self.name}_{part} of {dtype}")
        return tensor.numpy()

    def integers(self, part: str, entries: int, width: int) -> NDArray[np.uint32]:
        """A packed part's integers."""
        try:
            return unpack(self.take(part).astype(np.uint8).ravel(), entries, width)
        except ValueError as error:
            raise ValueError(f"{part}: {error}") from None


def _unpack(reader: _Reader, entry: PackedWeight) -> tuple[Tensor, StoredWeights | None]:
    shape, bits = tuple(entry.shape), entry.num_bits
    if (bits == 32) != (entry.type == "float") or (bits > 8 and bits != 32):
        raise ValueError(f"{entry.type} of {bits} bits")
    values = reader.integers("packed", entry.slots, bits)
    fields = index_fields(entry.format, shape, entry.slots)
    index = {part: reader.integers(part, size.entries, size.width) for part, size in fields.items()}
    codes, present = decode(Encoded(entry.format, shape, bits, values, index))
    if entry.type == "float":
        return torch.from_numpy(codes.view(np.float32)), None
    grid = _read_grid(reader, entry)
    return torch.from_numpy(grid.values(codes, present)), grid.stored_weights()


def _read_grid(reader: _Reader, entry: PackedWeight) -> _Grid:
    scale = reader.take("scale", torch.float32).astype(np.float32)
    if scale.shape not in ((entry.shape[0], 1), (1, 1)):
        raise ValueError(f"scales {list(scale.shape)} for {entry.shape[0]} rows")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError("a scale that is not finite and above 0")
    zero = None
    if entry.type == "int" and not entry.symmetric:
        zero = reader.integers("zero_point", scale.size, entry.num_bits).astype(np.int64).reshape(scale.shape)
    return _Grid("int" if entry.type == "int" else "midrise", entry.num_bits, scale, zero)
