"""What was done to each weight of a network, as a file that a few lines of any language read, and these as well."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from benchmark.files import write_atomically
from benchmark.networks.errors import CheckpointError
from benchmark.networks.fixed_point.choosing import LayerIntegers, NeuronIntegers
from benchmark.networks.fixed_point.network import FixedNetwork
from benchmark.networks.fixed_point.scheme import FixedPoint
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.arrays import LARGEST_BYTES, Array, ArrayError, StoredGrid, Strict
from benchmark.networks.weights.checkpoints import Checkpoint
from compressors.compression import Compression, LayerCompression
from compressors.quantization.grids import Grid

FORMAT: Literal["snnbench compression map 1"] = "snnbench compression map 1"
READING = (
    "Arrays are base64 of zlib of their entries in row-major order, little-endian, of the dtype and shape beside them; "
    "dtype 'bits' packs eight entries a byte, the first in the highest bit, the last byte filled up with zeros. "
    "'mask' is 1 where a weight is kept. The weight of a layer with 'codes' is scale * (codes - zero) * mask, with one "
    "scale and zero for each output or for all; other weights stand in the network's own file."
)
NUMBERS = (
    "A layer's weight in units of the potential is (code - zero) * 2^shift, and its bias is added. In each step a "
    "potential leaks (none: stays; shift: less itself >> amount; factor: times amount / 4096, rounded towards zero), "
    "takes the sum of weights and bias, saturates or wraps in potential_bits, and fires where it reaches the "
    "threshold, which then is subtracted from it, or it becomes zero. A unit stands for so much of the network in "
    "floats."
)


class MapError(CheckpointError):
    """A compression map that cannot be read, or that belongs to another network; names the file and the layer."""


class _Layer(Strict):
    """One layer of a map, its arrays not expanded yet."""

    shape: Annotated[list[int], Field(min_length=2)]
    mask: Array
    outputs: Array | None = None  # those of the dense layer that are left
    bits: int | None = None
    codes: Array | None = None
    scale: Array | None = None
    zero: Array | None = None
    shift: int | None = None
    bias: Array | None = None  # whole numbers

    @property
    def size(self) -> int:
        """Bytes of all arrays, as they declare them."""
        arrays = (self.mask, self.outputs, self.codes, self.scale, self.zero, self.bias)
        return sum(array.size for array in arrays if array is not None)

    @classmethod
    def of(cls, layer: LayerCompression, integers: LayerIntegers | None = None) -> "_Layer":
        quantised: dict[str, Any] = {}
        if layer.grid is not None and layer.codes is not None:
            stored = StoredGrid.of(layer.grid.bits, layer.grid.scale, layer.grid.zero)
            quantised = {"bits": stored.bits, "codes": Array.of(layer.codes), "scale": stored.scale}
            quantised |= {"zero": stored.zero}
        if integers is not None:
            quantised["shift"] = integers.shift
            quantised |= {} if integers.bias is None else {"bias": Array.of(integers.bias)}
        outputs = None if layer.outputs is None else Array.of(layer.outputs)
        return cls(shape=list(layer.shape), mask=Array.of(layer.mask), outputs=outputs, **quantised)

    def layer(self, name: str) -> LayerCompression:
        """The layer's account, every array of the shape and kind that it must have.

        Raises:
            ArrayError: one of them is not.
        """
        _expect("mask", self.mask, "bits", self.shape)
        outputs = None
        if self.outputs is not None:
            _expect("outputs", self.outputs, "int64", self.shape[:1])
            outputs = self.outputs.tensor()
        grid, codes = self._grid_and_codes()
        mask = self.mask.tensor()
        return LayerCompression(name, tuple(self.shape), mask, grid=grid, codes=codes, outputs=outputs)

    def _grid_and_codes(self) -> tuple[Grid | None, torch.Tensor | None]:
        parts = (self.bits, self.codes, self.scale, self.zero)
        if all(part is None for part in parts):
            return None, None
        if self.bits is None or self.codes is None or self.scale is None or self.zero is None:
            raise ArrayError("a quantised layer has bits, codes, scale and zero, and some of them are missing")
        _expect("codes", self.codes, "uint8", self.shape)
        grid = StoredGrid(bits=self.bits, scale=self.scale, zero=self.zero).grid(self.shape[0])
        codes = self.codes.tensor()
        if codes.numel() and int(codes.max()) >= 2**self.bits:
            raise ArrayError(f"a code is {int(codes.max())}, more than {self.bits} bits hold")
        return grid, codes


def _expect(what: str, array: Array, dtype: str, shape: list[int]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ArrayError(f"{what} is {array.dtype} of shape {array.shape} instead of {dtype} of {shape}")


class _Neurons(Strict):
    """The neurons behind layers of whole numbers."""

    threshold: int
    unit: float
    reset: Literal["subtract", "zero"]
    leak: Literal["none", "shift", "factor"]
    amount: int
    potential_bits: int
    overflow: Literal["saturate", "wrap"]


class _File(BaseModel):
    """A whole map."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["snnbench compression map 1"]
    reading: str
    reset: str | None = None  # of the neurons, where the dense network is a NIR file's
    layers: dict[str, _Layer]
    neurons: dict[str, _Neurons] | None = None  # of a network in whole numbers


def write_map(
    path: Path, compression: Compression, reset: str | None = None, numbers: FixedNetwork | None = None
) -> None:
    """Write masks, and of quantised layers codes, scales, zero points and widths, as one JSON file.

    The file says itself how it is read.

    Args:
        path: the file.
        compression: what was done.
        reset: how the neurons of a NIR file's network were taken to be reset.
        numbers: the whole numbers of a network that has them.

    Raises:
        StoreError: the folder is read-only or full.
    """
    by_name = {layer.name.removeprefix("network."): layer for layer in compression.layers}
    integers = {} if numbers is None else numbers.layers
    layers = {name: _Layer.of(layer, integers.get(name)) for name, layer in by_name.items()}
    neurons = (
        None if numbers is None else {name: _neurons(one, numbers.scheme) for name, one in numbers.neurons.items()}
    )
    reading = READING if numbers is None else f"{READING} {NUMBERS}"
    file = _File(format=FORMAT, reading=reading, reset=reset, layers=layers, neurons=neurons)
    content = file.model_dump(exclude_none=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _neurons(one: NeuronIntegers, scheme: FixedPoint) -> _Neurons:
    return _Neurons(
        threshold=one.threshold,
        unit=one.unit,
        reset="subtract" if one.reset is None else "zero",
        leak=one.leak.kind,
        amount=one.leak.amount,
        potential_bits=scheme.potential_bits,
        overflow=scheme.overflow,
    )


def load(path: Path) -> Compression:
    """Read a map: masks, and of quantised layers grids and codes, by the layers' names in the network.

    What a map does not hold (times, losses, shapes before channels went) is not in the result.

    Raises:
        MapError: no such file, not a map, or an array that is damaged or not of its layer's shape.
    """
    try:
        content = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MapError(f"no compression map at {path} ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise MapError(f"{path} is not a compression map: {place or 'the file'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON
        raise MapError(f"{path} is not a compression map: {str(error).splitlines()[0]}") from error
    size = sum(layer.size for layer in content.layers.values())
    if size > LARGEST_BYTES:
        raise MapError(f"{path} declares arrays of {size:,} bytes, and at most {LARGEST_BYTES:,} are read")
    return Compression(tuple(_read(path, name, layer) for name, layer in content.layers.items()))


def _read(path: Path, name: str, layer: _Layer) -> LayerCompression:
    try:
        return layer.layer(name)
    except ArrayError as error:
        raise MapError(f"{path}, layer {name!r}: {error}") from error


def rebuild(network: nn.Module, checkpoint: Checkpoint, compression: Compression, source: object) -> None:
    """Give a dense network the weights of a compressed one: those of its file, the quantised ones from their codes.

    Args:
        network: of the dense architecture; it becomes as narrow as the compressed one, in place.
        checkpoint: the compressed network's file (:func:`benchmark.networks.weights.checkpoints.load`).
        compression: its map, see :func:`load`.
        source: the map's path, for messages.

    Raises:
        CheckpointError: the file does not fit the network.
        MapError: the map belongs to another network: a layer that is not there, has another shape, or a weight where
            the map says that there is none.
    """
    checkpoints.restore(network, checkpoint, "the compressed network's file")
    weights = {name: value for name, value in network.named_parameters() if name.endswith(".weight")}
    for layer in compression.layers:
        weight = weights.get(f"{layer.name}.weight")
        if weight is None:
            raise MapError(f"{source}: the network has no layer {layer.name!r}")
        if tuple(weight.shape) != layer.shape:
            raise MapError(f"{source}: layer {layer.name!r} is {list(layer.shape)}, not {list(weight.shape)}")
        with torch.no_grad():
            if layer.grid is not None:
                weight.copy_(layer.weight())
            elif weight[~layer.mask.to(weight.device)].any():
                raise MapError(f"{source}: layer {layer.name!r} has weights that the map says are pruned")
    compression.note_storage(network)
