"""Running sums of what each layer did: Python integers, exact at any size, mergeable across processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

from torch import Tensor

from hardware.memory import Mask
from hardware.synops import ValueRange


@dataclass
class SampleSums:
    """Exact first and second moments of a per-sample count.

    The samples of one batch come in parts (one call per step, layers called twice), so they are gathered
    in `batch` and become moments when the batch is closed.
    """

    total: int = 0
    squares: int = 0
    largest: int = 0
    batch: Tensor | None = None

    def add(self, counts: Tensor) -> None:
        """Add int64 [B] to the samples of the open batch."""
        self.batch = counts if self.batch is None else self.batch + counts

    def close_batch(self) -> None:
        """Turn the open batch into moments; without one its samples counted zeros, which change no sum."""
        counts = [] if self.batch is None else self.batch.tolist()
        self.total += sum(counts)
        self.squares += sum(count * count for count in counts)
        self.largest = max(self.largest, *counts, 0)
        self.batch = None

    def merge(self, other: "SampleSums") -> None:
        """Add the samples of another process."""
        self.total += other.total
        self.squares += other.squares
        self.largest = max(self.largest, other.largest)

    def mean(self, samples: int) -> float:
        """Mean over `samples` samples."""
        return self.total / samples

    def deviation(self, samples: int) -> float:
        """Population standard deviation over `samples` samples."""
        return sqrt(samples * self.squares - self.total**2) / samples


@dataclass
class LayerTally:
    """Running sums of one layer that multiplies; names that are those of `report.LayerCost` mean what they do there."""

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    weight_key: tuple[Any, ...] = ()  # tells weights of one module apart (`trace.Tracer`)
    shared: bool = False  # another layer stores the weight
    fan_in: int = 0
    fan_out: int = 0
    mask: Mask | None = None
    biases: int = 0
    norm_channels: int = 0
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    synapses: int = 0
    calls: int = 0
    input_entries: int = 0
    input_events: int = 0
    synops: int = 0
    synops_by_value: int = 0
    dense: int = 0
    values: ValueRange = field(default_factory=ValueRange)
    other_values: ValueRange | None = None
    per_step: list[int] = field(default_factory=list)
    per_sample: SampleSums = field(default_factory=SampleSums)
    batch_calls: int = 0

    def add_steps(self, synops: Tensor) -> None:
        """Add int64 [steps, B]; single-step calls of one batch are taken as consecutive steps."""
        first = self.batch_calls if len(synops) == 1 else 0
        steps = synops.sum(1).tolist()
        add_at(self.per_step, first, steps)
        self.synops += sum(steps)
        self.per_sample.add(synops.sum(0))
        self.batch_calls += 1
        self.calls += 1

    def close_batch(self) -> None:
        """Finish a batch."""
        self.per_sample.close_batch()
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
        if self.other_values is not None and other.other_values is not None:
            self.other_values |= other.other_values
        add_at(self.per_step, 0, other.per_step)
        self.per_sample.merge(other.per_sample)


@dataclass
class NeuronTally:
    """Running sums of one neuron layer; the names are those of `report.NeuronCost`."""

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
class OtherTally:
    """Running sums of pooling, additions and normalisation; the names are those of `report.OtherCost`."""

    name: str
    kind: str
    parameters: int = 0
    operations: int = 0

    def merge(self, other: "OtherTally") -> None:
        """Add the sums of another process."""
        self.operations += other.operations


@dataclass
class NetworkTally:
    """Running sums of a whole network, keyed by name in order of first call."""

    samples: int = 0
    layers: dict[str, LayerTally] = field(default_factory=dict)
    neurons: dict[str, NeuronTally] = field(default_factory=dict)
    others: dict[str, OtherTally] = field(default_factory=dict)
    uncounted: dict[str, None] = field(default_factory=dict)  # an ordered set
    stored: dict[str, str] = field(default_factory=dict)  # parameter -> the layer or module whose memory has it
    per_sample: SampleSums = field(default_factory=SampleSums)

    def close_batch(self, size: int) -> None:
        """Finish a batch of `size` samples in all layers."""
        self.samples += size
        for layer in self.layers.values():
            if layer.per_sample.batch is not None:
                self.per_sample.add(layer.per_sample.batch)
            layer.close_batch()
        self.per_sample.close_batch()

    def merge(self, other: "NetworkTally") -> None:
        """Add the sums of another process."""
        self.samples += other.samples
        _merge_each(self.layers, other.layers)
        _merge_each(self.neurons, other.neurons)
        _merge_each(self.others, other.others)
        self.uncounted |= other.uncounted
        self.stored = other.stored | self.stored
        self.per_sample.merge(other.per_sample)


def _merge_each(mine: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Merge entry by entry; one that only another process has is taken over."""
    for name, tally in others.items():
        if name in mine:
            mine[name].merge(tally)
        else:
            mine[name] = tally


def add_at(sums: list[int], first: int, values: Sequence[int]) -> None:
    """Add `values` onto `sums` from index `first` on, growing the list as needed."""
    sums.extend([0] * (first + len(values) - len(sums)))
    for offset, value in enumerate(values):
        sums[first + offset] += value


def split_steps(counts: Tensor, lead: Sequence[int], batch_size: int, name: str, steps: int | None = None) -> Tensor:
    """Bring counts of one call into [steps, B].

    Args:
        counts: int64 [prod(lead)], one count per input row.
        lead: leading dimensions of the input, time before batch: [B], [T, B], [T * B] or, for layers on
            tokens, [B, N], [T, B, N], [T * B, N].
        batch_size: B.
        name: layer name for the error.
        steps: T, where it is known: tells [T, B, ...] from [T * B, N, ...] where there are as many tokens as samples.

    Raises:
        ValueError: if the rows cannot be shared among the samples.
    """
    rows = prod(lead[: folds_of(lead, batch_size, steps)])
    if rows % batch_size:
        raise ValueError(
            f"layer {name!r} received input with leading dimensions {tuple(lead)}, which {batch_size} "
            f"samples cannot share: time and batch must come first, as [T, B, ...] or [T * B, ...]"
        )
    return counts.view(rows // batch_size, batch_size, -1).sum(-1)


def folds_of(lead: Sequence[int], batch_size: int, steps: int | None) -> int:
    """How many of the leading dimensions are time and batch: 1 or 2."""
    if len(lead) < 2 or lead[1] != batch_size:
        return 1
    tokens = steps is not None and lead[0] == steps * batch_size != steps
    return 1 if tokens else 2
