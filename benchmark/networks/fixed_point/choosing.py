"""In what unit each group of layers and neurons counts: chosen on calibration data, one group after the other.

A neuron's potential, threshold and bias count in one unit ``U``. The weights of a layer are codes of few bits, shifted
to the left: a code is worth ``2^shift`` units. Few bits of a weight and many of a potential go together that way.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, fx, nn

from benchmark.networks.fixed_point.neurons import IntegerNeuron
from benchmark.networks.fixed_point.reading import Events, Group, Structure, WeightedLayer, tau_of
from benchmark.networks.fixed_point.scheme import EXACT_FLOAT32, LARGEST_CURRENT, FixedPoint, FixedPointError, Leak
from compressors.network.neurons import charged, storing_potentials
from compressors.quantization.grids import fit_grid
from hardware.storage import StoredWeights

SHRINKING = (1.0, 0.8, 1.25)  # of the weights' step that fits them best
FINEST = 8  # bits that a weight is shifted by at most: a finer unit changes no spike that counts
MARGIN = 1.25  # beyond the largest potential seen, where a potential that leaves its range comes back at the other end


@dataclass(frozen=True)
class LayerIntegers:
    """A layer's whole numbers.

    Args:
        codes: int64, the weight's shape, of the scheme's width.
        shift: a code is worth so many bits more in units of the potential.
        bias: int64 ``[out]`` in units of the potential, or None.
        step: what one code stands for in the network that this one was made from.
        unit: what one unit of the layer's output stands for there.
        potential_unit: what one unit of the potential stands for that takes the output, or of the network's output.
        window: entries whose sum stands for their mean, between the layer and what takes its output.
    """

    codes: Tensor
    shift: int
    bias: Tensor | None
    step: float
    unit: float
    potential_unit: float
    window: int

    @property
    def weight(self) -> Tensor:
        """The weights in units of the potential: int64."""
        return self.codes << self.shift

    def in_sums(self, factor: float) -> "LayerIntegers":
        """The same where pools add up and do not take means, and a unit stands for ``factor`` times as much."""
        unit = self.unit / self.window * factor
        return replace(self, step=unit * 2.0**self.shift, unit=unit, window=1)


@dataclass(frozen=True)
class NeuronIntegers:
    """A layer of neurons' whole numbers.

    Args:
        threshold: in units of the potential.
        unit: what one of them stands for in the network that this one was made from.
        leak: from step to step.
        asked: the share of a potential that the neuron keeps there.
        gain: what it multiplies its currents by there.
        reset: where it is reset to there; None: it loses its threshold.
    """

    threshold: int
    unit: float
    leak: Leak
    asked: float
    gain: float
    reset: float | None

    def neuron(self, scheme: FixedPoint) -> IntegerNeuron:
        """The neurons."""
        return IntegerNeuron(self.threshold, self.reset is None, self.leak, scheme, self.unit)


@dataclass(frozen=True)
class Choice:
    """A group's unit.

    Args:
        unit: what one unit of the potential stands for.
        shifts: of the layers.
    """

    unit: float
    shifts: Mapping[WeightedLayer, int]

    def integers(self, group: Group, layer: WeightedLayer, scheme: FixedPoint) -> LayerIntegers:
        """A layer's whole numbers, the nearest ones."""
        unit = self.unit * group.window / group.gain
        shift = self.shifts[layer]
        step = unit * 2**shift / layer.input_unit
        half = 2 ** (scheme.weight_bits - 1)
        codes = (layer.weight / step).round().clamp(-half, half - 1).long()
        bias = None
        if layer.bias is not None:
            bias = (layer.bias / unit).round().clamp(scheme.lowest, scheme.highest).long()
        return LayerIntegers(codes, shift, bias, step, unit, self.unit, group.window)


@dataclass
class Choosing:
    """Runs the network and its whole numbers side by side on calibration data, and chooses units on the way.

    Args:
        structure: the network.
        whole: its operations over modules of which those that have been chosen compute with whole numbers.
        scheme: the widths.
        stored: the grids that layers' weights lie on, by name.
        magnitudes: the largest of each layer's input, by name.
    """

    structure: Structure
    whole: fx.GraphModule
    scheme: FixedPoint
    stored: Mapping[str, StoredWeights]
    magnitudes: Mapping[str, int]

    def run(self, x: Tensor) -> dict[Group, Choice]:
        """The choice for every group, on calibration inputs ``x [T, B, ...]``; sets the modules of ``whole``."""
        functional.reset_net(self.structure.operations)
        self.events: dict[fx.Node, Tensor] = {}  # of the whole numbers
        choices: dict[Group, Choice] = {}
        dense: dict[fx.Node, Tensor] = {}
        last = {source: node for node in self.structure.operations.graph.nodes for source in node.all_input_nodes}
        for node in self.structure.operations.graph.nodes:
            group = self.structure.groups.get(node)
            if node.op == "placeholder":
                dense[node] = self.events[node] = x
            elif self.structure.ends_currents(node) and group is not None:
                self._end(node, group, dense, choices)
            elif node.op != "output":
                dense[node] = _computed(self.structure.operations, node, dense)
                if isinstance(self.structure.values[node], Events):
                    self.events[node] = self._whole(node)
            for source in node.all_input_nodes:
                if last[source] is node:
                    del dense[source]
        return choices

    def _end(self, node: fx.Node, group: Group, dense: dict[fx.Node, Tensor], choices: dict[Group, Choice]) -> None:
        """Choose the group's unit where its first neuron is reached, or the output."""
        (source,) = node.all_input_nodes
        if node.op == "output":
            if group not in choices:
                choices[group] = self._best(group, None, dense[source], float(dense[source].abs().max()))
            return
        module: Any = self.structure.operations.get_submodule(str(node.target))
        with storing_potentials([module]):
            dense[node] = module(dense[source])
            largest = float((charged(module, dense[source]) - (module.v_reset or 0)).abs().max())
        functional.reset_net(module)
        if group not in choices:
            choices[group] = self._best(group, node, dense[node], largest)
        integers = neuron_integers(module, choices[group].unit, self.scheme)
        self.whole.set_submodule(str(node.target), integers.neuron(self.scheme))
        self.events[node] = self._whole(node)

    def _whole(self, node: fx.Node) -> Tensor:
        """What an operation over whole numbers gives; of currents, which are not kept, anew."""
        if node in self.events:
            return self.events[node]
        values = {source: self._whole(source) for source in node.all_input_nodes}
        value = _computed(self.whole, node, values)
        functional.reset_net(self.whole)
        return value

    def _best(self, group: Group, node: fx.Node | None, wanted: Tensor, largest: float) -> Choice:
        """The candidate whose spikes (or outputs, where there is no neuron) differ least from the network's."""
        end: Any = node or group.ends[0]
        best, least = None, math.inf
        for candidate in self._candidates(group, node, largest):
            self._set(group, candidate)
            currents = self._whole(end.all_input_nodes[0])
            if node is None:
                error = float((currents.double() * candidate.unit * group.window - wanted).square().mean())
            else:
                module = self.structure.operations.get_submodule(str(node.target))
                spikes = neuron_integers(module, candidate.unit, self.scheme).neuron(self.scheme)(currents)
                error = spikes_apart(spikes, wanted)
            if error < least or best is None:
                best, least = candidate, error
        assert best is not None  # there is always a candidate
        self._set(group, best)
        return best

    def _set(self, group: Group, choice: Choice) -> None:
        for layer in group.layers:
            set_integers(
                self.whole.get_submodule(layer.name), choice.integers(group, layer, self.scheme), torch.float32
            )

    def _candidates(self, group: Group, node: fx.Node | None, largest: float) -> Iterator[Choice]:
        """Steps of the weights near the one that fits them best, with as fine a unit as the potential has room for.

        Raises:
            FixedPointError: 32 bits do not hold the sums of even the coarsest ones.
        """
        threshold = None
        if node is not None:
            module: Any = self.structure.operations.get_submodule(str(node.target))
            threshold = module.v_threshold - (module.v_reset or 0)
        largest = max(largest, threshold or 0.0) * (MARGIN if self.scheme.overflow == "wrap" else 1.0)
        coarsest = largest / (self.scheme.highest - 1)  # the finest unit in which no potential seen leaves its range
        steps = {layer: self._step(layer) * layer.input_unit * group.gain / group.window for layer in group.layers}
        finest = min(steps.values())
        exact = sum(map(self._largest_current, group.layers)) * group.gain / (0.9 * EXACT_FLOAT32)
        if exact * EXACT_FLOAT32 / LARGEST_CURRENT > finest:
            raise FixedPointError(
                f"layer {group.layers[0].name!r} may sum up more than whole numbers hold here exactly: give fewer "
                "weight bits, or smaller inputs"
            )
        kept = all(layer.name in self.stored and layer.norm is None for layer in group.layers)
        for unit in self._units(finest, coarsest, exact, (1.0,) if kept else SHRINKING):
            if threshold is not None and (not kept or unit > finest):  # let the threshold be a whole number of units
                unit = threshold / min(max(1, round(threshold / unit)), self.scheme.highest)
            yield Choice(unit, {layer: max(0, round(math.log2(step / unit))) for layer, step in steps.items()})

    def _largest_current(self, layer: WeightedLayer) -> float:
        """What no sum of the layer's products can exceed, in the network's own unit."""
        bias = 0.0 if layer.bias is None else float(layer.bias.abs().max())
        sums = layer.weight.abs().flatten(1).sum(1).max()
        return float(sums) * layer.input_unit * self.magnitudes[layer.name] + bias

    def _units(self, finest: float, coarsest: float, exact: float, shrinking: tuple[float, ...]) -> Iterator[float]:
        """Units for weights whose ``finest`` step fits best.

        From ``coarsest`` on no potential seen leaves its range, and from ``exact`` on float32 holds every sum.
        """
        if coarsest <= finest:
            for factor in shrinking:
                room = math.floor(math.log2(max(1.0, finest * factor / max(coarsest, exact))))
                yield finest * factor / 2 ** min(FINEST, room)
        else:
            yield coarsest
            if self.scheme.overflow == "saturate":
                yield from (finest ** (1 - share) * coarsest**share for share in (0.75, 0.5, 0.25, 0.0))

    def _step(self, layer: WeightedLayer) -> float:
        """The step between two codes that fits a layer's weights best: that of the grid they lie on, if they do."""
        stored = self.stored.get(layer.name)
        if stored is not None and layer.norm is None:
            return float(stored.scale)
        rows = layer.weight.flatten(1)
        return float(fit_grid(rows, self.scheme.weight_bits, per="tensor", mask=rows != 0).scale)


def neuron_integers(module: Any, unit: float, scheme: FixedPoint) -> NeuronIntegers:
    """A neuron's whole numbers in a unit."""
    tau = tau_of(module)
    threshold = round((module.v_threshold - (module.v_reset or 0)) / unit)
    return NeuronIntegers(
        threshold=min(max(1, threshold), scheme.highest),
        unit=unit,
        leak=scheme.leak_of(tau),
        asked=1.0 if tau is None else 1 - 1 / tau,
        gain=1 / tau if tau is not None and module.decay_input else 1.0,
        reset=module.v_reset,
    )


def spikes_apart(spikes: Tensor, others: Tensor) -> float:
    """How many more or fewer spikes ``[T, ...]`` there were up to each step: a mean.

    One that comes a step late costs little, one that does not come at all much. Compared step by step, silence would do
    better than many spikes that are late.
    """
    return float((spikes - others).cumsum(0).abs().double().mean())


def set_integers(module: Any, integers: LayerIntegers, dtype: torch.dtype) -> None:
    """Put a layer's whole numbers in the place of its weights."""
    device = module.weight.device
    module.weight = nn.Parameter(integers.weight.to(device, dtype), requires_grad=False)
    if integers.bias is not None:
        module.bias = nn.Parameter(integers.bias.to(device, dtype), requires_grad=False)


def _computed(operations: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Tensor]) -> Tensor:
    """One operation on the values of its inputs."""
    arguments = fx.node.map_arg(node.args, lambda source: values[source])
    if node.op == "call_module":
        return operations.get_submodule(str(node.target))(*arguments)
    assert callable(node.target)
    return node.target(*arguments)
