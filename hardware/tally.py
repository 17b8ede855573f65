"""Running sums of what each layer did: Python integers, exact at any size, mergeable across processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from hardware.synops import ValueRange


@dataclass
class SampleSums:
    """Exact first and second moments of a per-sample count.

    The samples of one batch come in parts (one call per step, layers called twice), so they are gathered
    in `batch` and become moments when the batch is closed.
    """

    samples: int = 0
    total: int = 0
    squares: int = 0
    largest: int = 0
    batch: Tensor | None = None

    def add(self, counts: Tensor) -> None:
        """Add int64 [B] to the samples of the open batch."""
        self.batch = counts if self.batch is None else self.batch + counts

    def close_batch(self, size: int) -> None:
        """Turn the open batch of `size` samples into moments; a layer that stayed uncalled counts zeros."""
        counts = [0] * size if self.batch is None else self.batch.tolist()
        self.samples += size
        self.total += sum(counts)
        self.squares += sum(count * count for count in counts)
        self.largest = max(self.largest, *counts)
        self.batch = None

    def merge(self, other: "SampleSums") -> None:
        """Add the samples of another process."""
        self.samples += other.samples
        self.total += other.total
        self.squares += other.squares
        self.largest = max(self.largest, other.largest)


@dataclass
class LayerTally:
    """Running sums of one weighted layer; the names are those of `LayerCost`."""

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    nonzero: int
    fan_in: int
    fan_out: int
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    calls: int = 0
    input_entries: int = 0
    input_events: int = 0
    synops: int = 0
    synops_by_value: float = 0.0
    dense: int = 0
    values: ValueRange = field(default_factory=ValueRange)
    per_step: list[int] = field(default_factory=list)
    per_sample: SampleSums = field(default_factory=SampleSums)
    batch_calls: int = 0

    def add_steps(self, synops: Tensor) -> None:
        """Add int64 [steps, B]; single-step calls of one batch are taken as consecutive steps."""
        first = self.batch_calls if len(synops) == 1 else 0
        add_at(self.per_step, first, synops.sum(1).tolist())
        self.per_sample.add(synops.sum(0))
        self.batch_calls += 1

    def close_batch(self, size: int) -> None:
        """Finish a batch of `size` samples."""
        self.per_sample.close_batch(size)
        self.batch_calls = 0

    def merge(self, other: "LayerTally") -> None:
        """Add the sums of another process."""
        self.calls += other.calls
        self.input_entries += other.input_entries
        self.input_events += other.input_events
        self.synops += other.synops
        self.synops_by_value += other.synops_by_value
        self.dense += other.dense
        self.values |= other.values
        add_at(self.per_step, 0, other.per_step)
        self.per_sample.merge(other.per_sample)


@dataclass
class NeuronTally:
    """Running sums of one neuron layer; the names are those of `NeuronCost`."""

    name: str
    kind: str
    neurons: int = 0
    states: int = 0
    updates: int = 0
    spikes: int = 0

    def merge(self, other: "NeuronTally") -> None:
        """Add the sums of another process."""
        self.updates += other.updates
        self.spikes += other.spikes


@dataclass
class NetworkTally:
    """Running sums of a whole network, keyed by layer name in order of first call."""

    layers: dict[str, LayerTally] = field(default_factory=dict)
    neurons: dict[str, NeuronTally] = field(default_factory=dict)
    per_sample: SampleSums = field(default_factory=SampleSums)

    def close_batch(self, size: int) -> None:
        """Finish a batch of `size` samples in all layers."""
        for layer in self.layers.values():
            if layer.per_sample.batch is not None:
                self.per_sample.add(layer.per_sample.batch)
            layer.close_batch(size)
        self.per_sample.close_batch(size)

    def merge(self, other: "NetworkTally") -> None:
        """Add the sums of another process; a layer only one process has called is taken over."""
        for name, layer in other.layers.items():
            if name in self.layers:
                self.layers[name].merge(layer)
            else:
                self.layers[name] = layer
        for name, neuron in other.neurons.items():
            if name in self.neurons:
                self.neurons[name].merge(neuron)
            else:
                self.neurons[name] = neuron
        self.per_sample.merge(other.per_sample)


def add_at(sums: list[int], first: int, values: Sequence[int]) -> None:
    """Add `values` onto `sums` from index `first` on, growing the list as needed."""
    sums.extend([0] * (first + len(values) - len(sums)))
    for offset, value in enumerate(values):
        sums[first + offset] += value


def split_steps(counts: Tensor, lead: Sequence[int], batch_size: int, name: str) -> Tensor:
    """Bring counts of one call into [steps, B].

    Args:
        counts: int64 [prod(lead)], one count per input row.
        lead: leading dimensions of the input: [B], [T, B], [T * B] or, for linear layers on tokens,
            [B, N], [T, B, N], [T * B, N]; time comes before batch.
        batch_size: B.
        name: layer name for the error.

    Raises:
        ValueError: if the rows cannot be shared among the samples.
    """
    folds = 2 if len(lead) > 1 and lead[1] == batch_size else 1
    rows = prod(lead[:folds])
    if rows % batch_size:
        raise ValueError(
            f"layer {name!r} received input with leading dimensions {tuple(lead)}, which {batch_size} "
            f"samples cannot share: time and batch must come first, as [T, B, ...] or [T * B, ...]"
        )
    return counts.view(rows // batch_size, batch_size, -1).sum(-1)
