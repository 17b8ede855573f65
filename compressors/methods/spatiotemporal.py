"""Spatio-temporal pruning: layers as wide as their principal components, then fewer time steps, then fewer bits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from compressors.annotations import Part, Seed
from compressors.budget import Budget, BudgetError
from compressors.calibration.network import Network
from compressors.channels.criteria import measured_layers
from compressors.channels.principal import READINGS, covariances, spanning_order, unexplained
from compressors.channels.pruner import ChannelPruner, bundles_of, by_rank, channels_of, epochs_of, narrowed, untouched
from compressors.channels.surgery import Cut, cut_to, removal_order
from compressors.channels.tracing import Bundle, Channels
from compressors.compression import LayerCompression
from compressors.network.anew import begin_anew
from compressors.network.layers import LayerError
from compressors.network.leaks import make_leaks_trainable
from compressors.options import require_known
from compressors.quantization.grids import fit_grid
from compressors.weights.schedule import round_at

EXACT = 1e-12  # shares of variance are compared with this much room for rounding


class SpatioTemporal(ChannelPruner):
    """Makes layers as wide as the principal components of their potentials, lowers T while training, rounds weights.

    Chowdhury, Garg, Roy, "Spatio-Temporal Pruning and Quantization for Low-latency Spiking Neural Networks" (IJCNN
    2021, arXiv 2104.12528), from its abstract, and from the PCA method of the same group (arXiv 1812.06224) whose code
    is public. Reconstructed: which quantity "the average accumulated membrane potential" is (``reading``); the share of
    variance (0.999 in the older method); that a thin network begins anew (``weights="new"``, as the older method does:
    the components fix widths, and choose no channels); keeping channels instead, those that span the most variance;
    widths from a density, by one share of variance for all layers; channels that meet in a sum, as wide as the widest
    of their layers needs; steps, their epochs and the one optimizer of all stages; the grid (symmetric, one for each
    layer, over the whole range). Thresholds need no training of their own: BatchNorm's factor, or the weights', does
    what they would.

    Args:
        density: share of the weights of the included layers left after the cut.
        bits: width of a weight, 2 to 8, rounded after all training; None does not quantise.
        variance: instead of a density: the share of variance that the channels of each layer are to explain.
        reading: ``current`` (a neuron's input, mean over time), ``charge`` (its potential before firing, mean over
            time), or ``integrated`` (what the whole input leaves in it when it cannot fire, per step).
        authors_count: count components as the authors' code does, one less than are needed.
        widths: from principal components (``pca``), or the same share of every layer (``uniform``, the control).
        weights: ``kept`` with their channels, or begun anew (``new``; needs fine-tuning).
        timesteps: T of each stage of the fine-tuning, falling, such as (5, 4, 3, 2, 1); each has its equal part of the
            epochs. Without fine-tuning the last is taken at once. Event frames are added up to as many.
        learn_leaks: train the leak of every LIF neuron along (they become parametric LIF neurons).
        seed: of new weights.

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    budgets: ClassVar[tuple[str, ...]] = ("density", "density+bits", "bits")
    version = 2

    variance: Part | None = None
    reading: str = "current"
    authors_count: bool = False
    widths: str = "pca"
    weights: str = "kept"
    timesteps: Sequence[int] = ()
    learn_leaks: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("timesteps", tuple(self.timesteps))
        require_known("reading", self.reading, READINGS)
        require_known("widths", self.widths, ("pca", "uniform"))
        require_known("weights", self.weights, ("kept", "new"))
        _check_variance(self.variance, self.density, self.widths)
        _check_timesteps(self.timesteps)

    @property
    def idle(self) -> bool:
        """Whether no budget of weights, of variance or of time steps is given, and nothing else is to be done."""
        asked = self.variance is not None or self.timesteps or self.weights == "new" or self.learn_leaks
        return self.goal == Budget() and not asked and not self.aftercare

    @property
    def stage(self) -> str:
        """What the fit is at, for people: the budget, and T where it falls."""
        done = 0 if self.compression is None else len(self.compression.stages)
        steps = [f"T={self.timesteps[min(done, len(self.timesteps) - 1)]}"] if self.timesteps else []
        return ", ".join(filter(None, [str(self.goal), *steps]))

    # Widths ----------------------------------------------------------------------------------------------------------

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Cut the layers to their widths; round what is left, unless it is to be trained first."""
        entries = untouched(network)
        if self.variance is not None or self.goal.density < 1:
            covariance_of = covariances(network.module, network.layers, READINGS[self.reading], network.calibration)
            entries = narrowed(network, self._cut(network, covariance_of))
        if self.weights == "new":
            begin_anew(network.module, self.seed)
        if epochs_of(network.module.trainer):
            return entries
        return tuple(self._rounded(entry, network.module) for entry in entries)

    def _cut(self, network: Network, covariance_of: Mapping[str, Tensor]) -> Cut:
        channels = channels_of(network)
        bundles = bundles_of(network, channels)
        keys: dict[int, float] = {}
        for bundle in bundles:
            keys |= variance_keys(channels, bundle, covariance_of, authors_count=self.authors_count)
        if self.widths == "uniform":
            keys = by_rank(bundles, keys)
        order = removal_order(bundles, keys)
        if self.variance is None:
            return cut_to(channels, order, [layer.name for layer in network.layers], self.goal.density)
        return Cut(channels, frozenset(group for group in order if keys[group] <= 1 - self.variance + EXACT))

    def _rounded(self, entry: LayerCompression, module: LightningModule) -> LayerCompression:
        """Round a layer's weight in place to a grid of its own, if bits are limited."""
        if self.goal.bits is None:
            return entry
        weight = module.get_parameter(f"{entry.name}.weight")
        if entry.grid is not None and torch.equal(weight, entry.weight()):
            return entry
        rows = weight.detach().flatten(1)
        grid = fit_grid(rows, self.goal.bits, per="tensor", search=False)
        entry = replace(entry, grid=grid, codes=grid.codes(rows).view_as(weight))
        with torch.no_grad():
            weight.copy_(entry.weight())
        return entry

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be, then calibrate and cut, at the T that the network was trained with."""
        epochs = epochs_of(trainer)
        if stage == "fit" and self.weights == "new" and not epochs:
            raise BudgetError("weights='new' needs epochs of fine-tuning: a network begun anew knows nothing")
        if stage == "fit" and 0 < epochs < len(self.timesteps):
            raise BudgetError(f"{len(self.timesteps)} stages of timesteps need as many epochs, and there are {epochs}")
        if self.timesteps and not isinstance(getattr(pl_module, "timesteps", None), int):
            raise LayerError(f"{type(pl_module).__name__} has no attribute `timesteps` to lower: leave out timesteps")
        if stage == "fit" and self.learn_leaks:
            make_leaks_trainable(pl_module)
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.timesteps and not epochs:
            set_timesteps(pl_module, self.timesteps[-1])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the stage of this epoch."""
        if self.timesteps:
            set_timesteps(pl_module, self.timesteps[self._stage_of(trainer, trainer.current_epoch)])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down what a stage ends with."""
        epoch = trainer.current_epoch
        going_on = epoch + 1 < epochs_of(trainer) and self._stage_of(trainer, epoch) == self._stage_of(
            trainer, epoch + 1
        )
        if going_on or not self.timesteps:
            return
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        reached = {"timesteps": pl_module.timesteps, "epochs": epoch + 1, **measured}
        self.state.compression = replace(self.done(), stages=(*self.done().stages, reached))

    def _stage_of(self, trainer: Trainer, epoch: int) -> int:
        return round_at(epoch, epochs_of(trainer), len(self.timesteps))

    def settle(self, module: LightningModule) -> None:
        """Round the weights, now that they are trained."""
        layers = tuple(self._rounded(entry, module) for entry in self.done().layers)
        self.state.compression = replace(self.done(), layers=layers)


def variance_keys(
    channels: Channels, bundle: Bundle, covariance_of: Mapping[str, Tensor], *, authors_count: bool = False
) -> dict[int, float]:
    """What share of the variance is left unexplained before each group of a bundle is in, in the order they come in.

    The groups come in so that each spans the most variance that those before it leave; how much as many *principal
    components* would leave is the key. So the groups with a key above ``1 - threshold`` are as many as components are
    needed for that threshold.

    Args:
        channels: of the network.
        bundle: the layers to look at together: what one of them leaves unexplained counts.
        covariance_of: covariances ``[C, C]`` by layer name.
        authors_count: what is left with the group in.

    Raises:
        LayerError: no layer of the bundle has a covariance.
    """
    groups = bundle.groups
    names = measured_layers(bundle, covariance_of)
    left = torch.zeros(len(groups) + 1, dtype=torch.float64)
    together = torch.zeros(len(groups), len(groups), dtype=torch.float64)
    for name in names:
        covariance = covariance_of[name].cpu()
        own = unexplained(covariance)
        places = torch.arange(len(groups) + 1) * len(covariance) // len(groups)
        left = torch.maximum(left, own[places])
        member = (channels.layers[name].outputs == groups[:, None]).to(covariance)  # [groups, C]
        together += member @ covariance @ member.T / covariance.diagonal().sum().clamp_min(EXACT)
    later = int(authors_count)
    return {
        int(groups[place]): float(left[position + later]) for position, place in enumerate(spanning_order(together))
    }


def set_timesteps(module: Any, timesteps: int) -> None:
    """T from now on."""
    module.timesteps = timesteps


def _check_variance(variance: float | None, density: float, widths: str) -> None:
    if variance is None:
        return
    if density < 1:
        raise BudgetError("density and variance both fix the widths: give one of them")
    if widths == "uniform":
        raise BudgetError("uniform widths follow from a density: leave out variance")


def _check_timesteps(timesteps: Sequence[int]) -> None:
    if any(after >= before for before, after in pairwise((*timesteps, 0))):
        raise BudgetError(f"timesteps is {list(timesteps)!r}: give falling whole numbers, such as [5, 3, 1]")
