"""A network with the calibration data to look at it with: what a compressor gets to work on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from compressors.calibration.hessians import CalibrationError
from compressors.network.layers import Layer, LayerError, find_layers, matches, select
from compressors.progress import Note, Track, unnoted


@dataclass(frozen=True)
class Network:
    """What a compressor gets to work on.

    Args:
        module: the network's LightningModule.
        layers: those to compress, in order of execution.
        calibration: yields batches of x (without labels) on the module's device, in a fixed order; may be called again.
        track: shows the progress of work on a sequence of items.
        note: is told figures of the work, step by step.
    """

    module: LightningModule
    layers: Sequence[Layer]
    calibration: Callable[[], Iterator[Tensor]]
    track: Track
    note: Note = unnoted


def open_network(
    module: LightningModule,
    loader: Iterable[Any],
    include: Sequence[str],
    exclude: Sequence[str],
    track: Track,
    description: str,
) -> Network:
    """Find the layers to compress by running one calibration sample through the network.

    Args:
        module: the network's LightningModule.
        loader: yields batches ``(x, ...)``, ``x [B, ...]`` as the module's forward pass takes it.
        include: shell patterns of the names of layers to compress.
        exclude: shell patterns of the names of layers to leave alone.
        track: shows the progress of a pass over the calibration data.
        description: of such a pass, for people.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
        LayerError: no layer to compress, one with weights that are not finite, or one whose use depends on the data.
    """

    batches = partial(inputs, module, loader, track, description)
    first = next(batches(), None)
    if first is None:
        raise CalibrationError("the calibration set is empty: ask for at least one sample")
    layers = _layers_of(module, first[:1], include, exclude)
    for layer in layers:
        if not torch.isfinite(layer.rows).all():
            raise LayerError(f"layer {layer.name!r} has NaN or infinite weights: train it again or check its file")
    return Network(module, layers, batches, track)


def inputs(module: LightningModule, loader: Iterable[Any], track: Track, description: str) -> Iterator[Tensor]:
    """What a network gets of a loader's batches, on its device and in its precision.

    Raises:
        CalibrationError: data that are not finite.
    """
    for batch in track(loader, description):
        x = batch[0].to(module.device)
        x = x.to(_precision(module, x)) if x.is_floating_point() else x
        if not torch.isfinite(x).all():
            raise CalibrationError("the calibration data have NaN or infinite values: check the data set")
        yield x


def _precision(module: LightningModule, x: Tensor) -> torch.dtype:
    """The type of a module's weights, which its inputs have in a Trainer of true half or double precision."""
    return next((weight.dtype for weight in module.parameters() if weight.is_floating_point()), x.dtype)


def _layers_of(module: LightningModule, sample: Tensor, include: Sequence[str], exclude: Sequence[str]) -> list[Layer]:
    """The layers to compress that a sample reaches, if silence reaches the same.

    Raises:
        LayerError: it does not: what the network computes depends on the data, and statistics of it would not add up.
    """
    found = find_layers(module, lambda: module(sample))
    layers = select(found, include, exclude, [name for name, _ in module.named_modules()])
    of_silence = find_layers(module, lambda: module(torch.zeros_like(sample)))
    differing = {layer.name for layer in found} ^ {layer.name for layer in of_silence}
    if differing := {name for name in differing if matches(name, include) and not matches(name, exclude)}:
        raise LayerError(
            f"whether {', '.join(sorted(differing))} runs depends on the data: write the network's forward pass "
            "without branches on values, or exclude it"
        )
    return layers
