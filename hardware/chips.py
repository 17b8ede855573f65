"""Does a network fit a chip: what it needs beside what the chip has, limit by limit.

Core counts are lower bounds: they follow from neurons and memory, not from a placement. A limit that nobody
publishes is shown as unknown, and a network that meets all known ones may then still not fit.
"""

from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from math import ceil, inf, prod
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from hardware.registry import UnknownName, suggestion
from hardware.report import CostReport, LayerCost

_LOIHI_WEIGHT_BITS = (1, 2, 3, 4, 5, 6, 8)
_LOIHI_INDEX_BITS = 10  # numbers the 1024 neurons of a core
_LOIHI_BLOCK = 64  # synapses that share a header
_LOIHI_HEADER_BITS = 10
_WORD_BITS = 64
_PER_CORE = ("neurons_per_core", "synapse_bits_per_core", "memory_bits_per_core")


class Limit(BaseModel):
    """A chip's limit, None if unknown, and who says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: int | None
    source: str


class Chip(BaseModel):
    """A chip: whether a convolution's weights are stored once, and its limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    weight_sharing: bool
    limits: dict[str, Limit]


@dataclass(frozen=True)
class Check:
    """One limit: what is needed (None: not computed), what there is (None: unknown), who says so."""

    name: str
    needed: int | None
    limit: int | None
    source: str

    @property
    def ok(self) -> bool | None:
        """Whether the limit is met; None if that is unknown."""
        return None if self.needed is None or self.limit is None else self.needed <= self.limit

    @property
    def use(self) -> float | None:
        """Fraction of the limit that is used up, None if that is unknown; a limit of zero is used up by anything."""
        if self.needed is None or self.limit is None:
            return None
        if self.limit == 0:
            return inf if self.needed else 0.0
        return self.needed / self.limit


@dataclass(frozen=True)
class ChipFit:
    """Whether a network fits a chip."""

    chip: str
    checks: tuple[Check, ...]

    @property
    def fits(self) -> bool | None:
        """False if a known limit is broken, None if all known ones are met but some are unknown, else True."""
        verdicts = {check.ok for check in self.checks}
        return next((verdict for verdict in (False, None) if verdict in verdicts), True)

    @property
    def cores(self) -> int | None:
        """Least number of cores."""
        return next((check.needed for check in self.checks if check.name == "cores"), None)

    @property
    def binding(self) -> str | None:
        """The limit that is most used up."""
        used = {check.name: check.use for check in self.checks if check.use is not None}
        return max(used, key=lambda name: used[name]) if used else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return asdict(self) | {"fits": self.fits, "cores": self.cores, "binding": self.binding}


@cache
def chips() -> dict[str, Chip]:
    """All chips by name."""
    text = files("hardware").joinpath("chips.yaml").read_text(encoding="utf-8")
    return {name: Chip.model_validate(data) for name, data in yaml.safe_load(text).items()}


def chip_fit(report: CostReport, name: str) -> ChipFit:
    """Compare what a network needs with a chip's limits.

    Raises:
        UnknownName: there is no such chip.
    """
    if name not in chips():
        raise UnknownName(f"unknown chip {name!r}: {suggestion(name, chips())}")
    chip = chips()[name]
    layers = [layer for layer in report.layers if layer.called and layer.weights]
    needs = _needs(report, layers) | {"cores": sum(cores_of(layer, chip) for layer in layers)}
    checks = (
        Check(limit, needs.get(limit), entry.value, entry.source)
        for limit, entry in chip.limits.items()
        if limit not in _PER_CORE or entry.value is None
    )
    return ChipFit(name, tuple(checks))


def _needs(report: CostReport, layers: list[LayerCost]) -> dict[str, int]:
    """What the network needs, by name of the limit."""
    maps = [layer for layer in layers if len(layer.output_shape) > 1]
    neurons = [neuron.neurons for neuron in report.neurons]
    inputs = sum(prod(layer.input_shape) for layer in layers)
    synapses = sum(layer.synapses for layer in layers)
    return {
        "weight_bits": _largest(layer.bits for layer in layers),
        "real_inputs": sum(layer.inputs == "real" for layer in layers),
        "neurons": sum(neurons),
        "hidden_neurons": sum(neurons[:-1]),
        "synapses": synapses,
        "mean_fan_out": ceil(synapses / max(1, inputs)),
        "fan_in": _largest(layer.fan_in for layer in layers),
        "layers": len(layers),
        "channels": _largest(layer.output_shape[0] for layer in layers),
        "kernel": _largest(side for layer in maps for side in layer.weight_shape[2:]),
        "input_side": _largest(side for layer in maps for side in layer.input_shape[1:]),
        "output_side": _largest(side for layer in maps for side in layer.output_shape[1:]),
        "inputs": prod(layers[0].input_shape) if layers else 0,
        "kernel_entries_per_layer": _largest(kernel_entries(layer.weight_shape) for layer in layers),
    }


def cores_of(layer: LayerCost, chip: Chip) -> int:
    """Least number of cores of one layer: neurons and memory, whichever needs more."""
    neurons = prod(layer.output_shape)
    state_bits = 32 * neurons
    needs = {
        "neurons_per_core": neurons,
        "synapse_bits_per_core": layer.stored_bits if chip.weight_sharing else loihi_synapse_bits(layer),
        "memory_bits_per_core": layer.stored_bits + state_bits,
    }
    limits = {name: chip.limits[name].value for name in needs if name in chip.limits}
    return max([1, *(ceil(needs[name] / value) for name, value in limits.items() if value)])


def loihi_synapse_bits(layer: LayerCost) -> int:
    """Synapse memory on Loihi 1, where each connection is stored: dense or indexed, whichever is less.

    Up to 64 synapses share a 10-bit header and are rounded up to 64-bit words (nengo-loihi, block.py).
    """
    bits = next((width for width in _LOIHI_WEIGHT_BITS if width >= layer.bits), _LOIHI_WEIGHT_BITS[-1])
    rows = layer.input_entries // prod(layer.input_shape)
    dense = ceil(layer.dense // rows / _LOIHI_BLOCK) * _block_bits(bits)
    indexed = ceil(layer.synapses / _LOIHI_BLOCK) * _block_bits(bits + _LOIHI_INDEX_BITS)
    return min(dense, indexed)


def _block_bits(synapse_bits: int) -> int:
    return ceil((_LOIHI_BLOCK * synapse_bits + _LOIHI_HEADER_BITS) / _WORD_BITS) * _WORD_BITS


def kernel_entries(weight_shape: tuple[int, ...]) -> int:
    """Kernel memory entries on Speck: c 2^(ceil(log2 taps) + ceil(log2 f)), sinabs docs/speck/overview.md.

    Widths are rounded up to powers of two, so narrowing 64 output channels to 33 saves nothing.
    """
    outputs, channels, *kernel = weight_shape
    return channels * 2 ** ((prod(kernel) - 1).bit_length() + (outputs - 1).bit_length())


def _largest(values: Any) -> int:
    return max(values, default=0)
