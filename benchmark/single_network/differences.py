"""How the spikes of networks differ from those of the network that they were made from, on the same samples."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from benchmark.networks.classifier import SNNClassifier
from compressors.network.layers import evaluating, hooks
from hardware.neurons import is_neuron

STEPS = 8  # that are looked at together: little memory, which need not be asked of the system anew


@dataclass
class Differences:
    """What a network did on some samples, beside another one.

    Args:
        samples: how many.
        correct: those that are classified right.
        spikes: by the neurons' name.
        either: neurons and steps in which one of the two networks fires, or both, by the neurons' name.
        differing: those in which only one of them does.
    """

    samples: int = 0
    correct: int = 0
    spikes: dict[str, int] = field(default_factory=dict)
    either: dict[str, int] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of the samples that are classified right."""
        return self.correct / self.samples

    @property
    def spikes_per_sample(self) -> float:
        """Spikes of all neurons."""
        return sum(self.spikes.values()) / self.samples

    @property
    def mismatch(self) -> dict[str, float]:
        """Of the spikes that either network fires, the share that only one of them does; by the neurons' name."""
        return {name: self.differing[name] / max(1, either) for name, either in self.either.items()}

    def count(self, name: str, spikes: Tensor, others: Tensor) -> None:
        """Add what the neurons of a name did, ``[T, B, ...]``, and what the other network's did there (bool)."""
        for own, other in zip(spikes.split(STEPS), others.split(STEPS), strict=True):
            fired = own != 0
            for counts, entries in (
                (self.spikes, fired),
                (self.either, fired | other),
                (self.differing, fired ^ other),
            ):
                counts[name] = counts.get(name, 0) + int(entries.sum())


def differences(
    reference: SNNClassifier, networks: Mapping[str, SNNClassifier], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Differences]:
    """Run networks of one structure on the same batches, and compare their neurons one by one.

    Args:
        reference: whose spikes the others' are held against.
        networks: by a name of their own; their neurons have the names that they have in the reference.
        batches: ``x [B, ...]`` and classes ``[B]``.

    Returns:
        What each network did; and the reference, under the name ``""``.
    """
    found = {name: Differences() for name in ("", *networks)}
    for x, y in batches:
        spikes: dict[str, Tensor] = {}
        _run(reference, x, y, found[""], spikes)
        for name, network in networks.items():
            _run(network, x, y, found[name], spikes)
    return found


def _run(module: SNNClassifier, x: Tensor, y: Tensor, found: Differences, spikes: dict[str, Tensor]) -> None:
    """Run one batch; ``spikes`` are the reference's, which gives them as it runs first."""
    names = {neuron: name for name, neuron in module.network.named_modules() if is_neuron(neuron)}

    def compare(neuron: nn.Module, inputs: Any, output: Tensor) -> None:
        name = names[neuron]
        found.count(name, output, spikes.setdefault(name, output != 0))

    with evaluating(module.network), hooks([*names], compare):
        right = module(x).argmax(1) == y
    found.samples += len(y)
    found.correct += int(right.sum())
