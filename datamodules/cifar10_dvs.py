"""CIFAR10-DVS: CIFAR-10 on a screen before a DVS128 (Li et al., 2017, doi:10.3389/fnins.2017.00309)."""

import re
from collections.abc import Callable
from math import ceil
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from datamodules.base import SampleTable
from datamodules.download import Download
from datamodules.errors import DataCorrupt, DataMissing
from datamodules.event_set import EventDataModule
from datamodules.events import Events, read_aedat2, read_aedat4, read_arrays, read_mat
from datamodules.files import files_in
from datamodules.splits import Indices, hold_out_validation

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

READERS: dict[str, Callable[[Path, tuple[int, int]], Events]] = {
    ".aedat": read_aedat2,
    ".aedat4": read_aedat4,
    ".mat": read_mat,
    ".npy": read_arrays,
    ".npz": read_arrays,
}

TRAIN_SHARE = 0.9
TEBN_TEST_RECORDINGS = 100


class CIFAR10DVS(EventDataModule):
    """A folder per class, ``<class>/cifar10_<class>_<number>`` with the ending of one of five formats.

    ``.aedat`` is AEDAT 2.0, the original distribution; ``.aedat4`` is tonic's; ``.npz`` SpikingJelly's (its folder
    ``events_np`` is a root); ``.mat`` is what the authors' ``dat2mat.m`` writes; ``.npy`` a record array.

    The set has no split of its own. ``nine_to_one`` trains on the first nine tenths of each class in order of
    the file names as text (0, 1, 10, 100, ...), as `split_to_train_test_set` of SpikingJelly does, which many
    papers use; ``tebn`` tests on the recordings numbered 0 to 99 of each class (Duan et al., NeurIPS 2022;
    SpikingJelly's `CIFAR10DVSTEBNSplit`). A tenth of the training part is for validation.
    """

    name = "cifar10_dvs"
    num_classes = 10
    splits: ClassVar[tuple[str, ...]] = ("nine_to_one", "tebn")
    sensor_size = (128, 128)
    published_samples = 10_000
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "https://api.figshare.com/v2/file/download/38023437",
            "CIFAR10DVS.zip",
            "ce3a4a0682dc0943703bd8f749a7701c",
            holds=tuple(f"{name}.zip" for name in CLASSES),
        ),
    )
    instructions = (
        "get the ten archives (CC BY 4.0) from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671, or"
        " tonic's CIFAR10DVS.zip from https://figshare.com/ndownloader/files/38023437 in a browser, and unpack"
        " them, so that the folder holds airplane/cifar10_airplane_0.aedat (or .aedat4, .npz, .npy, .mat) and so on"
    )

    def list_samples(self) -> SampleTable:
        """Recordings by class, in order of their names as text."""
        files = sorted(
            path.relative_to(self.root).as_posix() for name in CLASSES for path in files_in(self.root / name, READERS)
        )
        if not files:
            raise DataMissing(f"{self.name}: no recordings in {self.root}/<class>/; {self.instructions}")
        _refuse_twice(files, self.root)
        labels = np.array([CLASSES.index(PurePosixPath(file).parent.name) for file in files], dtype=np.int64)
        keys = [str(PurePosixPath(file).with_suffix("")) for file in files]  # the same in every format
        test = _numbered_below_100(files) if self.split == "tebn" else _last_tenth(labels)
        return SampleTable(keys, labels, hold_out_validation(keys, labels, test, "cifar10_dvs validation"), files)

    def class_names(self) -> list[str]:
        """Name of each class."""
        return list(CLASSES)

    def read(self, sample: int) -> Events:
        """Events of one recording, in order of time."""
        path = self.root / self.samples.sources[sample]
        return READERS[path.suffix.lower()](path, self.sensor_size)


def _refuse_twice(files: list[str], root: Path) -> None:
    stems = [str(PurePosixPath(file).with_suffix("")) for file in files]
    for first, second, one, other in zip(stems, stems[1:], files, files[1:], strict=False):
        if first == second:
            raise DataCorrupt(f"{root}: {one} and {other} are the same recording; keep one of them")


def _last_tenth(labels: Indices) -> Indices:
    """Positions of each class's samples after the first nine tenths, rounded up."""
    of_class = (np.flatnonzero(labels == label) for label in np.unique(labels))
    return np.sort(np.concatenate([where[ceil(len(where) * TRAIN_SHARE) :] for where in of_class]))


def _numbered_below_100(files: list[str]) -> Indices:
    numbers = [re.search(r"_(\d+)\.\w+$", file) for file in files]
    for file, number in zip(files, numbers, strict=True):
        if number is None:
            raise DataCorrupt(f"{file}: the tebn split goes by the number at the end of the name, and it has none")
    return np.flatnonzero([int(number[1]) < TEBN_TEST_RECORDINGS for number in numbers if number])
