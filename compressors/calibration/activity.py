"""What the inputs of layers do over time, and how far a changed network's membranes and spikes are from the first's."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.func import functional_call

from compressors.calibration.hessians import all_steps, observe, unfolded
from compressors.calibration.processes import reduced, share
from compressors.network.layers import Layer, evaluating, hooks

Batches = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class Activity:
    """A layer's inputs on the calibration data, float64; all but ``rms`` are means over samples.

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
    """A forward pre-hook that adds up what :class:`Activity` is made of."""

    def __init__(self, layer: Layer) -> None:
        rows = layer.rows
        steps = torch.zeros(layer.timesteps, dtype=torch.float64, device=rows.device)
        self.layer = layer
        self.norm, self.square = steps.clone(), steps.clone()
        self.events = torch.zeros(layer.groups, rows.shape[1], dtype=torch.float64, device=rows.device)
        self.entries = 0  # of one step of one sample

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].detach().double()
        for step, x in enumerate(all_steps(self.layer, seen)):  # [B, ...]
            z = unfolded(self.layer, x).unflatten(1, (len(x), -1))  # [groups, B, positions, d]
            if step < len(seen):  # what is computed once costs once
                self.events += z.count_nonzero((1, 2))
            self.norm[step] += z.square().sum((2, 3)).amax(0).sqrt().sum()
            self.square[step] += x.square().sum()
            self.entries = x[0].numel()

    def mean(self, samples: float) -> Activity:
        """Means over all processes' samples."""
        norm, square, events = (reduced(total) / samples for total in (self.norm, self.square, self.events))
        return Activity(norm, (square / self.entries).sqrt(), events)


def activities(network: nn.Module, layers: Sequence[Layer], batches: Batches) -> dict[str, Activity]:
    """The input activity of each layer of the network as it stands, by name.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
    """
    sums = {layer.name: _ActivitySum(layer) for layer in layers}
    samples = observe(network, {layer.module: sums[layer.name] for layer in layers}, batches)
    return {name: total.mean(samples) for name, total in sums.items()}


@dataclass(frozen=True)
class Change:
    """How far a layer's output moved, a mean over samples.

    Args:
        potential: Euclidean norm of the change of the membrane potentials (after reset), a mean over steps; of the
            output current where no neuron takes it.
        spikes: share of the neuron's outputs, over neurons and steps, that differ; None without a neuron.
    """

    potential: float
    spikes: float | None


def changes(
    network: nn.Module, layers: Sequence[Layer], before: Mapping[str, Tensor], batches: Batches
) -> dict[str, Change]:
    """Run every batch with the parameters ``before`` and with those of now, and compare each layer's neuron.

    A layer's change includes what layers before it passed on.

    Args:
        network: the network as it stands.
        layers: those to look at.
        before: parameters by qualified name; those left out are as they are now.
        batches: the calibration data.
    """
    device = layers[0].module.weight.device
    totals = {layer.name: torch.zeros(2, dtype=torch.float64, device=device) for layer in layers}
    samples = torch.zeros((), dtype=torch.float64, device=device)
    with evaluating(network), _watched(layers) as seen:
        for x in share(batches()):
            first, second = (_outputs(network, parameters, x, seen) for parameters in (before, {}))
            for layer in layers:
                totals[layer.name] += len(x) * _distance(first[layer.name], second[layer.name])
            samples += len(x)
    count = reduced(samples)
    means = {layer: (reduced(totals[layer.name]) / count).tolist() for layer in layers}
    return {
        layer.name: Change(potential, spikes if layer.neuron is not None else None)
        for layer, (potential, spikes) in means.items()
    }


Seen = dict[str, tuple[Tensor, Tensor]]  # layer name -> potential and spikes, both [T, B, ...]


@contextmanager
def _watched(layers: Sequence[Layer]) -> Iterator[Seen]:
    """Potentials and spikes of the last forward pass; a layer without a neuron has its current for both."""
    seen: Seen = {}
    probes: dict[nn.Module, list[str]] = {}  # layers that are added up share a neuron
    for layer in layers:
        probes.setdefault(layer.neuron or layer.norm or layer.module, []).append(layer.name)

    def look(probe: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        potential = getattr(probe, "v_seq", None)
        seen.update(dict.fromkeys(probes[probe], (output if potential is None else potential, output)))

    neurons = {layer.neuron: layer.neuron.store_v_seq for layer in layers if layer.neuron is not None}
    for neuron in neurons:
        neuron.store_v_seq = True  # type: ignore[assignment]
    try:
        with hooks(list(probes), look):
            yield seen
    finally:
        for neuron, stored in neurons.items():
            neuron.store_v_seq = stored


def _outputs(network: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, seen: Seen) -> Seen:
    functional.reset_net(network)
    functional_call(network, dict(parameters), (x,))
    return dict(seen)


def _distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """``[2]``: mean over steps and samples of the potentials' distance, and the share of outputs that differ."""
    (u, s), (v, r) = first, second
    distance = (u - v).double().flatten(2).norm(dim=2).mean()
    return torch.stack([distance, (s != r).double().mean()])
