"""N-MNIST: MNIST's digits seen by a moving event camera (Orchard et al., 2015, doi:10.3389/fnins.2015.00437)."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.base import VALIDATION_SHARE, SampleTable
from datamodules.errors import DataMissing
from datamodules.event_set import EventDataModule
from datamodules.events import Events, read_nmnist
from datamodules.splits import Indices, Parts, stratified_draw

POOLED_TEST_SAMPLES = 300


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

    def list_samples(self) -> SampleTable:
        """Recordings in order of their path."""
        files = recordings(self.root)
        labels = np.array([int(Path(file).parent.name) for file in files], dtype=np.int64)
        return SampleTable(files, labels, self._parts(files, labels), files)

    def _parts(self, files: list[str], labels: Indices) -> Parts:
        if self.split == "pooled":
            test = stratified_draw(files, labels, POOLED_TEST_SAMPLES, "nmnist pooled test")
        else:
            test = np.flatnonzero([file.startswith("Test/") for file in files])
        return hold_out_validation(files, labels, test, "nmnist validation")

    def read(self, sample: int) -> Events:
        """Events of one recording, in order of time."""
        return read_nmnist(self.root / self.samples.keys[sample], self.sensor_size)


def recordings(root: Path) -> list[str]:
    """Paths of all recordings relative to `root`, sorted; DataMissing if either part has none."""
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("T*/[0-9]/*.bin"))
    for part in ("Train", "Test"):
        if not any(file.startswith(part + "/") for file in files):
            raise DataMissing(
                f"nmnist: no recordings {root / part}/<label>/<id>.bin; unpack {part}.zip of"
                " https://www.garrickorchard.com/datasets/n-mnist there, or name the folder that holds Train/"
                " and Test/ as root"
            )
    return files


def hold_out_validation(keys: list[str], labels: Indices, test: Indices, salt: str) -> Parts:
    """Parts for a given test part: a tenth of the rest, by class, for validation; the others for training."""
    rest = np.setdiff1d(np.arange(len(keys)), test)
    count = max(1, round(len(rest) * VALIDATION_SHARE))
    validation = rest[stratified_draw([keys[index] for index in rest], labels[rest], count, salt)]
    train = np.setdiff1d(rest, validation)
    return Parts(train, validation, calibration_pool=train, test=test)
