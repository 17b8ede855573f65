"""All of MNIST, seen by a simulated event camera and kept in N-MNIST's format.

N-MNIST shows the same 70,000 digits (Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist/) to a real
camera. This set is made on the user's machine from MNIST's 11 MB. The page "Simulated recordings" of the documentation
shows how near the two come.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from datamodules.base import SampleTable
from datamodules.download import Download
from datamodules.dvs_camera import FINE, SENSOR, Camera
from datamodules.errors import DataCorrupt, DataMissing, decoding
from datamodules.event_set import EventDataModule
from datamodules.events import Events, encode_nmnist
from datamodules.files import file_in
from datamodules.fingerprint import combine, fingerprint_files
from datamodules.parallel import map_in_order
from datamodules.recordings import LIST, Recording, listed, read, write
from datamodules.splits import Indices, hold_out_validation, stratified_draw
from datamodules.storage import build_once, cache_folder, data_folder

SIDE = 28
CLASSES = 10
TRAIN, TEST = 60_000, 10_000

PATH = (
    (0, 13, 38),
    (5_000, 13, 42),
    (10_000, 13, 46),
    (15_000, 13, 53),
    (20_000, 13, 62),
    (30_000, 13, 87),
    (40_000, 14, 123),
    (50_000, 27, 154),
    (60_000, 44, 185),
    (65_000, 52, 197),
    (70_000, 59, 203),
    (80_000, 66, 206),
    (115_000, 80, 205),
    (120_000, 87, 202),
    (125_000, 97, 197),
    (130_000, 109, 186),
    (140_000, 132, 153),
    (150_000, 147, 115),
    (160_000, 156, 83),
    (165_000, 161, 69),
    (170_000, 166, 59),
    (175_000, 171, 53),
    (185_000, 176, 47),
    (215_000, 187, 46),
    (220_000, 187, 46),
    (225_000, 183, 46),
    (230_000, 172, 46),
    (250_000, 109, 46),
    (265_000, 61, 46),
    (270_000, 48, 46),
    (280_000, 29, 45),
    (290_000, 17, 45),
    (300_000, 14, 45),
    (305_000, 13, 45),
)
"""The image's way over the sensor, (microsecond, x, y) in 1/32 pixel, as N-MNIST's training recordings show it."""

CAMERA = Camera(
    pitch=FINE,
    max_grey=255,
    path=PATH,
    dark=1.25,
    lit=0.25,
    blur=42,
    threshold=194,
    threshold_spread=12,
    mismatch=18,
    unrest=160,
    latency_us=10_000,
    noise_events=125,
)
"""An image pixel is as wide as one of the sensor, and digits are dark on a bright ground, as in N-MNIST."""

SEEDS = {"Train": 0, "Test": 1}
"""Of the simulation."""

VERSION = 1
"""Raise it when the same images and camera give other recordings."""

TRIAL = 100
"""Recordings that are simulated to say how long all of them will take."""

MINUTE = 60.0
"""Seconds between two lines about the simulation where there is no terminal."""

WORTH_PROCESSES = 500
"""Fewer recordings than this are simulated before other processes have started."""

MNIST_PARTS = {"Train": "train", "Test": "t10k"}
"""MNIST's names of its parts, in its files' names."""

Digits = dict[str, tuple[NDArray[np.uint8], Indices]]
"""Images [n, 28, 28] and labels [n] of each part."""


class MNISTDVS(EventDataModule):
    """70,000 simulated recordings of MNIST's digits on a 34x34 sensor, 315 ms each.

    MNIST's own parts; a tenth of the training part is for validation. The recordings are simulated once, in the cache
    folder: N-MNIST's five bytes for an event, 25 recordings in a file.

    Args:
        root: folder of MNIST in torchvision's layout (``MNIST/raw/train-images-idx3-ubyte`` and so on); by default
            ``$SNNBENCH_DATA/mnist`` or ``mnist`` in the user's data folder.
        samples: simulate only so many training images, drawn by class, and a proportionate number of test images.
            A recording is the same in every subset.
        options: see `EventDataModule`.

    Raises:
        ValueError: `samples` is not from 10 to 60,000.
    """

    name = "mnist_dvs"
    num_classes = CLASSES
    sensor_size = (SENSOR, SENSOR)
    downloads: ClassVar[tuple[Download, ...]] = tuple(
        Download(MNIST.mirrors[0] + name, f"MNIST/raw/{name}", md5) for name, md5 in MNIST.resources
    )
    instructions = (
        "get train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and"
        f" t10k-labels-idx1-ubyte.gz from {MNIST.mirrors[0]} and unpack them into the folder MNIST/raw"
    )

    def __init__(self, root: str | Path | None = None, *, samples: int | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        if samples is not None and not CLASSES <= samples <= TRAIN:
            raise ValueError(f"samples is {samples}; it must be from {CLASSES}, one of each class, to {TRAIN}, all")
        if root is None:
            self.root = data_folder("mnist")
        self.training_samples = samples

    @property
    def published_samples(self) -> int:
        """70,000, or as many as were asked for."""
        return sum(_sizes(TRAIN, TEST, self.training_samples))

    @cached_property
    def folder(self) -> Path:
        """Folder of the recordings; its name says what they are made of."""
        names = [path.relative_to(self.root).as_posix() for path in _files(self.root).values()]
        images = fingerprint_files(self.root, names)
        key = combine(images, asdict(CAMERA), self.training_samples, VERSION)
        return cache_folder() / "recordings" / f"{self.name}-{key[:32]}"

    def locate(self) -> None:
        """See that MNIST's files are there."""
        _files(self.root)

    def list_samples(self) -> SampleTable:
        """Recordings in MNIST's order, training images first, simulated first if they are not there."""
        build_once(self.folder, self._simulate)
        recordings = self._recordings
        keys = [recording.key for recording in recordings]
        labels = np.array([recording.label for recording in recordings], dtype=np.int64)
        test = np.flatnonzero([recording.part == "Test" for recording in recordings])
        parts = hold_out_validation(keys, labels, test, "mnist_dvs validation")
        return SampleTable(keys, labels, parts, [recording.file for recording in recordings], (LIST,))

    def read(self, sample: int) -> Events:
        """Events of one recording, in order of time."""
        return read(self.folder, self._recordings[sample], self.sensor_size)

    @cached_property
    def _recordings(self) -> list[Recording]:
        return listed(self.folder, self.num_classes)

    def _simulate(self, folder: Path) -> None:
        digits = read_digits(self.root)
        write(folder, _simulated(digits, _chosen(digits, self.training_samples), folder))


def _files(root: Path) -> dict[str, Path]:
    """MNIST's files by their names.

    Raises:
        DataMissing: one is not there.
    """
    folder = root / "MNIST" / "raw"
    names = [name.removesuffix(".gz") for name, _ in MNIST.resources]
    files = {name: path for name in names if (path := file_in(folder, name))}
    for name in names:
        if name not in files:
            raise DataMissing(f"{MNISTDVS.name}: no file {folder / name}; {MNISTDVS.instructions}")
    return files


def read_digits(root: Path) -> Digits:
    """MNIST's images and labels.

    Raises:
        DataMissing: a file is not there.
        DataCorrupt: it is not as MNIST's are.
    """
    return {part: _part(_files(root), name) for part, name in MNIST_PARTS.items()}


def _part(files: dict[str, Path], name: str) -> tuple[NDArray[np.uint8], Indices]:
    of_images, of_labels = files[f"{name}-images-idx3-ubyte"], files[f"{name}-labels-idx1-ubyte"]
    with decoding(of_images, "MNIST's images"):
        images = read_image_file(str(of_images)).numpy()
    with decoding(of_labels, "MNIST's labels"):
        labels = read_label_file(str(of_labels)).numpy()
    if images.shape != (max(1, len(labels)), SIDE, SIDE):
        expected = (len(labels), SIDE, SIDE)
        raise DataCorrupt(f"{of_images}: holds images {images.shape}; expected {expected}, as many as {of_labels.name}")
    if not ((labels >= 0) & (labels < CLASSES)).all():
        raise DataCorrupt(f"{of_labels}: expected labels from 0 to {CLASSES - 1}")
    return images, labels


def _sizes(train: int, test: int, samples: int | None) -> tuple[int, int]:
    """How many training and test images are simulated."""
    if samples is None:
        return train, test
    return min(train, samples), min(test, max(CLASSES, round(samples * test / train)))


def _chosen(digits: Digits, samples: int | None) -> list[tuple[str, int]]:
    """Part and number of the images to simulate, training images first."""
    sizes = _sizes(len(digits["Train"][1]), len(digits["Test"][1]), samples)
    chosen = []
    for (part, (_, labels)), size in zip(digits.items(), sizes, strict=True):
        drawn = stratified_draw([str(number) for number in range(len(labels))], labels, size, f"mnist_dvs {part}")
        chosen += [(part, number) for number in sorted(drawn.tolist())]
    return chosen


def _simulated(digits: Digits, chosen: list[tuple[str, int]], folder: Path) -> Iterator[tuple[str, int, int, bytes]]:
    """The recordings, simulated in parallel; says before how long it will take, and how much is written.

    Raises:
        OSError: there is not enough room for them.
    """
    processes = os.cpu_count() or 1
    simulate = partial(_recording, digits)
    said = _estimate(simulate, chosen, processes, folder)
    console = Console(stderr=True)
    console.print(said, highlight=False)
    numbers = map_in_order(simulate, chosen, processes if len(chosen) >= WORTH_PROCESSES else 0)
    for (part, number), events in zip(chosen, _told(numbers, len(chosen), console), strict=True):
        yield part, number, int(digits[part][1][number]), events


def _told(recordings: Iterable[bytes], size: int, console: Console) -> Iterator[bytes]:
    """The recordings, with a bar on a terminal, and elsewhere a line a minute."""
    if console.is_terminal:
        yield from track(recordings, "simulating", size, console=console)
        return
    begin = told = time.monotonic()
    for done, recording in enumerate(recordings, 1):
        yield recording
        now = time.monotonic()
        if now - told >= MINUTE:
            told = now
            left = (now - begin) / done * (size - done)
            console.print(f"simulated {done:,} of {size:,}, about {left:,.0f} s left", highlight=False)


def _recording(digits: Digits, image: tuple[str, int]) -> bytes:
    """N-MNIST's bytes of a recording; it depends on the image, its part and its number there alone."""
    part, number = image
    events = CAMERA.record(digits[part][0][number], SEEDS[part], number)
    return encode_nmnist(events).tobytes()


def _estimate(
    simulate: Callable[[tuple[str, int]], bytes], chosen: list[tuple[str, int]], processes: int, folder: Path
) -> str:
    """How long the simulation will take and how much it will write, in words, from a few recordings.

    Raises:
        OSError: there is not enough room for it.
    """
    trial = chosen[:: max(1, len(chosen) // TRIAL)][:TRIAL]
    simulate(trial[0])  # compiles
    begin = time.perf_counter()
    mean_bytes = sum(len(simulate(image)) for image in trial) / len(trial)
    seconds = (time.perf_counter() - begin) / len(trial) * len(chosen) / processes
    size, free = int(mean_bytes * len(chosen)), shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{size / 1e6:,.0f} MB are needed, and {free / 1e6:,.0f} MB are free")
    return (
        f"simulating {len(chosen):,} recordings of {MNISTDVS.name} once: about {seconds:,.0f} s on {processes} cores,"
        f" {size / 1e6:,.0f} MB in {folder.parent}"
    )
