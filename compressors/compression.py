"""The account of a compression: what was done to each layer."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from compressors.quantization.grids import Grid
from hardware.memory import WeightCoding
from hardware.storage import note


@dataclass(frozen=True)
class LayerCompression:
    """What was done to one layer. ``loss`` is the method's own estimate of the harm, where it has one.

    A quantised layer has its grid and the weights' codes (uint8, the weight's shape); ``extra`` holds what else a
    method wants to stand in the record (JSON-able). A narrowed layer has the shape it had ``before``, and the indices
    of the outputs it kept; its mask is one of the narrow weight.
    """

    name: str
    shape: tuple[int, ...]
    mask: Tensor = field(repr=False)  # bool, the weight's shape; True is kept
    loss: float | None = None
    grid: Grid | None = field(default=None, repr=False)
    codes: Tensor | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[int, ...] | None = None
    outputs: Tensor | None = field(default=None, repr=False)  # int64 [out]

    @property
    def weights(self) -> int:
        """Number of weights of the dense layer."""
        return math.prod(self.shape if self.before is None else self.before)

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return int(self.mask.sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary, without the mask."""
        summary: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.shape),
            "weights": self.weights,
            "kept": self.kept,
            "density": self.kept / self.weights,
            "loss": self.loss,
        }
        if self.before is not None:
            summary["before"] = list(self.before)
        if self.grid is not None:
            summary["bits"] = self.grid.bits
        return summary | dict(self.extra)

    def weight(self) -> Tensor:
        """The quantised weight to the bit, from codes, scales and mask: the weight's shape.

        Raises:
            ValueError: the layer is not quantised, so its values stand in the network alone.
        """
        if self.grid is None or self.codes is None:
            raise ValueError(f"layer {self.name!r} is not quantised: its weights are those of the network")
        rows = self.grid.values(self.codes.flatten(1))
        return rows.view(self.shape) * self.mask

    def coding(self) -> WeightCoding | None:
        """How hardware stores the weights: None for plain floats."""
        return None if self.grid is None else self.grid.coding()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "LayerCompression":
        """The account from ``dataclasses.asdict``, which a checkpoint keeps."""
        layer = cls(**state)
        return layer if state["grid"] is None else replace(layer, grid=Grid(**state["grid"]))


@dataclass(frozen=True)
class Compression:
    """What was done to each layer of a network, in order of execution. ``seconds`` is the wall time it took.

    Where work of an earlier run was taken up again, the time it took then is counted in. ``stages`` are what a method
    that changes the network while it is trained had at the end of each stage (JSON-able). ``left_alone`` names what
    else has weights (:func:`~compressors.network.layers.left_alone`).
    """

    layers: tuple[LayerCompression, ...]
    seconds: float = 0.0
    aftercare: Mapping[str, list[str]] = field(default_factory=dict)  # what was done -> the modules it was done to
    stages: tuple[Mapping[str, Any], ...] = ()
    left_alone: tuple[str, ...] = ()

    @property
    def density(self) -> float:
        """Share of weights kept over all compressed layers: what was achieved, not what was asked for."""
        return sum(layer.kept for layer in self.layers) / sum(layer.weights for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary, without the masks."""
        summary: dict[str, Any] = {
            "density": self.density,
            "seconds": self.seconds,
            "layers": [layer.to_dict() for layer in self.layers],
            "aftercare": dict(self.aftercare),
        }
        if self.stages:
            summary["stages"] = list(self.stages)
        if self.left_alone:
            summary["left_alone"] = list(self.left_alone)
        return summary

    def state(self) -> dict[str, Any]:
        """All of it, masks included, as plain containers and tensors: what a checkpoint keeps."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Compression":
        """The account from :meth:`state`."""
        layers = tuple(LayerCompression.from_state(layer) for layer in state["layers"])
        return cls(
            layers,
            seconds=state["seconds"],
            aftercare=state["aftercare"],
            stages=tuple(state["stages"]),
            left_alone=tuple(state["left_alone"]),
        )

    def codings(self) -> dict[str, WeightCoding]:
        """Layer name -> how its weights are stored, of the quantised layers."""
        return {layer.name: coding for layer in self.layers if (coding := layer.coding()) is not None}

    def note_storage(self, module: nn.Module) -> None:
        """Note on each quantised layer how its weights are stored, so that whatever counts their cost knows."""
        for layer in self.layers:
            if layer.grid is not None:
                note(module.get_submodule(layer.name), layer.grid.stored())

    def masks(self) -> dict[str, Tensor]:
        """Layer name -> bool mask of its weight's shape."""
        return {layer.name: layer.mask for layer in self.layers}
