"""Tiny ImageNet: 200 classes of ImageNet at 64x64 pixels (Le and Yang, Stanford's course CS231n, 2015)."""

import re
from collections.abc import Callable
from functools import cached_property, partial
from os.path import lexists
from pathlib import Path
from typing import ClassVar

from torchvision.transforms import v2

from datamodules.download import Download
from datamodules.errors import DataCorrupt, DataMissing, decoding
from datamodules.files import file_in, files_in
from datamodules.photographs import ENDINGS, Labelled, PhotographDataModule

SIDE = 64
ARCHIVE_FOLDER = "tiny-imagenet-200"
WNIDS = "wnids.txt"
ANNOTATIONS = "val_annotations.txt"

WNID = re.compile(r"n\d{8}", re.ASCII)
ANNOTATION = re.compile(rf"(?P<file>[^\t]+)\t(?P<wnid>{WNID.pattern})(\t[^\t]*)*", re.ASCII)
"""A line about one image of ``val/``; behind the class stands a box, which is not used."""

LONGEST_LIST_BYTES = 1 << 26


class TinyImageNet(PhotographDataModule):
    """``wnids.txt``, ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``.

    The folder holds them, or Stanford's folder ``tiny-imagenet-200`` with them: it is the same data with the same
    fingerprint. Labels are 0 to 199 in order of the identifiers, whatever the order of ``wnids.txt``. The official
    ``test/`` has no labels, so the validation part is the test set, as in papers. `PhotographDataModule` says what else
    is read and how it is split.

    Mean and deviation are those of all pixels of the 100,000 training images: 122.4602, 114.2571, 101.3639 and
    70.4915, 68.5601, 71.8054 of 255, as lists of such figures have them (not computed anew). The augmentation
    ``crop`` cuts 64x64 out of an image with 8 pixels of black around it, as QP-SNN's code does.
    """

    name = "tiny_imagenet"
    num_classes = 200
    mean = (0.4802, 0.4481, 0.3975)
    std = (0.2764, 0.2689, 0.2816)
    transforms: ClassVar[dict[str, Callable[[], v2.Transform]]] = {
        "crop": partial(v2.RandomCrop, SIDE, padding=8),
        "flip": v2.RandomHorizontalFlip,
        "autoaugment": v2.AutoAugment,
        "erase": v2.RandomErasing,
    }
    published_samples = 100_000 + 10_000
    file_size = (SIDE, SIDE)
    lists: ClassVar[tuple[str, ...]] = (WNIDS, f"val/{ANNOTATIONS}")
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
        ),
    )
    instructions = (
        "get http://cs231n.stanford.edu/tiny-imagenet-200.zip (ImageNet's terms: research, no commerce) and unpack it,"
        " so that the folder holds tiny-imagenet-200/ with wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and"
        " val/val_annotations.txt"
    )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, 64, 64)."""
        return 3, SIDE, SIDE

    @property
    def folder(self) -> Path:
        """The root, or the archive's folder in it."""
        inner = self.root / ARCHIVE_FOLDER
        return self.root if lexists(self.root / WNIDS) or not lexists(inner) else inner

    @cached_property
    def wnids(self) -> tuple[str, ...]:
        """WordNet identifier of each class, sorted."""
        path = self._list(self.folder, WNIDS)
        with decoding(path, "a list of WordNet identifiers"):
            found = _lines(path)
            strange = [line for line in found if not WNID.fullmatch(line)]
            if strange:
                raise ValueError(f"{strange[0][:80]!r} is no identifier such as n01443537")
            if not len(set(found)) == len(found) == self.num_classes:
                raise ValueError(
                    f"it names {len(set(found))} classes in {len(found)} lines instead of {self.num_classes}"
                )
        return tuple(sorted(found))

    def training_images(self) -> list[Labelled]:
        """Images of ``train/<wnid>/images/``."""
        return list(self.in_class_folders("train", "images"))

    def test_images(self) -> list[Labelled]:
        """Images of ``val/images/``, of the classes that ``val_annotations.txt`` says."""
        labels = self._annotations
        images = files_in(self.folder / "val" / "images", ENDINGS)
        for path in images:
            if path.name not in labels:
                raise DataCorrupt(f"{path}: {ANNOTATIONS} does not say what it shows; remove it if it is a copy")
        return [(f"val/images/{path.name}", labels[path.name]) for path in images]

    def cut(self, *, augment: bool) -> list[v2.Transform]:
        """The files have the network's size."""
        return []

    @cached_property
    def _annotations(self) -> dict[str, int]:
        """Class of each image of ``val/``, by the file's name."""
        path = self._list(self.folder / "val", ANNOTATIONS)
        label_of = {wnid: label for label, wnid in enumerate(self.wnids)}
        labels: dict[str, int] = {}
        with decoding(path, "a table of file, class and box, with tabs between them"):
            for line in _lines(path):
                row = ANNOTATION.fullmatch(line)
                if row is None or row["wnid"] not in label_of or row["file"] in labels:
                    raise ValueError(f"{line[:80]!r} names no class of {WNIDS}, or a file a second time")
                labels[row["file"]] = label_of[row["wnid"]]
        return labels

    def _list(self, folder: Path, name: str) -> Path:
        path = file_in(folder, name)
        if path is None:
            raise DataMissing(f"{self.name}: no file {folder / name}; {self.instructions}")
        return path


def _lines(path: Path) -> list[str]:
    """The lines of a list that are not empty."""
    if path.stat().st_size > LONGEST_LIST_BYTES:
        raise ValueError(f"it is longer than {LONGEST_LIST_BYTES:,} bytes")
    return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
