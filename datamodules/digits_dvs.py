"""scikit-learn's handwritten digits, seen by a simulated event camera and kept in N-MNIST's format.

The 1,797 images are real (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998) and
come with scikit-learn, so this set needs no download, and reads its files with N-MNIST's own reader.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datamodules.base import SampleTable
from datamodules.dvs_camera import FINE, SENSOR, Camera
from datamodules.errors import DataMissing
from datamodules.events import encode_nmnist
from datamodules.nmnist import NMNIST
from datamodules.splits import Indices, Parts, hold_out_validation, stratified_draw
from datamodules.storage import build_once, cache_folder

PATH = ((0, 48, 48), (105_000, 160, 272), (210_000, 272, 48), (315_000, 48, 48))
"""A triangle of three saccades of 105 ms, 3.5 pixels wide at half its 7 pixels of height, as N-MNIST's; centred."""

CAMERA = Camera(pitch=3 * FINE, max_grey=16, path=PATH)
"""An image pixel is as wide as three of the sensor: 8x8 pixels fill 24x24 of 34x34."""

SIMULATION_SEED = 0
TEST_SAMPLES = 397
CALIBRATION_SAMPLES = 200
VERSION = 1
"""Part of the default folder's name: raise it when the recordings change."""


class DigitsDVS(NMNIST):
    """1,797 simulated recordings of handwritten digits on a 34x34 sensor, 315 ms each.

    One fixed split, by class: 397 recordings for test, 200 for calibration, 120 for validation, 1,080 for
    training. They are simulated once, in the cache folder unless `root` names another.
    """

    name = "digits_dvs"
    splits: ClassVar[tuple[str, ...]] = ("fixed",)
    sensor_size = (SENSOR, SENSOR)
    published_samples = 1797
    downloads = ()
    instructions = "remove the folder, and the recordings are simulated again"

    def __init__(self, root: str | Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        if root is None:
            self.root = cache_folder() / f"{self.name}-{VERSION}"

    def list_samples(self) -> SampleTable:
        """Recordings in order of their path, simulated first if they are not there."""
        build_once(self.root, write_recordings)
        return super().list_samples()

    def _parts(self, files: list[str], labels: Indices) -> Parts:
        test = np.flatnonzero([file.startswith("Test/") for file in files])
        train = np.setdiff1d(np.arange(len(files)), test)
        if (len(test), len(files)) != (TEST_SAMPLES, self.published_samples):
            raise DataMissing(
                f"{self.name}: {self.root} holds {len(files)} recordings, {len(test)} of them for test, instead"
                f" of {self.published_samples} and {TEST_SAMPLES}; {self.instructions}"
            )
        drawn = stratified_draw(
            [files[index] for index in train], labels[train], CALIBRATION_SAMPLES, "digits_dvs calibration"
        )
        calibration = train[drawn]
        split = hold_out_validation(
            files, labels, np.sort(np.concatenate([test, calibration])), "digits_dvs validation"
        )
        return Parts(split.train, split.validation, calibration_pool=calibration, test=test)


def write_recordings(folder: Path) -> None:
    """Simulate all digits and write them as ``Train/<label>/<id>.bin`` and ``Test/<label>/<id>.bin``."""
    from sklearn.datasets import load_digits  # takes a second, and is needed once

    digits = load_digits()
    ids = [f"{index:05d}" for index in range(len(digits.target))]
    test = set(stratified_draw(ids, digits.target, TEST_SAMPLES, "digits_dvs test").tolist())
    for part in ("Train", "Test"):
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
    for index, (label, image) in enumerate(zip(digits.target, digits.images, strict=True)):
        part = "Test" if index in test else "Train"
        events = CAMERA.record(image.astype(np.int64), SIMULATION_SEED, index)
        (folder / part / str(label) / f"{ids[index]}.bin").write_bytes(encode_nmnist(events).tobytes())
