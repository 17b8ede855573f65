"""A spiking network as whole numbers: what runs, what it is equal to in floats, and the account of both."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, fx, nn

from benchmark.networks.fixed_point.bounds import limits, magnitudes
from benchmark.networks.fixed_point.choosing import (
    Choosing,
    LayerIntegers,
    NeuronIntegers,
    neuron_integers,
    set_integers,
)
from benchmark.networks.fixed_point.layers import Unit, WholeNumbers, make_exact
from benchmark.networks.fixed_point.neurons import IntegerNeuron
from benchmark.networks.fixed_point.reading import MEANS, Structure, read
from benchmark.networks.fixed_point.scheme import FixedPoint
from compressors.network.layers import evaluating
from compressors.quantization.grids import Grid
from hardware.memory import WeightCoding
from hardware.storage import StoredWeights, note, noted

SHIFT_BITS = 4  # that say by how much a layer's weights are shifted
ENTRIES = 2**26  # of all operations on the calibration samples that choose
MOST_SAMPLES = 32


@dataclass(frozen=True)
class FixedNetwork:
    """A network in whole numbers.

    Args:
        network: computes with whole numbers, from inputs ``[T, B, ...]`` to what they stand for, ``[T, B, classes]``.
        scheme: its widths.
        layers: whole numbers of each layer, by name, in order of execution.
        neurons: whole numbers of each layer of neurons, likewise.
        norms: BatchNorms that went into a layer, by the layer's name.
        scores: layers whose currents are, or are a part of, the network's output.
        dtypes: in which each layer is computed exactly.
        samples: calibration samples that chose the units.
    """

    network: nn.Module
    scheme: FixedPoint
    layers: Mapping[str, LayerIntegers]
    neurons: Mapping[str, NeuronIntegers]
    norms: Mapping[str, str]
    scores: frozenset[str]
    dtypes: Mapping[str, str]
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary, without the weights."""
        layers = [
            {"name": name, "step": one.step, "shift": one.shift, "unit": one.unit, "computed_in": self.dtypes[name]}
            | ({"batch_norm": self.norms[name]} if name in self.norms else {})
            for name, one in self.layers.items()
        ]
        neurons = [
            {
                "name": name,
                "threshold": one.threshold,
                "unit": one.unit,
                "reset": "subtract" if one.reset is None else "zero",
                "leak": one.leak.to_dict() | {"asked": one.asked},
            }
            for name, one in self.neurons.items()
        ]
        return {
            "weight_bits": self.scheme.weight_bits,
            "potential_bits": self.scheme.potential_bits,
            "overflow": self.scheme.overflow,
            "samples": self.samples,
            "layers": layers,
            "neurons": neurons,
        }

    def metadata(self) -> dict[str, dict[str, Any]]:
        """What a NIR node says of its whole numbers, by the module's name."""
        scheme = self.scheme
        layers = {
            name: {
                "weight_codes": one.codes.to(torch.int8).numpy(),
                "weight_bits": scheme.weight_bits,
                "weight_shift": one.shift,
            }
            | ({} if one.bias is None else {"bias_integers": one.bias.to(torch.int32).numpy()})
            for name, one in self.layers.items()
        }
        neurons = {
            name: {
                "threshold_integer": one.threshold,
                "potential_bits": scheme.potential_bits,
                "overflow": scheme.overflow,
                "leak": one.leak.kind,
                "leak_amount": one.leak.amount,
                "unit": one.unit * _factor(one.unit),
            }
            for name, one in self.neurons.items()
        }
        return {**layers, **neurons}

    def forget_overflows(self) -> None:
        """Count potentials that leave their range from zero."""
        for module in self.network.modules():
            if isinstance(module, IntegerNeuron):
                module.forget_overflows()

    def overflows(self) -> dict[str, float]:
        """The share of potentials that left their range, by the neurons' name."""
        counted: dict[str, Any] = {name: self.network.get_submodule(name) for name in self.neurons}
        return {name: module.overflows / max(1, module.updates) for name, module in counted.items()}


def fixed_point(network: nn.Module, x: Tensor, scheme: FixedPoint) -> FixedNetwork:
    """A network in whole numbers, its units chosen on calibration inputs.

    Layers keep what weights lie on a grid of one scale and no more bits; all others are rounded, a zero to zero.
    BatchNorm goes into the layer before it. Biases count in the unit of the potential.

    **Exact.** The largest magnitude that any sum of a layer's products can have follows from its weights and from what
    it is given (spikes, sums of so many spikes, inputs up to a limit that is checked in every pass). Below 2^24 the
    layer is computed in float32, which holds all these numbers, else in float64.

    Args:
        network: maps ``[T, B, ...]`` to ``[T, B, classes]``, multi-step; stays as it is.
        x: calibration inputs ``[T, B, ...]``, whole numbers; the first of them, up to 32 samples, are looked at.
        scheme: the widths.

    Raises:
        FixedPointError: an operation that whole numbers do not do exactly, named; inputs with fractions; or sums that
            32 bits do not hold.
    """
    with evaluating(network):
        structure = read(network)
        samples = _samples(structure.operations, x)
        x = x[:, :samples]
        largest = int(WholeNumbers(2**24)(x).abs().amax())
        operations = copy.deepcopy(structure.operations)
        _prepare(operations, structure)
        choices = Choosing(
            structure, operations, scheme, _kept_grids(network, scheme), magnitudes(structure, largest)
        ).run(x)
    layers = {
        one.name: choices[structure.groups[one.node]].integers(structure.groups[one.node], one, scheme)
        for one in structure.layers
    }
    neurons = {
        str(node.target): neuron_integers(
            structure.operations.get_submodule(str(node.target)), choices[structure.groups[node]].unit, scheme
        )
        for node in structure.neurons
    }
    limit, wide = limits(structure, layers, largest)
    _finish(operations, structure, layers, limit, wide, scheme)
    ends = {structure.groups[node] for node in structure.groups if node.op == "output"}
    scores = frozenset(one.name for group in ends for one in group.layers)
    norms = {one.name: one.norm for one in structure.layers if one.norm is not None}
    dtypes = {name: "float64" if name in wide else "float32" for name in layers}
    return FixedNetwork(operations, scheme, layers, neurons, norms, scores, dtypes, samples)


def dequantised(network: nn.Module, fixed: FixedNetwork, exactly: bool = False) -> nn.Module:
    """The network in floats whose weights, biases and thresholds are what the whole numbers stand for.

    It has the modules of ``network``, a copy, BatchNorms that went into a layer among them: they add its bias. It
    differs from the whole numbers by what floats round, by how a leak is rounded, and by potentials that leave their
    range.

    Args:
        network: what the whole numbers were made from.
        fixed: the whole numbers.
        exactly: let floats hold every sum to the bit, for other programs. One unit of a potential stands for a power
            of two, near what it stands for: weights, biases, thresholds and resets are multiplied by one factor from
            0.71 to 1.41, which changes no spike; currents that are the network's output stay as they are. Means
            become sums, with smaller weights. Where the reset is to a value, thresholds lie half a unit lower, so
            that it does not matter whether a neuron fires that just reaches it.
    """
    copied = copy.deepcopy(network)
    for name, one in fixed.layers.items():
        norm = copied.get_submodule(fixed.norms[name]) if name in fixed.norms else None
        stands = one.in_sums(1.0 if name in fixed.scores else _factor(one.potential_unit)) if exactly else one
        _dequantise(copied.get_submodule(name), norm, stands, fixed.scheme)
    for name, neurons in fixed.neurons.items():
        factor = _factor(neurons.unit) if exactly else 1.0
        module: Any = copied.get_submodule(name)
        reset = None if neurons.reset is None else neurons.reset * factor
        lower = 0.5 if exactly and reset is not None else 0.0
        module.v_threshold = (neurons.threshold - lower) * neurons.unit * factor + (reset or 0)
        module.v_reset = reset
    if exactly:
        pools: list[Any] = [module for module in copied.modules() if type(module) in MEANS]
        for pool in pools:
            pool.divisor_override = 1
    functional.reset_net(copied)
    return copied


def _factor(unit: float) -> float:
    """What makes a unit a power of two."""
    return float(2.0 ** round(math.log2(unit)) / unit)


def _dequantise(module: Any, norm: Any, one: LayerIntegers, scheme: FixedPoint) -> None:
    grid = grid_of(one, scheme)
    bias = None if one.bias is None else one.bias * one.unit
    with torch.no_grad():
        module.weight.copy_(grid.values(codes_of(one, scheme)))
        if norm is not None and bias is not None:
            norm.running_mean.copy_(-bias if module.bias is None else torch.zeros_like(bias))
            norm.running_var.fill_(1 - norm.eps)
            if norm.weight is not None:
                norm.weight.fill_(1)
                norm.bias.zero_()
        if module.bias is not None and bias is not None:
            module.bias.copy_(bias)
    note(module, grid.stored())


def grid_of(one: LayerIntegers, scheme: FixedPoint) -> Grid:
    """The grid that a layer's weights lie on in floats, one for all of them."""
    scale = torch.full((1, 1), one.step)
    return Grid(scheme.weight_bits, scale, torch.full_like(scale, 2.0 ** (scheme.weight_bits - 1)))


def codes_of(one: LayerIntegers, scheme: FixedPoint) -> Tensor:
    """A layer's codes on that grid, none below 0: uint8, the weight's shape."""
    return (one.codes + 2 ** (scheme.weight_bits - 1)).to(torch.uint8)


def _samples(operations: fx.GraphModule, x: Tensor) -> int:
    """How many samples choose: as many as there is room for all values of."""
    entries = []

    class Sizes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            entries.append(value.numel())
            return value

    Sizes(operations).run(x[:, :1])
    functional.reset_net(operations)
    return max(1, min(x.shape[1], MOST_SAMPLES, ENTRIES // sum(entries)))


def _kept_grids(network: nn.Module, scheme: FixedPoint) -> dict[str, StoredWeights]:
    """The grids whose codes are whole numbers of the scheme's width on one scale: their layers keep their weights."""
    return {
        name: stored
        for name, (module, stored) in noted(network).items()
        if stored.scale.numel() == 1
        and stored.coding.bits <= scheme.weight_bits
        and float(stored.zero) == 2 ** (stored.coding.bits - 1)
        and stored.hold(module.weight)  # type: ignore[arg-type]
    }


def _prepare(operations: fx.GraphModule, structure: Structure) -> None:
    """Let layers be exact, means be sums, and BatchNorms that go into a layer nothing."""
    for one in structure.layers:
        make_exact(operations.get_submodule(one.name))
        if one.norm is not None:
            operations.set_submodule(one.norm, nn.Identity())
    for node in structure.operations.graph.nodes:
        module: Any = operations.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(module) in MEANS:
            module.divisor_override = 1


def _finish(
    operations: fx.GraphModule,
    structure: Structure,
    layers: Mapping[str, LayerIntegers],
    limit: int,
    wide: set[str],
    scheme: FixedPoint,
) -> None:
    """Put the whole numbers in, a look at the input before them, and behind them what they stand for."""
    for name, one in layers.items():
        module = operations.get_submodule(name)
        set_integers(module, one, torch.float64 if name in wide else torch.float32)
        note(module, _stored(one, scheme))
    graph = operations.graph
    (start,) = (node for node in graph.nodes if node.op == "placeholder")
    (end,) = (node for node in graph.nodes if node.op == "output")
    operations.add_module("whole_numbers", WholeNumbers(limit))
    with graph.inserting_after(start):
        checked = graph.call_module("whole_numbers", (start,))
    start.replace_all_uses_with(checked, lambda user: user is not checked)
    for node in [node for node in graph.nodes if node.op == "call_module" and str(node.target) in wide]:
        with graph.inserting_before(node):
            node.args = (graph.call_method("double", (node.args[0],)),)
    unit = _output_unit(structure, layers)
    if unit != 1:
        operations.add_module("unit", Unit(unit))
        with graph.inserting_before(end):
            end.args = (graph.call_module("unit", (end.args[0],)),)
    operations.recompile()


def _output_unit(structure: Structure, layers: Mapping[str, LayerIntegers]) -> float:
    """What one unit of the network's output stands for."""
    (end,) = (node for node in structure.operations.graph.nodes if node.op == "output")
    group = structure.groups.get(end)
    if group is None:
        return structure.values[end].unit  # type: ignore[union-attr]
    return layers[group.layers[0].name].unit / group.window


def _stored(one: LayerIntegers, scheme: FixedPoint) -> StoredWeights:
    """How a chip stores a layer: codes, by how much they are shifted, and biases as wide as potentials."""
    bits = scheme.weight_bits
    coding = WeightCoding(bits=bits, scales=1, scale_bits=SHIFT_BITS, bias_bits=scheme.potential_bits)
    return StoredWeights(coding, torch.full((1, 1), 2.0**one.shift), torch.full((1, 1), 2.0 ** (bits - 1)))
