"""The base class of channel pruning: which channels are removed, and when in a fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.utils.hooks import RemovableHandle

from compressors.base import Compressor, State
from compressors.calibration.network import Network
from compressors.channels.surgery import Cut, cut, set_shapes
from compressors.channels.tracing import Bundle, Channels, find_channels
from compressors.compression import LayerCompression
from compressors.masks import Masks
from compressors.network.layers import LayerError


@dataclass
class ChannelPrunerState(State):
    """As of every compressor, and the hook by which a checkpoint that is loaded brings its own widths."""

    widths_hook: RemovableHandle | None = None


class ChannelPruner(Compressor):
    """Base of the methods that remove whole channels: the network ends with narrower plain layers, and no masks.

    The network is cut in ``setup("fit")``, before optimizers and DDP take hold of its parameters. The density is the
    fraction of the included layers' weights that is left. The cut network has no more weights than that, and fewer by
    less than one channel; every layer keeps one channel at least. Layers that are excluded keep their outputs, and lose
    the inputs that other layers no longer give them.
    """

    structured = True
    state: ChannelPrunerState = field(default_factory=ChannelPrunerState, init=False, compare=False, repr=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Calibrate and cut, on the device of the fit; a checkpoint loaded later may bring widths of its own."""
        if stage != "fit" or self.compression is not None:
            return
        before = trainer.callbacks[: trainer.callbacks.index(self)]  # type: ignore[attr-defined]
        if early := [callback for callback in averages(trainer) if callback in before]:
            name = type(early[0]).__name__
            raise LayerError(f"{name} copies the network before it is narrowed: list it after {type(self).__name__}")
        pl_module.to(trainer.strategy.root_device)
        self.compress_now(trainer, pl_module)

        def take_widths(module: torch.nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
            set_shapes(module, {name: value.shape for name, value in state.items()})

        self.state.widths_hook = pl_module.register_load_state_dict_pre_hook(take_widths)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A checkpoint to resume from has been loaded by now."""
        self._remove_widths_hook()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hook off the module, whatever ended the fit."""
        self._remove_widths_hook()

    def _remove_widths_hook(self) -> None:
        if self.state.widths_hook is not None:
            self.state.widths_hook.remove()
            self.state.widths_hook = None

    def held_masks(self) -> Masks:
        """There are no masks to enforce: pruned channels are no longer there."""
        return {}


def averages(trainer: Trainer) -> list[Callback]:
    """The callbacks that keep a running average of the network's weights, and write it into the network at the end."""
    return [
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging)
    ]


def epochs_of(trainer: Trainer) -> int:
    """Epochs of a fit; 0 for a post-training method, and where a fit is limited by steps."""
    return max(trainer.max_epochs or 0, 0)


def channels_of(network: Network) -> Channels:
    """Which channels of a network belong together, traced with a sample of the calibration data.

    Raises:
        LayerError: layers share a weight, and would have to keep the same channels.
    """
    sample = next(network.calibration())[:1]
    channels = find_channels(network.module, lambda: network.module(sample))
    seen: dict[int, str] = {}
    for name in channels.layers:
        other = seen.setdefault(id(network.module.get_submodule(name).weight), name)
        if other != name:
            raise LayerError(
                f"layers {other!r} and {name!r} share one weight, so their channels cannot be taken out: give each a "
                "weight of its own, or take a method that removes single weights"
            )
    return channels


def bundles_of(network: Network, channels: Channels) -> list[Bundle]:
    """The layers that can be narrowed: bundles all of whose layers are to be compressed.

    Raises:
        LayerError: none of the layers can lose channels; says of each why.
    """
    names = {layer.name for layer in network.layers}
    bundles = [bundle for bundle in channels.bundles() if names.issuperset(bundle.layers)]
    if not bundles:
        tied = next((bundle for bundle in channels.bundles() if names.intersection(bundle.layers)), None)
        if tied is None:
            raise LayerError(
                f"no layer can lose channels: {channels.why_fixed(names)}; take a method that removes single weights"
            )
        raise LayerError(f"the channels of {', '.join(tied.layers)} go together: include all of these layers, or none")
    return bundles


def by_rank(bundles: Sequence[Bundle], scores: Mapping[int, float]) -> dict[int, float]:
    """Keys by which every bundle loses the same fraction, lowest scores first: ranks in the bundle, in (0, 1)."""
    keys: dict[int, float] = {}
    for bundle in bundles:
        ranked = sorted(bundle.groups.tolist(), key=lambda group: scores[group])
        keys |= {group: (rank + 0.5) / len(ranked) for rank, group in enumerate(ranked)}
    return keys


def relative(bundles: Sequence[Bundle], scores: Mapping[int, float]) -> dict[int, float]:
    """Keys that compare the channels of all layers: each score over the mean of its bundle (zeros stay zeros)."""
    keys: dict[int, float] = {}
    for bundle in bundles:
        groups = bundle.groups.tolist()
        mean = sum(scores[group] for group in groups) / len(groups)
        keys |= {group: scores[group] / mean if mean > 0 else 0.0 for group in groups}
    return keys


def narrowed(network: Network, planned: Cut) -> tuple[LayerCompression, ...]:
    """Cut a network and the state of its optimizers; the account of each of its layers."""
    dense = {layer.name: tuple(layer.module.weight.shape) for layer in network.layers}
    outputs = {name: planned.kept(entry.outputs).nonzero().flatten() for name, entry in planned.channels.layers.items()}
    cut(network.module, planned, network.module.trainer.optimizers)
    return tuple(
        replace(entry, before=dense[entry.name], outputs=outputs[entry.name].to(entry.mask.device))
        for entry in untouched(network)
    )


def untouched(network: Network) -> tuple[LayerCompression, ...]:
    """The account of layers all of whose weights are kept."""
    weights = {layer.name: layer.module.weight for layer in network.layers}
    return tuple(
        LayerCompression(name, tuple(weight.shape), torch.ones_like(weight, dtype=torch.bool))
        for name, weight in weights.items()
    )
