"""What a network computes, read as whole numbers: which layers' outputs meet in which neurons, in what unit."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair

from benchmark.networks.errors import NetworkError
from benchmark.networks.fixed_point.scheme import FixedPointError
from benchmark.networks.tracing import is_addition, traced
from hardware.layers import TRANSPARENT
from hardware.neurons import sends_binary_spikes

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, layer.Linear, layer.Conv1d, layer.Conv2d)
NEURONS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode)
MEANS = (nn.AvgPool2d, layer.AvgPool2d)
RESHAPING = (*TRANSPARENT, nn.Flatten, layer.Flatten)
MAXIMA = (nn.MaxPool2d, layer.MaxPool2d)


@dataclass(frozen=True)
class Events:
    """Whole numbers times ``unit``, known before any scale is chosen: inputs, spikes, sums of them."""

    unit: float


@dataclass(frozen=True)
class Currents:
    """What layers gave, in a unit that their scale decides: ``window`` of them were added up where a mean is meant."""

    group: "Group"
    window: int


@dataclass(eq=False)
class Group:
    """Layers whose outputs meet, and the neurons that they meet in: all of them count in one unit.

    Args:
        layers: the layers' operations.
        ends: the neurons' operations, and the network's output.
        gain: what the neurons multiply their currents by.
        window: entries whose sum stands for their mean, between layers and neurons.
    """

    layers: list["WeightedLayer"] = field(default_factory=list)
    ends: list[fx.Node] = field(default_factory=list)
    gain: float = 1.0
    window: int = 1
    joined: "Group | None" = None  # the group that this one has become a part of

    @property
    def whole(self) -> "Group":
        """The group that this one belongs to."""
        return self if self.joined is None else self.joined.whole


@dataclass(frozen=True, eq=False)
class WeightedLayer:
    """A layer with the BatchNorm that follows it folded in.

    Args:
        node: its operation.
        name: of its module.
        norm: name of the BatchNorm's module.
        input_unit: what one unit of its input stands for.
        weight: float64, the weight's shape.
        bias: float64 ``[out]``, or None.
    """

    node: fx.Node
    name: str
    norm: str | None
    input_unit: float
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Structure:
    """A network's operations, and the values and groups among them, in order of execution."""

    operations: fx.GraphModule
    values: dict[fx.Node, Events | Currents]
    groups: dict[fx.Node, Group]  # of layers, and of what they end in

    @property
    def layers(self) -> list[WeightedLayer]:
        """All layers with weights."""
        by_node = {layer.node: layer for group in set(self.groups.values()) for layer in group.layers}
        return [by_node[node] for node in self.operations.graph.nodes if node in by_node]

    @property
    def neurons(self) -> list[fx.Node]:
        """The operations of all neurons, in order of execution."""
        return [end for end in self.operations.graph.nodes if self.ends_currents(end) and end.op == "call_module"]

    def ends_currents(self, node: fx.Node) -> bool:
        """Whether an operation is a neuron, or an output of currents."""
        return node in self.groups and node in self.groups[node].ends


def read(network: nn.Module) -> Structure:
    """A network's operations, each of a kind that whole numbers do exactly.

    Raises:
        FixedPointError: one that they do not; names it.
    """
    try:
        operations = traced(network)
    except NetworkError as error:
        raise FixedPointError(str(error)) from error
    reader = _Reader(operations, {}, {})
    for node in operations.graph.nodes:
        reader.read(node)
    groups = {node: group.whole for node, group in reader.groups.items()}
    return Structure(operations, reader.values, groups)


@dataclass(frozen=True)
class _Reader:
    operations: fx.GraphModule
    values: dict[fx.Node, Events | Currents]
    groups: dict[fx.Node, Group]

    def read(self, node: fx.Node) -> None:
        match node.op:
            case "placeholder":
                self.values[node] = Events(1.0)
            case "output":
                self._end(node, 1.0)
            case "call_function" if is_addition(node) and len(node.all_input_nodes) == 2 == len(node.args):
                self.values[node] = self._sum(node)
            case "call_module":
                self.values[node] = self._module(node)
            case _:
                raise FixedPointError(
                    f"the network computes {node.target!r} ({node.format_node()}), which has no form in whole numbers"
                )

    def _sum(self, node: fx.Node) -> Events | Currents:
        one, other = (self.values[part] for part in node.all_input_nodes)
        match one, other:
            case Events(), Events() if one.unit == other.unit:
                return one
            case Currents(), Currents() if one.window == other.window:
                _join(one.group.whole, other.group.whole)
                return one
        raise FixedPointError(
            f"{node.format_node()} adds values of different units, such as spikes to currents, which has no form in "
            "whole numbers"
        )

    def _module(self, node: fx.Node) -> Events | Currents:
        module = self.operations.get_submodule(str(node.target))
        self._require_single_use(node, module)
        value = self.values[node.all_input_nodes[0]]
        if isinstance(module, RESHAPING) or type(module) in MAXIMA:
            return value
        if type(module) in MEANS:
            return self._pooled(node, module, value)
        if type(module) in NEURONS:
            return self._neuron(node, module)
        if isinstance(module, _BatchNorm):
            return self._norm(node, value)
        if type(module) in WEIGHTED:
            return self._layer(node, module, value)
        raise self._refused(node, "has no form in whole numbers")

    def _require_single_use(self, node: fx.Node, module: nn.Module) -> None:
        learnt = any(True for _ in module.parameters()) or type(module) in NEURONS
        if learnt and any(other.target == node.target for other in self.values):
            raise self._refused(node, "is used twice, and would need two scales")

    def _refused(self, node: fx.Node, why: str) -> FixedPointError:
        kind = type(self.operations.get_submodule(str(node.target))).__name__
        return FixedPointError(f"layer {str(node.target)!r} ({kind}) {why}")

    def _pooled(self, node: fx.Node, pool: Any, value: Events | Currents) -> Events | Currents:
        if pool.ceil_mode or not (pool.count_include_pad or not np.any(pool.padding)):
            raise self._refused(node, "takes means of windows of several sizes, which whole numbers do not do exactly")
        if pool.divisor_override == 1:
            return value
        if pool.divisor_override is not None:
            raise self._refused(node, "divides by a number of its own: take a mean or a sum")
        window = math.prod(_pair(pool.kernel_size))
        if window & (window - 1):
            raise self._refused(
                node,
                f"takes means of {window} entries, which whole numbers do not do exactly: take a window of 2 x 2, a "
                "maximum, or a sum",
            )
        if isinstance(value, Events):
            return Events(value.unit / window)
        return Currents(value.group, value.window * window)

    def _neuron(self, node: fx.Node, module: Any) -> Events:
        if not sends_binary_spikes(module):
            raise self._refused(node, "sends out other values than zeros and ones")
        if module.v_threshold <= (module.v_reset or 0):
            raise self._refused(node, "has a threshold that is not above where it is reset to")
        self._end(node, 1 / tau_of(module) if getattr(module, "decay_input", False) else 1.0)  # type: ignore[operator]
        return Events(1.0)

    def _end(self, node: fx.Node, gain: float) -> None:
        """Note that currents end here. Spikes end in an output as they are."""
        (source,) = node.all_input_nodes
        value = self.values[source]
        if isinstance(value, Events):
            if node.op != "output":
                raise self._refused(node, "takes spikes or inputs with no layer between, and has no unit of its own")
            self.values[node] = value
            return
        group = value.group.whole
        if group.ends and (group.gain, group.window) != (gain, value.window):
            raise FixedPointError(
                f"{node.name!r} and {group.ends[0].name!r} take the same currents by different factors, and would need "
                "two units"
            )
        group.gain, group.window = gain, value.window
        group.ends.append(node)
        self.groups[node] = group
        self.values.setdefault(node, value)

    def _norm(self, node: fx.Node, value: Events | Currents) -> Events | Currents:
        (source,) = node.all_input_nodes
        group = self.groups.get(source)
        known = next((layer for layer in group.layers if layer.node is source), None) if group else None
        module: Any = self.operations.get_submodule(str(node.target))
        if group is None or known is None or len(source.users) != 1 or module.running_var is None:
            raise self._refused(node, "does not follow a layer of its own that could take it in")
        group.layers[group.layers.index(known)] = _folded(known, str(node.target), module)
        return value

    def _layer(self, node: fx.Node, module: Any, value: Events | Currents) -> Currents:
        if isinstance(value, Currents):
            raise self._refused(node, "takes the output of another layer with no neuron between")
        if getattr(module, "padding_mode", "zeros") != "zeros":
            raise self._refused(node, f"pads with {module.padding_mode}, not zeros")
        bias = None if module.bias is None else module.bias.detach().double()
        weighted = WeightedLayer(node, str(node.target), None, value.unit, module.weight.detach().double(), bias)
        self.groups[node] = Group([weighted])
        return Currents(self.groups[node], 1)


def _join(one: Group, other: Group) -> None:
    """Make two groups one."""
    if one is other:
        return
    if one.ends and other.ends and (one.gain, one.window) != (other.gain, other.window):
        raise FixedPointError(f"{other.ends[0].name!r} takes its currents by another factor than {one.ends[0].name!r}")
    if not one.ends:
        one.gain, one.window = other.gain, other.window
    one.layers += other.layers
    one.ends += other.ends
    other.joined = one


def _folded(known: WeightedLayer, name: str, norm: Any) -> WeightedLayer:
    """The layer whose output is the BatchNorm's: ``(W x + b - mean) gain + beta``."""
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    gain = gain if norm.weight is None else gain * norm.weight.detach().double()
    bias = -norm.running_mean.double() if known.bias is None else known.bias - norm.running_mean.double()
    bias = bias * gain if norm.bias is None else bias * gain + norm.bias.detach().double()
    weight = known.weight * gain.view(-1, *[1] * (known.weight.ndim - 1))
    return WeightedLayer(known.node, known.name, name, known.input_unit, weight, bias)


def tau_of(module: Any) -> float | None:
    """The membrane time constant of a neuron in steps; None: it does not leak."""
    if isinstance(module, neuron.ParametricLIFNode):
        return 1 / float(torch.sigmoid(module.w.detach()))
    return float(module.tau) if isinstance(module, neuron.LIFNode) else None
