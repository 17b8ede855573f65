"""Is a set whole and readable?"""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from datamodules.base import BenchmarkDataModule
from datamodules.errors import DataCorrupt
from datamodules.files import replacing
from datamodules.fingerprint import hash_files
from datamodules.parallel import map_in_order


@dataclass(frozen=True)
class Verification:
    """What was found in a set's folder.

    Args:
        name: of the set.
        split: the split that the counts are of.
        fingerprint: of files and split.
        samples: number of samples found.
        published_samples: number of samples that the whole set has.
        samples_per_class: class name -> {train, validation, calibration_pool, test} -> number.
        unusable: what is wrong with each sample that cannot be used; each names its file.
        duplicates: groups of files with the same content.
    """

    name: str
    split: str
    fingerprint: str
    samples: int
    published_samples: int
    samples_per_class: dict[str, dict[str, int]]
    unusable: list[str]
    duplicates: list[list[str]]

    @property
    def complete(self) -> bool:
        """Every published sample is there."""
        return self.samples == self.published_samples

    @property
    def sound(self) -> bool:
        """Every file that is there can be used, and none is there twice."""
        return not self.unusable and not self.duplicates


def verify(data: BenchmarkDataModule, *, workers: int | None = None, report: Path | None = None) -> Verification:
    """Read every sample, in parallel and with a progress bar, and hash every file.

    Args:
        data: the set.
        workers: processes that read; by default one a core, none for a small set.
        report: JSON file to write what was found to, with `complete` and `sound`.

    Raises:
        DataMissing: there is nothing to verify.
    """
    table = data.samples
    groups = table.by_file()
    faults = map_in_order(partial(_faults, data), groups, workers)
    unusable = [fault for group in track(faults, f"reading {data.name}", len(groups)) for fault in group]
    verification = Verification(
        name=data.name,
        split=data.split,
        fingerprint=data.fingerprint(),
        samples=len(table.keys),
        published_samples=data.published_samples,
        samples_per_class=_samples_per_class(data),
        unusable=unusable,
        duplicates=_duplicates(data.folder, sorted(set(table.sources))),
    )
    if report is not None:
        text = json.dumps(
            asdict(verification) | {"complete": verification.complete, "sound": verification.sound}, indent=2
        )
        with replacing(report) as unfinished:
            unfinished.write_text(text + "\n")
    return verification


def _faults(data: BenchmarkDataModule, samples: list[int]) -> list[str]:
    return [fault for sample in samples if (fault := _fault(data, sample))]


def _fault(data: BenchmarkDataModule, sample: int) -> str:
    try:
        data.check(sample)
    except DataCorrupt as error:
        return str(error)
    return ""


def _samples_per_class(data: BenchmarkDataModule) -> dict[str, dict[str, int]]:
    parts = asdict(data.samples.parts)
    counts = {
        part: np.bincount(data.samples.labels[where], minlength=data.num_classes) for part, where in parts.items()
    }
    return {name: {part: int(counts[part][label]) for part in parts} for label, name in enumerate(data.class_names())}


def _duplicates(root: Path, files: list[str]) -> list[list[str]]:
    same: dict[str, list[str]] = defaultdict(list)
    for file, content in hash_files(root, files).items():
        same[content].append(file)
    return [group for group in same.values() if len(group) > 1]
