"""Binned events on disk: sparse, memory-mapped, written once, and made dense one batch at a time."""

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.augment import EventAugmentation, EventBatch
from datamodules.batches import Batch
from datamodules.errors import DataCorrupt
from datamodules.splits import Indices
from datamodules.storage import build_once

SparseSample = tuple[NDArray[np.int32], NDArray[np.uint16]]
"""Cells that hold events (ascending flat indices) and their counts, both [k]."""

FORMAT_VERSION = 1
"""Part of every cache's name: raise it when what is written changes."""


class EventCache:
    """Sparse samples of one shape in a folder of three arrays and a description.

    ``cells`` (int32) and ``counts`` (uint16) hold the samples one after the other, ``offsets`` (int64, one
    longer than there are samples) where each begins. Only the pages that a batch touches are read, and the
    object is pickled as its path, so that worker processes share one copy in the page cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open_or_build(
        cls, folder: Path, shape: tuple[int, ...], samples: Callable[[], Iterable[SparseSample]]
    ) -> "EventCache":
        """Open the cache in `folder`, writing it from `samples()` first if it is not there.

        Raises:
            DataCorrupt: it is there, and a file of it is missing or has been cut.
        """
        cache = cls(build_once(folder, lambda unfinished: _write(unfinished, shape, samples())))
        cache.check(shape)
        return cache

    def check(self, shape: tuple[int, ...]) -> None:
        """Compare the files' sizes with what the offsets say, and the description with the shape that was asked for.

        Raises:
            DataCorrupt: they differ, or a file is missing; names the folder to delete.
        """
        try:
            entries = int(self.offsets[-1])
            sizes = {name: (self.folder / name).stat().st_size for name in ("cells", "counts", "offsets")}
            samples = self._description.get("samples", len(self))
        except (OSError, IndexError, ValueError) as error:
            raise self._corrupt(f"cells, counts or offsets: {error}") from error
        if self.shape != shape:
            raise self._corrupt(f"description.json has the shape {self.shape}, and {shape} was asked for")
        if self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise self._corrupt("offsets do not ascend from 0")
        expected = {"cells": 4 * entries, "counts": 2 * entries, "offsets": 8 * (samples + 1)}
        if sizes != expected:
            raise self._corrupt(f"bytes are {sizes}, and by offsets and description.json {expected} were expected")

    def _corrupt(self, reason: str) -> DataCorrupt:
        return DataCorrupt(f"the cache of events is not whole ({reason}): delete {self.folder}, and it is made again")

    def __reduce__(self) -> tuple[type["EventCache"], tuple[Path]]:
        return EventCache, (self.folder,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one dense sample, (T, 2, H, W)."""
        return tuple(self._description["shape"])

    @cached_property
    def dtype(self) -> torch.dtype:
        """The smallest type that holds every count: uint8, or int32 where a cell has more than 255 events."""
        return torch.uint8 if self._description["largest_count"] <= 255 else torch.int32

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each sample begins in `cells` and `counts`, shape [samples + 1]."""
        return np.fromfile(self.folder / "offsets", dtype=np.int64)

    @cached_property
    def cells(self) -> NDArray[np.int32]:
        """Cells that hold events, of all samples."""
        return np.memmap(self.folder / "cells", dtype=np.int32, mode="r")

    @cached_property
    def counts(self) -> NDArray[np.uint16]:
        """Events in each of these cells."""
        return np.memmap(self.folder / "counts", dtype=np.uint16, mode="r")

    @cached_property
    def _description(self) -> dict:
        try:
            description = json.loads((self.folder / "description.json").read_text())
            shape, largest = description["shape"], description["largest_count"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._corrupt(f"description.json: {error!r}") from error
        samples = description.get("samples", 0)  # earlier caches lack it
        if not isinstance(shape, list) or not all(type(number) is int for number in (*shape, largest, samples)):
            raise self._corrupt("description.json: expected a shape, a largest_count and samples in whole numbers")
        return description

    def sparse(self, samples: Indices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Filled cells of a batch, as flat indices into [len(samples), T, 2, H, W], and their counts, both [k]."""
        begins, ends = self.offsets[samples], self.offsets[samples + 1]
        runs = list(zip(begins, ends, strict=True))  # a slice each: contiguous reads, one copy
        cells = np.concatenate([self.cells[begin:end] for begin, end in runs]).astype(np.int64)
        counts = np.concatenate([self.counts[begin:end] for begin, end in runs]).astype(np.int64)
        if len(cells) and not 0 <= cells.min() <= cells.max() < prod(self.shape):
            raise self._corrupt(f"cells lie outside the shape {self.shape}")
        cells += np.repeat(np.arange(len(samples)) * prod(self.shape), ends - begins)
        return cells, counts

    def dense(self, cells: NDArray[np.int64], counts: NDArray[np.int64], batch_size: int) -> Tensor:
        """Frames of a batch from its filled cells, shape [batch_size, T, 2, H, W], of type `dtype`."""
        frames = torch.zeros(batch_size * prod(self.shape), dtype=self.dtype)
        frames[torch.from_numpy(cells)] = torch.from_numpy(counts).to(self.dtype)
        return frames.view(batch_size, *self.shape)


class EventFrames(Dataset):
    """Some samples of a cache with their labels; a `Batch` gives frames [B, T, 2, H, W] and labels [B].

    Args:
        cache: the binned recordings.
        samples: which of them, shape [n].
        labels: their classes, shape [n].
        binarize: 1 where there is any event, instead of how many.
        augmentation: of each batch, or None.
    """

    def __init__(
        self,
        cache: EventCache,
        samples: Indices,
        labels: Indices,
        binarize: bool = False,
        augmentation: EventAugmentation | None = None,
    ) -> None:
        self.cache = cache
        self.samples = samples
        self.labels = labels
        self.binarize = binarize
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        size = len(batch.positions)
        cells, counts = self.cache.sparse(self.samples[batch.positions])
        labels = torch.from_numpy(self.labels[batch.positions])
        if self.augmentation is not None:
            events = EventBatch.from_flat(cells, counts, (size, *self.cache.shape))
            events = self.augmentation.sparse(events, batch.seed)
            cells, counts = events.flat(), events.count
        counts = counts.clip(max=1) if self.binarize else counts
        frames = self.cache.dense(cells, counts, size)
        if self.augmentation is not None:
            return self.augmentation.dense(frames, labels, batch.seed)
        return frames, labels


def _write(folder: Path, shape: tuple[int, ...], samples: Iterable[SparseSample]) -> None:
    lengths, largest = [0], 0
    with (folder / "cells").open("wb") as cells_file, (folder / "counts").open("wb") as counts_file:
        for cells, counts in samples:
            cells.tofile(cells_file)
            counts.tofile(counts_file)
            lengths.append(len(cells))
            largest = max(largest, int(counts.max()))
    np.cumsum(lengths, dtype=np.int64).tofile(folder / "offsets")
    description = {"shape": shape, "largest_count": largest, "samples": len(lengths) - 1, "format": FORMAT_VERSION}
    (folder / "description.json").write_text(json.dumps(description))
