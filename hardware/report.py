"""What a network costs, as numbers: plain frozen data, JSON-able, with integers that stay Python integers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import sqrt
from typing import Any

from hardware.memory import best_format

SCHEMA = 1


@dataclass(frozen=True)
class LayerCost:
    """Cost of one weighted layer, summed over the test set where not said otherwise.

    Args:
        name: qualified module name.
        kind: the operation (linear, conv2d, conv_transpose2d, ...), or the module's class if never called.
        weight_shape: shape of the weight.
        input_shape: input of one step of one sample, without batch and time.
        output_shape: output of one step of one sample.
        fan_in: weights per output entry, zeros included.
        fan_out: output channels a weight's input can reach times taps, zeros included.
        weights: number of weights.
        nonzero: number of weights that are not zero.
        bits: bits per weight.
        side_bits: bits of scale factors, zero points and code books.
        calls: number of forward calls; 0: never called.
        inputs: values the layer received: silent, spikes, ternary, graded, scaled or real.
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
    weights: int
    nonzero: int
    bits: int
    side_bits: int
    calls: int
    inputs: str
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
        return self.nonzero / self.weights

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
        """Weights in the best format with their index, and scales."""
        return self.memory_bits[self.best_format] + self.side_bits


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
class CostReport:
    """Cost of a network on a test set.

    Args:
        samples: number of samples counted.
        timesteps: time steps per sample.
        layers: weighted layers, in order of first call; layers never called come last.
        neurons: spiking neuron layers, in order of first call.
        sample_std: population standard deviation of the synaptic operations of a sample.
        sample_max: synaptic operations of the most expensive sample.
    """

    samples: int
    timesteps: int
    layers: tuple[LayerCost, ...]
    neurons: tuple[NeuronCost, ...]
    sample_std: float
    sample_max: int
    schema: int = field(default=SCHEMA)

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
        """Weights, index and scales in each layer's best format, in bits."""
        return sum(layer.stored_bits for layer in self.layers)

    @property
    def state_bits(self) -> int:
        """Neuron state of one sample, in bits."""
        return sum(layer.state_bits for layer in self.neurons)

    @property
    def total_bits(self) -> int:
        """Stored weights and neuron state, in bits."""
        return self.stored_bits + self.state_bits

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
            "weight_bits": float(self.weight_bits),
            "stored_bits": float(self.stored_bits),
            "total_bits": float(self.total_bits),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CostReport":
        """Rebuild a report from `to_dict`, or from that after a round trip through JSON.

        Raises:
            ValueError: if the data have another schema version.
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(f"cost report of schema {data.get('schema')!r}: this version reads {SCHEMA}")
        return cls(
            **{
                **data,
                "layers": tuple(_rebuild(LayerCost, layer) for layer in data["layers"]),
                "neurons": tuple(_rebuild(NeuronCost, layer) for layer in data["neurons"]),
            }
        )


def _rebuild(kind: type, data: Mapping[str, Any]) -> Any:
    """Build a dataclass from a dict, lists turned back into tuples."""
    values = {f.name: data[f.name] for f in fields(kind)}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def spread(count: int, total: int, squares: int, largest: int) -> tuple[float, float, int]:
    """Mean, population standard deviation and maximum from exact sums over `count` samples."""
    if not count:
        return 0.0, 0.0, 0
    return total / count, sqrt(max(0, count * squares - total * total)) / count, largest
