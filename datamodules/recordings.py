"""Simulated recordings on disk: N-MNIST's format, some in each file, so that few files are to list, hash and open.

``recordings.csv`` has a line for each recording: its part, the number of its image there, label and length. A part's
files ``<part>/0000.bin`` and so on hold its recordings in this order.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import DataCorrupt
from datamodules.events import Events, decode_nmnist
from datamodules.files import files_in

LIST = "recordings.csv"
HEAD = ["part", "number", "label", "bytes"]
PER_FILE = 25
"""Recordings in a file, 0.5 MB together."""

REMEDY = "remove the folder, and the recordings are simulated again"


@dataclass(frozen=True)
class Recording:
    """Where a recording is, and what it shows.

    Args:
        part: ``Train`` or ``Test``.
        number: of the image in its part.
        label: class of the image.
        file: relative to the folder.
        begin: of its events in the file, in bytes.
        length: of its events, in bytes.
    """

    part: str
    number: int
    label: int
    file: str
    begin: int
    length: int

    @property
    def key(self) -> str:
        """A name that no other recording has, whichever file it is in."""
        return f"{self.part}/{self.number:05d}"


def file_name(part: str, place: int) -> str:
    """The file that holds the part's recording at this place of its order."""
    return f"{part}/{place // PER_FILE:04d}.bin"


def write(folder: Path, recordings: Iterable[tuple[str, int, int, bytes]]) -> None:
    """Write recordings (part, number, label, events), part by part, into an empty folder."""
    places: dict[str, int] = defaultdict(int)
    with (folder / LIST).open("w", newline="", encoding="ascii") as listing:
        lines = csv.writer(listing, lineterminator="\n")
        lines.writerow(HEAD)
        for part, number, label, events in recordings:
            path = folder / file_name(part, places[part])
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                file.write(events)
            lines.writerow((part, number, label, len(events)))
            places[part] += 1


def listed(folder: Path, classes: int) -> list[Recording]:
    """All recordings of a folder, those of one file together.

    Raises:
        DataCorrupt: the list is not as it was written, or the files are not those of the list.
    """
    path = folder / LIST
    try:
        recordings = list(_parsed(path, classes))
    except (OSError, ValueError, csv.Error) as error:
        raise DataCorrupt(f"{path}: is no list of recordings ({error}); {REMEDY}") from error
    sizes = {recording.file: recording.begin + recording.length for recording in recordings}
    paths = [path for part in ("Train", "Test") for path in files_in(folder / part, {".bin"})]
    found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    for file in sorted(sizes.keys() | found.keys()):
        there, expected = (known.get(file, "no") for known in (found, sizes))
        if there != expected:
            raise DataCorrupt(f"{folder / file}: has {there} bytes instead of {expected} as in {LIST}; {REMEDY}")
    return recordings


def read(folder: Path, recording: Recording, sensor_size: tuple[int, int]) -> Events:
    """Events of one recording, in order of time; DataCorrupt names it if it cannot be used."""
    path = folder / recording.file
    try:
        with path.open("rb") as file:
            file.seek(recording.begin)
            content = file.read(recording.length)
    except OSError as error:
        raise DataCorrupt(f"{path}: cannot be read: {error.strerror}; {REMEDY}") from error
    return decode_nmnist(content, sensor_size, f"{path}, recording {recording.key} of {LIST}")


def _parsed(path: Path, classes: int) -> Iterator[Recording]:
    places: dict[str, int] = defaultdict(int)
    ends: dict[str, int] = defaultdict(int)  # of what each file holds so far
    with path.open(newline="", encoding="ascii") as listing:
        rows = csv.reader(listing)
        if next(rows, None) != HEAD:
            raise ValueError(f"it does not begin with {','.join(HEAD)}")
        for line, (part, *columns) in enumerate(rows, 2):
            number, label, length = map(int, columns)
            if part not in ("Train", "Test") or number < 0 or not 0 <= label < classes or length <= 0:
                raise ValueError(f"line {line} is impossible")
            file = file_name(part, places[part])
            yield Recording(part, number, label, file, ends[file], length)
            places[part] += 1
            ends[file] += length
