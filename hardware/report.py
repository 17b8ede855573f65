"""What a network costs, as numbers: plain frozen data, JSON-able, with integers that stay Python integers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any

from hardware.memory import best_format, entropy_bound_bits

SCHEMA = 1


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer that multiplies, summed over the test set where not said otherwise.

    A layer has a weight, or is the product of two activations (kind `product`, attention), which has none.

    Args:
        name: qualified module name.
        kind: the operation (linear, conv2d, conv_transpose2d, ...), or the module's class if never called.
        weight_shape: shape of the weight.
        input_shape: input of one step of one sample, without batch and time.
        output_shape: output of one step of one sample.
        fan_in: weights per output entry, zeros included, borders aside.
        fan_out: weights per input entry, zeros included, borders and stride aside.
        synapses: connections if each is stored by itself, as chips without weight sharing do, zeros excluded.
        weights: number of weights.
        nonzero: number of weights that are not zero.
        bits: bits per weight.
        side_bits: bits of scale factors, zero points and code books.
        bias_bits: bits of biases and of the BatchNorm that follows, folded into bias and (quantized) scale.
        calls: number of forward calls; 0: never called.
        inputs: values the layer received: silent, spikes, ternary, graded, scaled or real.
        input_bits: bits of one entry in a buffer of these values.
        input_entries: entries received, zeros included.
        input_events: nonzero entries received.
        ac: accumulates: (event, nonzero weight) pairs if the inputs are spikes of any kind, else 0.
        ac_by_value: as `ac`, but an event of integer value v counts |v| times.
        mac: multiply-accumulates: the same pairs if the inputs are real-valued, else 0.
        dense: pairs if each entry were an event and each weight present (padding excluded).
        synops_per_step: ac + mac of each time step.
        sample_mean: mean of ac + mac per sample.
        sample_std: population standard deviation of the same over samples.
        sample_max: largest of the same.
        memory_bits: weight bits per format, index bits included, `side_bits` excluded.
    """

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    synapses: int
    weights: int
    nonzero: int
    bits: int
    side_bits: int
    bias_bits: int
    calls: int
    inputs: str
    input_bits: int
    input_entries: int
    input_events: int
    ac: int
    ac_by_value: int
    mac: int
    dense: int
    synops_per_step: tuple[int, ...]
    sample_mean: float
    sample_std: float
    sample_max: int
    memory_bits: Mapping[str, int]

    @property
    def synops(self) -> int:
        """Accumulates and multiply-accumulates together."""
        return self.ac + self.mac

    @property
    def density(self) -> float:
        """Share of the weights that are not zero."""
        return self.nonzero / self.weights if self.weights else 1.0

    @property
    def called(self) -> bool:
        """Whether the layer took part in the forward pass."""
        return self.calls > 0

    @property
    def best_format(self) -> str:
        """The smallest memory format."""
        return best_format(self.memory_bits)

    @property
    def weight_bits(self) -> int:
        """Nonzero weights times their width: the papers' convention, no index, no scales."""
        return self.nonzero * self.bits

    @property
    def stored_bits(self) -> int:
        """Weights in the best format with their index, scales and biases."""
        return self.memory_bits[self.best_format] + self.side_bits + self.bias_bits

    @property
    def bound_bits(self) -> float:
        """Entropy bound N H(d) + n log2(2^b - 1) on the weights: how far a format can go."""
        return entropy_bound_bits(self.weights, self.nonzero, self.bits)

    @property
    def event_rate(self) -> float:
        """Share of the received entries that are events."""
        return self.input_events / self.input_entries if self.input_entries else 0.0

    @property
    def buffer_bits(self) -> int:
        """Bits of one step of this layer's input for one sample."""
        return prod(self.input_shape) * self.input_bits if self.weights else 0


@dataclass(frozen=True)
class NeuronCost:
    """Activity and state of one spiking neuron layer, summed over the test set where not said otherwise.

    Args:
        name: qualified module name.
        kind: class of the neuron.
        neurons: neurons for one sample.
        states: state variables per neuron.
        state_bits: bits of all state for one sample (batch size 1).
        updates: neuron updates, one per neuron, step and sample.
        spikes: nonzero outputs.
    """

    name: str
    kind: str
    neurons: int
    states: int
    state_bits: int
    updates: int
    spikes: int

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and step."""
        return self.spikes / self.updates if self.updates else 0.0


@dataclass(frozen=True)
class OtherCost:
    """Operations that are no synaptic operations, counted apart.

    Args:
        name: qualified module name.
        kind: avg_pool2d, max_pool2d, ... (event, window) pairs; addition: positions where two activations
            meet that are both nonzero; batch_norm: entries normalised.
        operations: summed over the test set.
        parameter_bits: bits of a BatchNorm that follows no layer it could be folded into.
    """

    name: str
    kind: str
    operations: int
    parameter_bits: int


@dataclass(frozen=True)
class CostReport:
    """Cost of a network on a test set.

    Args:
        samples: number of samples counted.
        timesteps: time steps per sample.
        layers: weighted layers, in order of first call; layers never called come last.
        neurons: spiking neuron layers, in order of first call.
        others: pooling, additions and normalisation.
        uncounted: "module: what" for what ran and could not be counted: a function that multiplies inside, a
            neuron of an unknown kind, the state or the spikes of a neuron that hides them.
        sample_std: population standard deviation of the synaptic operations of a sample.
        sample_max: synaptic operations of the most expensive sample.
        off_grid: names of layers that are counted as floats although they were quantised once: their weights were
            changed since then.
    """

    samples: int
    timesteps: int
    layers: tuple[LayerCost, ...]
    neurons: tuple[NeuronCost, ...]
    others: tuple[OtherCost, ...]
    uncounted: tuple[str, ...]
    sample_std: float
    sample_max: int
    schema: int = SCHEMA
    off_grid: tuple[str, ...] = ()

    @property
    def ac(self) -> int:
        """Accumulates over the test set."""
        return sum(layer.ac for layer in self.layers)

    @property
    def mac(self) -> int:
        """Multiply-accumulates over the test set."""
        return sum(layer.mac for layer in self.layers)

    @property
    def synops(self) -> int:
        """Synaptic operations over the test set: ac + mac."""
        return self.ac + self.mac

    @property
    def dense(self) -> int:
        """Operations over the test set if each entry were an event and each weight present."""
        return sum(layer.dense for layer in self.layers)

    @property
    def synops_per_sample(self) -> float:
        """Synaptic operations per sample (all steps)."""
        return self.synops / self.samples

    @property
    def spikes_per_sample(self) -> float:
        """Spikes per sample (all neurons, all steps)."""
        return sum(layer.spikes for layer in self.neurons) / self.samples

    @property
    def weight_bits(self) -> int:
        """Nonzero weights times their width, in bits: the papers' convention."""
        return sum(layer.weight_bits for layer in self.layers)

    @property
    def stored_bits(self) -> int:
        """Weights and index in each layer's best format, scales, biases and normalisation, in bits."""
        return sum(layer.stored_bits for layer in self.layers) + sum(o.parameter_bits for o in self.others)

    @property
    def format_bits(self) -> dict[str, int]:
        """Bits of all weights if the whole network uses one format; only formats that hold every layer."""
        layers = [layer.memory_bits for layer in self.layers if layer.weights]
        shared = set.intersection(*map(set, layers)) if layers else set()
        return {name: sum(layer[name] for layer in layers) for name in sorted(shared)}

    @property
    def bound_bits(self) -> float:
        """Entropy bound on all weights, in bits."""
        return sum(layer.bound_bits for layer in self.layers)

    @property
    def state_bits(self) -> int:
        """Neuron state of one sample, in bits."""
        return sum(layer.state_bits for layer in self.neurons)

    @property
    def total_bits(self) -> int:
        """Stored weights and neuron state, in bits."""
        return self.stored_bits + self.state_bits

    @property
    def buffer_bits(self) -> int:
        """Largest buffer of one step between two layers, for one sample, in bits."""
        return max((layer.buffer_bits for layer in self.layers), default=0)

    @property
    def synops_per_step(self) -> tuple[int, ...]:
        """ac + mac of all layers and samples in each time step; a layer that runs once does so in the first."""
        steps = [layer.synops_per_step for layer in self.layers]
        return tuple(sum(layer[t] for layer in steps if t < len(layer)) for t in range(self.timesteps))

    @property
    def steps_used(self) -> int:
        """Time steps in which any sample caused a synaptic operation."""
        return sum(synops > 0 for synops in self.synops_per_step)

    @property
    def pipeline_steps(self) -> int:
        """Steps from the first input to the last output where each neuron layer adds a step of delay."""
        return self.timesteps + max(0, len(self.neurons) - 1)

    @property
    def uncalled(self) -> tuple[str, ...]:
        """Names of the weighted layers that no forward pass reached."""
        return tuple(layer.name for layer in self.layers if not layer.called)

    def totals(self) -> dict[str, float]:
        """The numbers a logger wants, per sample or in bits, with stable names."""
        return {
            "synops": self.synops / self.samples,
            "synops_ac": self.ac / self.samples,
            "synops_mac": self.mac / self.samples,
            "synops_dense": self.dense / self.samples,
            "spikes": self.spikes_per_sample,
            "neuron_updates": sum(layer.updates for layer in self.neurons) / self.samples,
            "weight_bits": float(self.weight_bits),
            "stored_bits": float(self.stored_bits),
            "total_bits": float(self.total_bits),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers; `off_grid` only where there are such layers."""
        parts = {name: tuple(map(_as_dict, getattr(self, name))) for name in ("layers", "neurons", "others")}
        content = _as_dict(self) | parts
        if not self.off_grid:
            del content["off_grid"]
        return content

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CostReport":
        """Rebuild a report from `to_dict`, or from that after a round trip through JSON.

        Raises:
            ValueError: if the data have another schema version.
        """
        check_schema(data)
        return cls(
            **{
                **data,
                "layers": tuple(_rebuild(LayerCost, layer) for layer in data["layers"]),
                "neurons": tuple(_rebuild(NeuronCost, layer) for layer in data["neurons"]),
                "others": tuple(_rebuild(OtherCost, other) for other in data["others"]),
                "uncounted": tuple(data["uncounted"]),
                "off_grid": tuple(data.get("off_grid", ())),
            }
        )


def _as_dict(part: Any) -> dict[str, Any]:
    """A dataclass of numbers, words, tuples and mappings as a dict: what `asdict` gives, at a tenth of its time."""
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(part).items()}


def check_schema(data: Mapping[str, Any]) -> None:
    """Refuse what :meth:`CostReport.to_dict` gave in a version with other fields.

    Raises:
        ValueError: names both schemas.
    """
    if data.get("schema") != SCHEMA:
        raise ValueError(f"cost report of schema {data.get('schema')!r}: this version reads {SCHEMA}")


def _rebuild(kind: type, data: Mapping[str, Any]) -> Any:
    """Build a dataclass from a dict, lists turned back into tuples."""
    values = {f.name: data[f.name] for f in fields(kind)}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
