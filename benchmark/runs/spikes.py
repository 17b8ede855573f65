"""What compression did to spikes: layer by layer, beside the dense network's, on some of the test samples."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil, inf, isfinite
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.inference.firing import charged
from benchmark.records import NeuronSpikes, SpikeAccount
from compressors.compression import Compression
from compressors.network.layers import evaluating, find_layers, hooks
from compressors.network.neurons import filter_matrix
from hardware.neurons import is_neuron

ONE_OF = 32  # test samples; both networks run once more on it
MOST_SAMPLES = 256


class SpikeStatistics(Callback):
    """Holds a network's spikes against those of the network that it was made from, after its test.

    One of 32 test samples is looked at (of a smaller batch one), 256 at most, from all over the test part. They are
    few, so that the test takes hardly longer; and both networks run on them with nobody counting. Samples are taken on
    one device alone.

    Args:
        dense: the network as it was.
        compression: what was done to it since then.

    Attributes:
        account: what was found at the last test; None before.
    """

    def __init__(self, dense: SNNClassifier, compression: Compression) -> None:
        self.dense, self.compression = dense, compression
        self.account: SpikeAccount | None = None
        self._taken: list[Tensor] = []
        self._batch_size = 1

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keep some of the samples, ``x [B, ...]``."""
        x, _ = batch
        self._batch_size = max(self._batch_size, len(x))
        size = max(1, len(x) // ONE_OF)
        batches = sum(trainer.num_test_batches)  # of a stream nobody knows how many there will be
        every = 1 if batches == inf else ceil(batches * size / MOST_SAMPLES)
        if batch_idx % every == 0 and sum(map(len, self._taken)) < MOST_SAMPLES:
            self._taken.append(x[:size].clone())  # a view would keep the whole batch in memory

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run both networks on what was kept. Whoever counts the network's operations has let go of it by now."""
        x = torch.cat(self._taken)
        self._taken = []
        assert isinstance(pl_module, SNNClassifier)
        left = channels_left(pl_module, self.compression, x[:1])
        self.account = spike_account(self.dense.to(x.device), pl_module, x.split(self._batch_size), left)


def channels_left(compressed: SNNClassifier, compression: Compression, x: Tensor) -> dict[str, Tensor]:
    """Neurons' name -> the dense network's channels that they are, int64 ``[channels]``; of those that lost some.

    Args:
        compressed: a network that may have lost channels.
        compression: what was done to it.
        x: a sample, ``[1, ...]``.
    """
    outputs = {layer.name: layer.outputs for layer in compression.layers if layer.outputs is not None}
    if not outputs:
        return {}
    names = {module: name for name, module in compressed.named_modules()}
    with evaluating(compressed.network):
        layers = find_layers(compressed, lambda: compressed(x))
    fed = [layer for layer in layers if layer.name in outputs and layer.channel_neuron is not None]
    return {names[layer.channel_neuron]: outputs[layer.name].to(x.device) for layer in fed if layer.channel_neuron}


def spike_account(
    dense: SNNClassifier,
    compressed: SNNClassifier,
    batches: Iterable[Tensor],
    left: Mapping[str, Tensor] = MappingProxyType({}),
) -> SpikeAccount:
    """How the spikes of two networks differ on the same samples, layer by layer.

    Layers are told by their neurons' names. Where a layer has lost channels, those that are left are compared. Where
    the network has lost time steps, or a layer neurons of which nobody knows which, single spikes have no counterpart,
    and only the distributions of firing rates are compared.

    Args:
        dense: the network as it was.
        compressed: what was made of it.
        batches: samples ``[B, ...]`` as :class:`~benchmark.networks.classifier.SNNClassifier` takes them.
        left: see :func:`channels_left`.
    """
    before = dict(dense.named_modules())
    names = [name for name, module in compressed.named_modules() if is_neuron(module) and name in before]
    tallies = {name: _Tally(lru_cache(partial(_filter, before[name]))) for name in names}
    samples = 0
    for x in batches:
        samples += len(x)
        whole, own = _observed(dense, x, names), _observed(compressed, x, names)
        for name in own.keys() & whole.keys():
            tallies[name].add(whole[name].of(left.get(name)), own[name])
    accounts = (tally.account(name) for name, tally in tallies.items())
    return SpikeAccount(samples=samples, layers=tuple(account for account in accounts if account is not None))


@dataclass(frozen=True)
class _Observed:
    """What the neurons of one layer did on a batch.

    Args:
        spikes: bool ``[T, B, C, ...]``.
        potentials: the lowest and the highest before firing; None where that is not known, or not finite.
    """

    spikes: Tensor
    potentials: tuple[float, float] | None

    @property
    def fired(self) -> Tensor:
        """Spikes of each neuron: int64 ``[neurons]``."""
        return self.spikes.flatten(2).flatten(0, 1).sum(0)

    def of(self, channels: Tensor | None) -> "_Observed":
        """That of some channels alone; of all where they are None."""
        return self if channels is None else replace(self, spikes=self.spikes.index_select(2, channels))


def _observed(module: SNNClassifier, x: Tensor, names: Sequence[str]) -> dict[str, _Observed]:
    """Run a network on ``x``; layer -> what its neurons did."""
    neurons = {module.get_submodule(name): name for name in names}
    spikes: dict[str, list[Tensor]] = defaultdict(list)
    ranges: dict[str, tuple[float, float] | None] = {}

    def note(neuron: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name, steps = neurons[neuron], output if neuron.step_mode == "m" else output[None]
        potentials = charged(neuron, inputs[0]) if neuron.step_mode == "m" and name not in spikes else None
        spikes[name].append(steps != 0)
        ranges[name] = None if potentials is None else _range(potentials)

    with evaluating(module.network), hooks([*neurons], note):
        module(x)
    return {name: _Observed(torch.cat(parts), ranges[name]) for name, parts in spikes.items()}


def _filter(neuron: nn.Module, timesteps: int) -> Tensor:
    return filter_matrix(neuron, timesteps).float()


def _range(potentials: Tensor) -> tuple[float, float] | None:
    """Lowest and highest; None where they are not finite: an infinite one fires and has no range."""
    lowest, highest = float(potentials.min()), float(potentials.max())
    return (lowest, highest) if isfinite(lowest) and isfinite(highest) else None


@dataclass
class _Tally:
    """Running sums of one layer of neurons over batches.

    Args:
        over_time: for so many steps, the dense neurons' membrane filter, which makes spikes that are near in time near.
        rows: steps times samples, of the dense and of the compressed network.
        fired: spikes of each neuron, the same: int64 ``[neurons]``.
        either: neurons and steps in which either network fires; None where they have no counterpart.
        differing: those in which one of them alone does.
        energy: squared norm of the dense trains after the filter.
        distance: that of the trains' differences.
        potentials: the compressed network's.
    """

    over_time: Callable[[int], Tensor]
    rows: tuple[int, int] = (0, 0)
    fired: tuple[Tensor, Tensor] | None = None
    either: int | None = 0
    differing: int = 0
    energy: float = 0.0
    distance: float = 0.0
    potentials: tuple[float, float] | None = (inf, -inf)

    def add(self, dense: _Observed, own: _Observed) -> None:
        """One batch more."""
        fired = dense.fired.cpu(), own.fired.cpu()
        self.fired = fired if self.fired is None else (self.fired[0] + fired[0], self.fired[1] + fired[1])
        self.rows = self.rows[0] + dense.spikes.shape[:2].numel(), self.rows[1] + own.spikes.shape[:2].numel()
        if self.potentials is not None and own.potentials is not None:
            (lowest, highest), (low, high) = self.potentials, own.potentials
            self.potentials = min(lowest, low), max(highest, high)
        else:
            self.potentials = None
        if self.either is not None and dense.spikes.shape == own.spikes.shape:
            self._compare(dense.spikes.flatten(1), own.spikes.flatten(1))
        else:
            self.either = None

    def _compare(self, dense: Tensor, own: Tensor) -> None:
        """Trains ``[T, neurons]``; those that stay silent in both networks have no part in it."""
        firing = (dense | own).any(0)
        dense, own = dense[:, firing], own[:, firing]
        self.either = (self.either or 0) + int((dense | own).sum())
        self.differing += int((dense ^ own).sum())
        trains, over_time = dense.float(), self.over_time(len(dense)).to(dense.device)
        self.energy += float((over_time @ trains).square().sum())
        self.distance += float((over_time @ (own.float() - trains)).square().sum())

    def account(self, name: str) -> NeuronSpikes | None:
        """All batches together; None where the layer never ran."""
        if self.fired is None:
            return None
        dense, own = ((fired.double() / rows).numpy() for fired, rows in zip(self.fired, self.rows, strict=True))
        comparable = self.either is not None
        lowest, highest = self.potentials or (None, None)
        return NeuronSpikes(
            name=name,
            neurons=len(own),
            dead=int((own == 0).sum()),
            saturated=int((own == 1).sum()),
            mismatch=self.differing / max(1, self.either) if self.either is not None else None,
            van_rossum=self.distance / self.energy if comparable and self.energy else None,
            earth_mover=float(wasserstein_distance(dense, own)),
            lowest_potential=lowest,
            highest_potential=highest,
        )
