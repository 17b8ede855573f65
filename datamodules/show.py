"""A look at a set: one sample of each class in a picture."""

from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import BenchmarkDataModule
from datamodules.batches import Batch

FRAMES_SHOWN = 8
"""Most frames of a recording in its row."""

Pixels = NDArray[np.uint8]


def show(data: BenchmarkDataModule, picture: Path) -> None:
    """Draw a training sample of each class as a PNG.

    A recording becomes a row of frames, evenly chosen: red where it got brighter, blue where it got darker. Images
    stand in a square.

    Args:
        data: the set.
        picture: the file to write.
    """
    train = data.samples.parts.train
    labels, first = np.unique(data.samples.labels[train], return_index=True)
    x, _ = data.dataset(train[first], augment=False)[Batch(np.arange(len(first)), seed=0)]
    names = [data.class_names()[label] for label in labels]
    if x.ndim == 5:
        rows = [_frames(recording) for recording in x]
    else:
        images = list(x.permute(0, 2, 3, 1).numpy())
        across = ceil(sqrt(len(images)))
        rows = [images[begin : begin + across] for begin in range(0, len(images), across)]
        names = [f"{names[begin]} …" for begin in range(0, len(images), across)]
    _draw(rows, names, f"{data.name} ({data.split})", picture)


def _frames(recording: Tensor) -> list[Pixels]:
    """Some frames of one recording [T, 2, H, W] in colour, each [H, W, 3]."""
    steps = torch.linspace(0, len(recording) - 1, min(FRAMES_SHOWN, len(recording))).round().long()
    shown = recording[steps].float()
    strongest = shown[shown > 0].quantile(0.9) if (shown > 0).any() else torch.tensor(1.0)
    off, on = (shown / strongest).clamp(max=1).unbind(1)
    colour = 1 - torch.stack([off, torch.maximum(on, off), on], dim=-1)
    return list((255 * colour).byte().numpy())


def _draw(rows: list[list[Pixels]], names: list[str], title: str, picture: Path) -> None:
    height, width, _ = rows[0][0].shape
    across = max(map(len, rows))
    sheet = np.full((len(rows) * (height + 1), across * (width + 1), 3), 160, dtype=np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            top, left = row * (height + 1), column * (width + 1)
            sheet[top : top + height, left : left + width] = tile
    figure = Figure(figsize=(across + 1.5, len(rows) + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks(np.arange(len(rows)) * (height + 1) + height / 2, names)
    axes.set_xticks([])
    axes.set_title(title)
    figure.savefig(picture, format="png", bbox_inches="tight")
