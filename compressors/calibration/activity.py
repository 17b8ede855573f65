"""How active the inputs of layers are over time, and how far a change of weights moves potentials and spikes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.func import functional_call

from compressors.calibration.hessians import all_steps, observe, unfolded, whole_passes
from compressors.calibration.processes import Batches, batches_of_rank, summed_over_ranks
from compressors.network.layers import Layer, evaluating, hooks
from compressors.network.neurons import storing_potentials


@dataclass(frozen=True)
class Activity:
    """Statistics of a layer's inputs on the calibration data, float64; all but ``rms`` are means over samples.

    Args:
        norm: ``[T]``, Frobenius norm of the unfolded input at each step (of a grouped convolution's busiest group).
        rms: ``[T]``, root mean square of the input's entries at each step, over samples and entries.
        events: ``[groups, d]``, nonzero inputs that meet each column of the weight, over all steps and positions: the
            synaptic operations that one weight of that column costs a sample.
    """

    norm: Tensor
    rms: Tensor
    events: Tensor

    def synops(self, rows: int) -> Tensor:
        """Synaptic operations a sample that each weight costs while it is there: ``[rows, d]``."""
        return self.events.repeat_interleave(rows // len(self.events), dim=0)


class _ActivitySum:
    """Adds up the sums of which :class:`Activity` holds the means."""

    def __init__(self, layer: Layer) -> None:
        rows = layer.rows
        steps = torch.zeros(layer.timesteps, dtype=torch.float64, device=rows.device)
        self.norm, self.square = steps.clone(), steps.clone()
        self.events = torch.zeros(layer.groups, rows.shape[1], dtype=torch.float64, device=rows.device)
        self.entries = 0  # of one step of one sample

    def add(self, layer: Layer, inputs: Tensor) -> None:
        """Add an input ``[T, B, ...]`` of the layer."""
        frames = inputs.detach().double()
        if frames.ndim == 2:
            frames = frames[None]  # behind a mean over time: what a single step has
        for step, x in enumerate(all_steps(layer, frames)):  # [B, ...]
            z = unfolded(layer, x).unflatten(1, (len(x), -1))  # [groups, B, positions, d]
            if step < len(frames):  # a single frame that all steps repeat is computed once, and costs once
                self.events += z.count_nonzero((1, 2))
            self.norm[step] += z.square().sum((2, 3)).amax(0).sqrt().sum()
            self.square[step] += x.square().sum()
            self.entries = x[0].numel()

    def mean(self, samples: float) -> Activity:
        """Means over the samples of all ranks, of which there are ``samples``."""
        norm, square, events = (summed_over_ranks(total) / samples for total in (self.norm, self.square, self.events))
        return Activity(norm, (square / self.entries).sqrt(), events)


def activities(network: nn.Module, layers: Sequence[Layer], batches: Batches) -> dict[str, Activity]:
    """The input activity of each layer of the network with its present weights, by layer name.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
    """
    sums = {layer.name: _ActivitySum(layer) for layer in layers}
    watched = {module: hook for layer in layers for module, hook in whole_passes(layer, sums[layer.name].add).items()}
    samples = observe(network, watched, batches)
    return {name: total.mean(samples) for name, total in sums.items()}


@dataclass(frozen=True)
class Change:
    """How far a change of weights moved the output of a layer, a mean over samples.

    Args:
        potential: Euclidean norm of the change of the membrane potentials (after reset), a mean over steps; of the
            output current where no neuron takes it.
        spikes: fraction of the neuron's outputs, over neurons and steps, that differ; None without a neuron.
    """

    potential: float
    spikes: float | None


def changes(
    network: nn.Module, layers: Sequence[Layer], before: Mapping[str, Tensor], batches: Batches
) -> dict[str, Change]:
    """Run every batch with the parameters ``before`` and with the present ones, and compare each layer's neuron.

    A layer's change includes the changes of the layers before it that reach it.

    Args:
        network: the network with its present parameters.
        layers: those to compare.
        before: earlier parameters by qualified name; those left out did not change.
        batches: the calibration data.

    Returns:
        The changes by layer name.
    """
    device = layers[0].module.weight.device
    totals = {layer.name: torch.zeros(2, dtype=torch.float64, device=device) for layer in layers}
    samples = torch.zeros((), dtype=torch.float64, device=device)
    with evaluating(network), _recording(layers) as record:
        for x in batches_of_rank(batches()):
            earlier, present = (_run(network, parameters, x, record) for parameters in (before, {}))
            for layer in layers:
                totals[layer.name] += len(x) * _distance(earlier[layer.name], present[layer.name])
            samples += len(x)
    count = summed_over_ranks(samples)
    means = {layer: (summed_over_ranks(totals[layer.name]) / count).tolist() for layer in layers}
    return {
        layer.name: Change(potential, spikes if layer.neuron is not None else None)
        for layer, (potential, spikes) in means.items()
    }


Record = dict[str, tuple[Tensor, Tensor]]  # layer name -> potentials and spikes, both [T, B, ...]


@contextmanager
def _recording(layers: Sequence[Layer]) -> Iterator[Record]:
    """Potentials and spikes in the last forward pass; of a layer without a neuron, its output current for both."""
    record: Record = {}
    sources: dict[nn.Module, list[str]] = {}  # layers whose outputs are added up share a neuron
    for layer in layers:
        sources.setdefault(layer.neuron or layer.norm or layer.module, []).append(layer.name)

    def take(source: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        potential = getattr(source, "v_seq", None)
        record.update(dict.fromkeys(sources[source], (output if potential is None else potential, output)))

    neurons = {layer.neuron for layer in layers if layer.neuron is not None}
    with storing_potentials(neurons), hooks(list(sources), take):
        yield record


def _run(network: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, record: Record) -> Record:
    """What a batch leaves in the record, with ``parameters`` in place of the network's own."""
    functional.reset_net(network)
    functional_call(network, dict(parameters), (x,))
    return dict(record)


def _distance(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> Tensor:
    """``[2]``: mean over steps and samples of the potentials' distance, and the fraction of outputs that differ."""
    moved = (before[0] - after[0]).double()
    potentials = moved[None] if moved.ndim == 2 else moved.flatten(2)  # behind a mean over time there is one step
    return torch.stack([potentials.norm(dim=2).mean(), (before[1] != after[1]).double().mean()])
