"""DVS128 Gesture: eleven hand and arm gestures of 29 people (Amir et al., CVPR 2017)."""

import csv
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from datamodules.base import SampleTable
from datamodules.download import Download
from datamodules.errors import DataCorrupt, DataMissing, decoding
from datamodules.event_set import EventDataModule
from datamodules.events import LATEST_US, Events, checked, read_aedat3, read_gesture_cut
from datamodules.files import files_in, folders_in
from datamodules.splits import hold_out_validation

CLASSES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
TRIALS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
RECORDING = re.compile(r"user\d+_[a-z_]+\.aedat")
"""How a recording is named: the person and the light; never a path to elsewhere."""

CUTS = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}


class Gesture(NamedTuple):
    """One gesture: the part and file it is in, its class, and from when up to when (microseconds) in the file."""

    part: str
    source: str
    label: int
    span: tuple[int, int] | None


class DVSGesture(EventDataModule):
    """IBM's recordings, or tonic's cuts of them; train and test are different people, as published.

    IBM's: ``trials_to_train.txt`` and ``trials_to_test.txt`` list files ``user<n>_<light>.aedat`` (AEDAT 3.1), and
    ``user<n>_<light>_labels.csv`` says which gesture is seen from when to when. tonic's:
    ``ibmGestureTrain/user<n>_<light>/<class 0 to 10>.npy`` and ``ibmGestureTest/…``, times in whole milliseconds. A
    tenth of the training part is for validation.
    """

    name = "dvs_gesture"
    num_classes = 11
    sensor_size = (128, 128)
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "https://api.figshare.com/v2/file/download/38022171",
            "ibmGestureTrain.tar.gz",
            "3a8f0d4120a166bac7591f77409cb105",
        ),
        Download(
            "https://api.figshare.com/v2/file/download/38020584",
            "ibmGestureTest.tar.gz",
            "56070e45dadaa85fff82e0fbfbc06de5",
        ),
    )
    instructions = (
        "get DvsGesture.tar.gz (CC BY 4.0) from https://research.ibm.com/interactive/dvsgesture/ and unpack it, so"
        " that the folder holds trials_to_train.txt and user01_fluorescent.aedat, or tonic's ibmGestureTrain.tar.gz"
        " and ibmGestureTest.tar.gz (https://figshare.com/ndownloader/files/38022171 and .../38020584 in a"
        " browser), so that it holds ibmGestureTrain/ and ibmGestureTest/"
    )

    def list_samples(self) -> SampleTable:
        """Gestures of the training files, then of the test files, in order of file and time."""
        gestures = self.gestures
        for part in ("train", "test"):
            if not any(gesture.part == part for gesture in gestures):
                raise DataMissing(f"{self.name}: nothing to {part} on in {self.root}; {self.instructions}")
        keys = [f"{gesture.source}:{gesture.span}:{gesture.label}" for gesture in gestures]
        labels = np.array([gesture.label for gesture in gestures], dtype=np.int64)
        test = np.flatnonzero([gesture.part == "test" for gesture in gestures])
        parts = hold_out_validation(keys, labels, test, "dvs_gesture validation")
        sources = [gesture.source for gesture in gestures]
        tables = {_label_table(gesture.source) for gesture in gestures if gesture.span}
        lists = (*TRIALS.values(), *sorted(tables)) if tables else ()
        return SampleTable(keys, labels, parts, sources, lists)

    @cached_property
    def gestures(self) -> list[Gesture]:
        """What the lists, or the folders of cuts, say there is."""
        find = _gestures_of_trials if self._is_original else _gestures_of_cuts
        return [gesture for part in ("train", "test") for gesture in find(self.root, part)]

    @property
    def published_samples(self) -> int:
        """1,464 gestures in IBM's tables (1,176 and 288); 1,341 in tonic's cuts, one of a class per recording."""
        return 1464 if self._is_original else 1341

    @property
    def _is_original(self) -> bool:
        return any((self.root / trials).is_file() for trials in TRIALS.values())

    def class_names(self) -> list[str]:
        """Name of each class."""
        return list(CLASSES)

    def read(self, sample: int) -> Events:
        """Events of one gesture, in order of time."""
        gesture = self.gestures[sample]
        path = self.root / gesture.source
        if gesture.span is None:
            return read_gesture_cut(path, self.sensor_size)
        events = _recording(path, self.sensor_size)
        first, last = np.searchsorted(events["t"], gesture.span)
        return checked(events[first:last], self.sensor_size, f"{path}, {gesture.span} us")


@lru_cache(maxsize=1)
def _recording(path: Path, sensor_size: tuple[int, int]) -> Events:
    """A whole file: its gestures are read one after the other."""
    return read_aedat3(path, sensor_size)


def _label_table(source: str) -> str:
    return source.removesuffix(".aedat") + "_labels.csv"


def _gestures_of_trials(root: Path, part: str) -> list[Gesture]:
    trials = root / TRIALS[part]
    if not trials.is_file():
        raise DataMissing(f"dvs_gesture: {trials} is not there; {DVSGesture.instructions}")
    return [gesture for name in _names_of_trials(trials) for gesture in _gestures_of_file(root, part, name)]


def _names_of_trials(trials: Path) -> list[str]:
    with decoding(trials, "a list of recordings"):
        names = sorted({line.strip() for line in trials.read_text("utf-8").splitlines() if line.strip()})
        for name in names:
            if not RECORDING.fullmatch(name):
                raise ValueError(f"{name[:80]!r} is no name such as user01_led.aedat")
        return names


def _gestures_of_file(root: Path, part: str, name: str) -> list[Gesture]:
    for path in (root / name, root / _label_table(name)):
        if not path.is_file():
            raise DataMissing(f"dvs_gesture: {path}, listed in {TRIALS[part]}, is not there; unpack the archive again")
    table = root / _label_table(name)
    with (
        decoding(table, "a table of class,startTime_usec,endTime_usec in whole numbers"),
        table.open(newline="") as file,
    ):
        rows = [_gesture(part, name, row) for row in csv.DictReader(file)]
    if not rows or any(not 0 <= gesture.label < len(CLASSES) for gesture in rows):
        raise DataCorrupt(f"{table}: no gestures, or a class that is not 1 to 11")
    return sorted(rows, key=lambda gesture: (gesture.span, gesture.label))


def _gesture(part: str, source: str, row: dict[str, str]) -> Gesture:
    if not {"class", "startTime_usec", "endTime_usec"} <= set(row):
        raise ValueError(f"the columns are {','.join(map(str, row))[:80]}")
    begin, end = int(row["startTime_usec"]), int(row["endTime_usec"])
    if not 0 <= begin < end < LATEST_US:
        raise ValueError(f"a gesture from {begin} to {end}")
    return Gesture(part, source, int(row["class"]) - 1, (begin, end))


def _gestures_of_cuts(root: Path, part: str) -> list[Gesture]:
    folders = folders_in(root / CUTS[part])
    for folder in folders:
        if not RECORDING.fullmatch(f"{folder.name}.aedat"):
            raise DataCorrupt(f"{folder}: its name is not that of a recording, such as user01_led")
    paths = [path.relative_to(root) for folder in folders for path in files_in(folder, {".npy"})]
    files = sorted(paths, key=lambda path: (path.parent.as_posix(), len(path.stem), path.stem))
    strange = [path for path in files if not path.stem.isdecimal() or int(path.stem) >= len(CLASSES)]
    if strange:
        raise DataCorrupt(f"{root / strange[0]}: the name must be a class, 0.npy to 10.npy")
    return [Gesture(part, path.as_posix(), int(path.stem), span=None) for path in files]
