"""QP-SNN: weights on a rescaled grid, channels pruned by the rank of their spike maps."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer

from compressors.annotations import Share
from compressors.budget import Budget, BudgetError
from compressors.calibration.network import Network
from compressors.channels.criteria import (
    SINGULAR_VALUE,
    Measure,
    channel_means,
    group_scores,
    mean_potential,
    spike_map_rank,
)
from compressors.channels.pruner import (
    ChannelPruner,
    ChannelPrunerState,
    averages,
    bundles_of,
    by_rank,
    channels_of,
    epochs_of,
    narrowed,
    relative,
    untouched,
)
from compressors.channels.surgery import Cut, cut_to, removal_order
from compressors.channels.tracing import Bundle, Channels
from compressors.compression import LayerCompression
from compressors.network.layers import Layer, LayerError
from compressors.options import require_known
from compressors.quantization.grids import SCOPES
from compressors.quantization.rescaw import GAMMAS, GRADIENTS, ReScaW
from compressors.weights.latent import LatentTraining

QUANTIZE, PRUNE = "quantize", "prune"
ORDERS = {"quantize-prune": (QUANTIZE, PRUNE), "prune-quantize": (PRUNE, QUANTIZE)}
CRITERIA: dict[str, Measure] = {
    "svs": partial(spike_map_rank, tolerance=SINGULAR_VALUE),
    "svs-library": partial(spike_map_rank, tolerance=None),
    "sca": mean_potential,
}
SHARES = {"uniform": by_rank, "global": relative}
FLOAT_BITS = 32
_KNOWN: dict[str, Collection[str]] = {
    "gamma": GAMMAS,
    "per": SCOPES,
    "gradient": GRADIENTS,
    "criterion": CRITERIA,
    "share": SHARES,
    "order": ORDERS,
}


@dataclass
class QPSNNState(ChannelPrunerState):
    """As of every channel pruner, and where in its order of steps QP-SNN is.

    Args:
        steps: those that are still to be taken.
        second_epoch: epoch in which the second step is due; 0 takes both at once.
    """

    steps: tuple[str, ...] = ()
    second_epoch: int = 0


class QPSNN(LatentTraining, ChannelPruner):
    """Rounds weights to a grid rescaled to them (ReScaW), and takes out channels whose spike maps have low rank (SVS).

    Wei and others, "QP-SNN: Quantized and Pruned Spiking Neural Networks" (ICLR 2025, arXiv 2502.05905), from the text
    of its anonymous submission. Taken from it: the quantiser, the criterion, the order (quantised training, one-shot
    pruning, quantised fine-tuning), the first and last layer in full precision. Reconstructed: how a density is shared
    between layers (the paper sets a ratio for each by hand: ``ratios``); hidden linear layers, which the paper leaves
    alone (exclude them to do the same); channels that meet in a sum, judged by their mean score; BatchNorm and bias
    are kept with their channels, where the published code begins them anew; what the reversed order does first, and
    for how long. The quantised training is that of the fine-tuning: it starts from the same dense network as all
    other methods do.

    Training sees rounded weights. Their gradient reaches the weights behind them, which the optimizer updates.

    Args:
        density: share of the weights of the included layers left after the cut.
        bits: width of a weight, 2 to 8; None does not quantise.
        gamma: rescaling by ``mean`` or ``max`` magnitude, a ``percentile``, or ``none`` (the plain quantiser).
        per: one gamma for each output ``channel`` (published code) or for the whole ``tensor`` (as the paper reads).
        gradient: straight through where ``|W| <= gamma`` (``masked``, the paper), or ``1/gamma`` everywhere
            (``scaled``, published code).
        quantize_ends: quantise the first and the last layer of the network too.
        criterion: ``svs`` (rank of time-averaged spike maps: singular values above 1e-6), ``svs-library`` (above the
            library's relative default, as in the published code) or ``sca`` (mean membrane potential, the baseline).
        share: a density takes the same share of every layer (``uniform``), or the channels with the least score in
            units of their layer's mean, wherever they are (``global``).
        ratios: instead of a density: pattern of layer names -> share of the channels to take out.
        order: ``quantize-prune`` (the paper's), or ``prune-quantize``. When fine-tuned, the second step is taken after
            ``first_share`` of the epochs; without fine-tuning both are taken at once.
        first_share: 0 to 1; 2/3 as in the paper (300 epochs, then 150).

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    budgets: ClassVar[tuple[str, ...]] = ("density", "density+bits", "bits")

    gamma: str = "mean"
    per: str = "channel"
    gradient: str = "masked"
    quantize_ends: bool = False
    criterion: str = "svs"
    share: str = "uniform"
    ratios: Mapping[str, float] = field(default_factory=dict, hash=False)
    order: str = "quantize-prune"
    first_share: Share = 2 / 3
    state: QPSNNState = field(default_factory=QPSNNState, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in _KNOWN.items():
            require_known(name, getattr(self, name), known)
        self._set("ratios", _checked(self.ratios or {}, self.density))
        wanted = {QUANTIZE: self.bits is not None, PRUNE: self.density < 1 or bool(self.ratios)}
        self.state.steps = tuple(step for step in ORDERS[self.order] if wanted[step])

    @property
    def idle(self) -> bool:
        """Whether neither a budget nor ratios are given, and nothing else is to be done."""
        return self.goal == Budget() and not self.ratios and not self.aftercare

    @cached_property
    def quantizer(self) -> ReScaW:
        """How weights are rounded; without a width none are, and it is never asked."""
        return ReScaW(self.bits or FLOAT_BITS, self.gamma, self.per, self.gradient)

    @property
    def stage(self) -> str:
        """What the network is now, for people."""
        names: dict[tuple[str, ...], str] = {(PRUNE,): "rounded", (QUANTIZE,): "narrow"}
        return names.get(self.state.steps, str(self.goal))

    # The steps -------------------------------------------------------------------------------------------------------

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Take the next step, or all where there is no training between them; leaves rounded weights in place."""
        steps = self.state.steps
        due = steps[:1] if self.state.second_epoch else steps
        self.state.steps = steps[len(due) :]
        channels = channels_of(network)
        entries = untouched(network) if self.compression is None else self.compression.layers
        for step in due:
            if step == QUANTIZE:
                self.latent.rules = dict.fromkeys(self._to_quantize(channels, network), self.quantizer)
            else:
                entries = self._prune(network, channels)
            self.latent.put(network.module)
        sizes = {layer.name: self._paper_bits(layer) for layer in network.layers}
        return tuple(self.account(replace(entry, extra={"paper_bits": sizes[entry.name]})) for entry in entries)

    def _to_quantize(self, channels: Channels, network: Network) -> tuple[str, ...]:
        every = list(channels.layers)
        ends = () if self.quantize_ends else (every[0], every[-1])
        return tuple(layer.name for layer in network.layers if layer.name not in ends)

    def _prune(self, network: Network, channels: Channels) -> tuple[LayerCompression, ...]:
        """Judge channels with rounded weights in place, where there are any, and cut the weights behind them."""
        bundles = bundles_of(network, channels)
        cuttable = {name for bundle in bundles for name in bundle.layers}
        judged = [layer for layer in network.layers if layer.name in cuttable]
        means = channel_means(network.module, judged, CRITERIA[self.criterion], network.calibration)
        wanted = self._choose(network, channels, bundles, group_scores(channels, bundles, means))
        self.latent.take(network.module)
        return narrowed(network, wanted)

    def _choose(
        self, network: Network, channels: Channels, bundles: Sequence[Bundle], scores: Mapping[int, float]
    ) -> Cut:
        if self.ratios:
            return Cut(channels, frozenset(_by_ratio(self.ratios, bundles, scores)))
        order = removal_order(bundles, SHARES[self.share](bundles, scores))
        return cut_to(channels, order, [layer.name for layer in network.layers], self.goal.density)

    def account(self, entry: LayerCompression) -> LayerCompression:
        """The account of a layer with its grid and codes, where it is quantised."""
        behind = self.latent.kept.get(entry.name)
        if behind is None:
            return entry
        grid = self.quantizer.grid(behind)
        return replace(entry, grid=grid, codes=grid.codes(behind.flatten(1)).view_as(behind))

    def _paper_bits(self, layer: Layer) -> int:
        """A layer's size as the paper counts it: no scales, index or neuron state; bias and BatchNorm as floats."""
        bits = self.goal.bits if layer.name in self.latent.rules else None
        floats = [layer.module.bias]
        floats += [] if layer.norm is None else [layer.norm.weight, layer.norm.bias]
        others = sum(tensor.numel() for tensor in floats if tensor is not None)
        return (bits or FLOAT_BITS) * layer.module.weight.numel() + FLOAT_BITS * others

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out when the second step is due, and take the first."""
        if stage == "fit" and len(self.state.steps) == 2:
            epochs = epochs_of(trainer)
            self.state.second_epoch = max(0, min(round(self.first_share * epochs), epochs - 1))
        if self.state.second_epoch and self.state.steps[1] == PRUNE and (trainer.world_size > 1 or averages(trainer)):
            raise LayerError(
                "QP-SNN prunes in the middle of training, when replicas and running averages of the network cannot be "
                "narrowed: use one device and no callback that averages weights, or order='prune-quantize'"
            )
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the second step when it is due."""
        if self.state.steps and trainer.current_epoch >= self.state.second_epoch:
            self.state.second_epoch = 0
            self.compress_now(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The account, the weights behind the rounded ones, and what is still to be done."""
        return super().state_dict() | {"rounded": list(self.latent.rules), "steps": list(self.state.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(state_dict)
        self.latent.rules = dict.fromkeys(state_dict["rounded"], self.quantizer)
        self.state.steps = tuple(state_dict["steps"])


def _checked(ratios: Mapping[str, float], density: float) -> dict[str, float]:
    if ratios and density < 1:
        raise BudgetError("density and ratios both say how much is pruned: give one of them")
    for pattern, ratio in ratios.items():
        if not 0 <= ratio < 1:
            raise BudgetError(
                f"the ratio of {pattern!r} is {ratio!r}: give the share of channels to take out, from 0 to below 1"
            )
    return dict(ratios)


def _by_ratio(ratios: Mapping[str, float], bundles: Iterable[Bundle], scores: Mapping[int, float]) -> list[int]:
    """The groups that go: the lowest of each bundle, as many as the first pattern of one of its layers says,
    widths rounded down (as the published sizes tell).

    Raises:
        LayerError: a pattern that matches no layer that can lose channels.
    """
    bundles = list(bundles)
    cuttable = [name for bundle in bundles for name in bundle.layers]
    for pattern in ratios:
        if not any(fnmatchcase(name, pattern) for name in cuttable):
            raise LayerError(
                f"the pattern {pattern!r} of ratios matches no layer that can lose channels: {', '.join(cuttable)}"
            )
    gone: list[int] = []
    for bundle in bundles:
        own = [ratio for pattern, ratio in ratios.items() if any(fnmatchcase(name, pattern) for name in bundle.layers)]
        ranked = sorted(bundle.groups.tolist(), key=lambda group: scores[group])
        kept = max(1, math.floor((1 - own[0]) * len(ranked) + 1e-9)) if own else len(ranked)
        gone += ranked[: len(ranked) - kept]
    return gone
