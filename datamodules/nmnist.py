"""N-MNIST: MNIST's digits seen by a moving event camera (Orchard et al., 2015, doi:10.3389/fnins.2015.00437)."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.base import SampleTable
from datamodules.download import Download
from datamodules.errors import DataMissing
from datamodules.event_set import EventDataModule
from datamodules.events import Events, read_nmnist
from datamodules.files import files_in
from datamodules.splits import Indices, Parts, hold_out_validation, stratified_draw

POOLED_TEST_SAMPLES = 300

_FILES = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
DOWNLOADS = (
    Download(
        _FILES + "39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
        "train.zip",
        "20959b8e626244a1b502305a9e6e2031",
    ),
    Download(
        _FILES + "05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
        "test.zip",
        "69ca8762b2fe404d9b9bad1103e97832",
    ),
)
"""As tonic 1.7 lists them."""


class NMNIST(EventDataModule):
    """The original tree ``Train/<label>/<id>.bin``, ``Test/<label>/<id>.bin``, complete or a part of it.

    Splits: ``official`` tests on ``Test/``. ``pooled`` puts both parts together and holds out 300 recordings,
    the same ones for the same files: for subsets whose ``Test/`` is too small to tell methods apart. In both,
    a tenth of the rest is for validation.
    """

    name = "nmnist"
    num_classes = 10
    splits: ClassVar[tuple[str, ...]] = ("official", "pooled")
    sensor_size = (34, 34)
    published_samples = 70_000
    downloads: ClassVar[tuple[Download, ...]] = DOWNLOADS
    instructions = (
        "get train.zip and test.zip (CC BY-SA 4.0) from https://www.garrickorchard.com/datasets/n-mnist"
        " (https://doi.org/10.17632/468j46mzdv) and unpack both, so that the folder holds Train/<label>/<id>.bin"
        " and Test/<label>/<id>.bin"
    )

    def list_samples(self) -> SampleTable:
        """Recordings in order of their path."""
        files = self._recordings()
        labels = np.array([int(Path(file).parent.name) for file in files], dtype=np.int64)
        return SampleTable(files, labels, self._parts(files, labels), sources=files)

    def _parts(self, files: list[str], labels: Indices) -> Parts:
        if self.split == "pooled":
            test = stratified_draw(files, labels, POOLED_TEST_SAMPLES, "nmnist pooled test")
        else:
            test = np.flatnonzero([file.startswith("Test/") for file in files])
        return hold_out_validation(files, labels, test, "nmnist validation")

    def read(self, sample: int) -> Events:
        """Events of one recording, in order of time."""
        return read_nmnist(self.root / self.samples.keys[sample], self.sensor_size)

    def _recordings(self) -> list[str]:
        files = []
        for part in ("Test", "Train"):
            folders = [self.root / part / str(label) for label in range(self.num_classes)]
            found = [
                path.relative_to(self.root).as_posix() for folder in folders for path in files_in(folder, {".bin"})
            ]
            if not found:
                raise DataMissing(
                    f"{self.name}: no recordings in {self.root / part}/<label>/<id>.bin; {self.instructions}"
                )
            files += found
        return files
