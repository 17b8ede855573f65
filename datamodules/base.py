"""What every data set of the benchmark offers: fixed parts, calibration samples, a fingerprint, loaders."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import Batches
from datamodules.download import Download
from datamodules.errors import CalibrationTooLarge, DataCorrupt, DataMissing
from datamodules.fingerprint import combine, fingerprint_files
from datamodules.splits import Indices, Parts, stratified_draw
from datamodules.storage import data_folder

__all__ = ["BenchmarkDataModule", "DataCorrupt", "DataMissing", "SampleTable"]


@dataclass(frozen=True)
class SampleTable:
    """All samples of a set in one fixed order, and the part of the split that each belongs to.

    Args:
        keys: name of each sample, unique and independent of where the data lie.
        labels: class of each sample, shape [n].
        parts: the fixed parts.
        sources: file that each sample comes from, relative to the set's `folder`; samples of one file stand
            together.
        lists: files that say which samples there are or what they show.
    """

    keys: list[str]
    labels: Indices
    parts: Parts
    sources: list[str]
    lists: tuple[str, ...] = ()

    def by_file(self) -> list[list[int]]:
        """Indices of the samples of each source file: work on them together, and the file is read once."""
        return [list(group) for _, group in groupby(range(len(self.keys)), key=self.sources.__getitem__)]

    @property
    def files(self) -> list[str]:
        """Every file that the samples depend on."""
        return sorted({*self.sources, *self.lists})


@dataclass(frozen=True)
class HeldOut:
    """Training samples to judge a compressed network on, none of them for calibration, as indices of samples.

    Args:
        unseen: of the validation part, or of a calibration part of its own: no dense network is trained on them here.
        seen: of the training part, taken where the unseen ones are too few.
    """

    unseen: Indices
    seen: Indices

    @property
    def indices(self) -> Indices:
        """All of them, the unseen ones first."""
        return np.concatenate([self.unseen, self.seen])


class BenchmarkDataModule(LightningDataModule):
    """A data set with train, validation, calibration and test parts that depend on no run's seed.

    Event sets give ``x: [B, T, C, H, W]``, image sets ``x: [B, C, H, W]``, float32 when a LightningModule sees
    them, and ``y: [B]`` int64. Validation and calibration samples come from the training part.

    Args:
        root: folder of the files; by default ``$SNNBENCH_DATA/<name>`` or the user's data folder.
        timesteps: T, the number of time steps that a network sees.
        batch_size: most samples in a batch (of all processes together).
        num_workers: processes that load batches in the background.
        split: one of the class's `splits`.
        calibration_samples: number of calibration samples, drawn by class from the training part.
        calibration_seed: of that draw.
        seed: of the order of training samples (and of augmentations).

    Raises:
        ValueError: unknown split, or a number below 1 where one must be at least 1.
    """

    name: str
    num_classes: ClassVar[int]
    splits: ClassVar[tuple[str, ...]] = ("official",)
    downloads: ClassVar[tuple[Download, ...]] = ()
    """Archives that may be fetched by a program."""
    instructions: ClassVar[str]
    """Which files to get from where, for a person."""

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        timesteps: int,
        batch_size: int = 64,
        num_workers: int = 0,
        split: str | None = None,
        calibration_samples: int = 100,
        calibration_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if split is not None and split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; it has: {', '.join(self.splits)}")
        for argument, value in (
            ("timesteps", timesteps),
            ("batch_size", batch_size),
            ("calibration_samples", calibration_samples),
        ):
            if value < 1:
                raise ValueError(f"{argument} is {value}; it must be at least 1")
        self.root = data_folder(self.name) if root is None else Path(root).expanduser()
        self.timesteps = timesteps
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.split = split or self.splits[0]
        self.calibration_samples = calibration_samples
        self.calibration_seed = calibration_seed
        self.seed = seed
        self._table: SampleTable | None = None

    @property
    @abstractmethod
    def published_samples(self) -> int:
        """Number of samples that the whole set has."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one time step."""

    @property
    def folder(self) -> Path:
        """Folder that the samples' files are relative to."""
        return self.root

    @abstractmethod
    def list_samples(self) -> SampleTable:
        """Find the set's files and share them out; DataMissing says what is not there and how to get it."""

    @abstractmethod
    def dataset(self, samples: Indices, *, augment: bool) -> Dataset:
        """The samples as a map from a `Batch` of positions among them to ``(x, y)``."""

    @abstractmethod
    def check(self, sample: int) -> None:
        """Read one sample from its file; DataCorrupt names the file if it cannot be used."""

    def class_names(self) -> list[str]:
        """Name of each class."""
        return [str(label) for label in range(self.num_classes)]

    def settings(self) -> dict[str, Any]:
        """What, besides the files, decides the input that a network sees; JSON-able, for `describe`."""
        return {}

    def prepare_data(self) -> None:
        """Write what is computed once (on one process only) and check that the files are there."""
        self.setup()

    def locate(self) -> None:
        """See that the files are there, and make nothing of them; DataMissing says what is not there."""
        self.samples  # noqa: B018  # listed here

    def setup(self, stage: str | None = None) -> None:
        """List the samples and fix the parts; the stage makes no difference."""
        self.samples  # noqa: B018  # listed here, so that a missing set is reported before any work

    @property
    def samples(self) -> SampleTable:
        """The samples and parts, listed on first use."""
        if self._table is None:
            self._table = self.list_samples()
        return self._table

    def calibration_indices(self, samples: int | None = None) -> Indices:
        """Indices of the calibration samples: by class, fixed by their number and `calibration_seed`.

        Args:
            samples: another number of them than `calibration_samples`.

        Raises:
            CalibrationTooLarge: there are not as many.
        """
        pool = self.samples.parts.calibration_pool
        samples = self.calibration_samples if samples is None else samples
        if samples > len(pool):
            raise CalibrationTooLarge(
                f"{self.name}: {samples} calibration samples are asked for, and {self.root} has"
                f" {len(pool)} for it: ask for as many at most (--calibration-samples, calibration_samples in a suite)"
            )
        keys = [self.samples.keys[index] for index in pool]
        salt = f"{self.name} calibration {self.calibration_seed}"
        return pool[stratified_draw(keys, self.samples.labels[pool], samples, salt)]

    def held_out(self, count: int) -> HeldOut:
        """Training samples beside those for calibration, by class: unseen ones first, at most ``count`` of both.

        Raises:
            CalibrationTooLarge: the calibration samples leave none.
        """
        parts, calibration = self.samples.parts, self.calibration_indices()
        apart = np.union1d(parts.validation, np.setdiff1d(parts.calibration_pool, parts.train))
        unseen = self._drawn(np.setdiff1d(apart, calibration), count)
        seen = self._drawn(np.setdiff1d(parts.train, calibration), count - len(unseen))
        if not len(unseen) + len(seen):
            raise CalibrationTooLarge(
                f"{self.name}: {self.calibration_samples} calibration samples leave no training sample to judge on: "
                "ask for fewer (--calibration-samples)"
            )
        return HeldOut(unseen, seen)

    def _drawn(self, pool: Indices, count: int) -> Indices:
        if count < 1 or not len(pool):
            return pool[:0]
        keys = [self.samples.keys[index] for index in pool]
        labels = self.samples.labels[pool]
        return np.sort(pool[stratified_draw(keys, labels, min(count, len(pool)), f"{self.name} held out")])

    def train_dataloader(self) -> DataLoader:
        """Training batches in an order drawn anew each epoch from `seed`, augmented if asked for."""
        return self._loader(self.dataset(self.samples.parts.train, augment=True), shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Validation batches, from the training part of the published split."""
        return self._loader(self.dataset(self.samples.parts.validation, augment=False))

    def calibration_dataloader(self, samples: int | None = None) -> DataLoader:
        """Calibration batches, never augmented, float32 at once: a method may read them without a Trainer.

        Every process gets all of them: a method knows best which of its statistics can be summed over processes.
        ``samples`` is another number of them than `calibration_samples`.
        """
        calibration = self.dataset(self.calibration_indices(samples), augment=False)
        return self._loader(calibration, collate=self._as_input, shared=False)

    def test_dataloader(self) -> DataLoader:
        """Test batches."""
        return self._loader(self.dataset(self.samples.parts.test, augment=False))

    def held_out_dataloader(self, count: int) -> DataLoader:
        """Batches of the samples that :meth:`held_out` names, never augmented."""
        return self._loader(self.dataset(self.held_out(count).indices, augment=False))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn the bytes that travelled to the device into the float32 that a network sees."""
        return self._as_input(batch)

    def to_float(self, x: Tensor) -> Tensor:
        """Stored values as the float32 that a network sees."""
        return x.float()

    def fingerprint(self) -> str:
        """Hash (hex) of the files' relative paths, sizes and contents, and of who is in which part."""
        return combine(fingerprint_files(self.folder, self.samples.files), self.name, self.split)

    def describe(self) -> dict[str, Any]:
        """What a record keeps of the data: JSON-able, and independent of where they lie."""
        parts = self.samples.parts
        return {
            "name": self.name,
            "split": self.split,
            "timesteps": self.timesteps,
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "counts": {
                "train": len(parts.train),
                "validation": len(parts.validation),
                "calibration": self.calibration_samples,
                "test": len(parts.test),
            },
            "calibration_seed": self.calibration_seed,
            "fingerprint": self.fingerprint(),
            **self.settings(),
        }

    def _as_input(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = batch
        return (x if x.is_floating_point() else self.to_float(x)), y

    def _loader(
        self,
        dataset: Dataset,
        *,
        shuffle: bool = False,
        collate: Callable[[Any], Any] | None = None,
        shared: bool = True,
    ) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=None,  # the sampler gives whole batches
            sampler=Batches(dataset, self.batch_size, shuffle=shuffle, seed=self.seed, shared=shared),
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
