"""What CIFAR-10 and CIFAR-100 share (Krizhevsky, 2009): files of 32x32 images, in the layout that torchvision uses."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from datamodules.base import SampleTable
from datamodules.errors import DataCorrupt, DataMissing
from datamodules.files import checksum, file_in
from datamodules.image_set import ImageDataModule, Images
from datamodules.isolation import decode
from datamodules.splits import Indices, hold_out_validation

SIDE = 32
GREY = 127
"""What is left of the square of 16 pixels that cutout (DeVries and Taylor, arXiv 1708.04552) takes from an image."""


class CIFAR(ImageDataModule):
    """60,000 images in a few pickles; official split, a tenth of the training images for validation.

    A subclass says which of the two sets it is: `published`, `title`, `decoders`.

    Args:
        root: see `ImageDataModule`, as the other arguments that are not named here.
        official_checksums: refuse files other than the published ones. Without it the same layout is read
            whatever its checksums; nothing but arrays, lists and text is unpickled either way.
        options: of `ImageDataModule`.
    """

    published: ClassVar[type[torchvision.datasets.CIFAR10]]
    """torchvision's class of the set: it lists the files with their md5, and the archive."""
    title: ClassVar[str]
    """The set's name for people."""
    decoders: ClassVar[tuple[str, str]]
    """Which of :mod:`datamodules.decoders` read its images, and its names of classes."""
    transforms: ClassVar[dict[str, Callable[[], v2.Transform]]] = {
        "crop": partial(v2.RandomCrop, SIDE, padding=4),
        "flip": v2.RandomHorizontalFlip,
        "autoaugment": partial(v2.AutoAugment, v2.AutoAugmentPolicy.CIFAR10),
        "erase": v2.RandomErasing,
        "cutout": partial(v2.RandomErasing, 1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value=GREY),
    }
    published_samples = 60_000

    def __init__(self, root: str | Path | None = None, *, official_checksums: bool = True, **options: Any) -> None:
        super().__init__(root, **options)
        self.official_checksums = official_checksums

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, 32, 32)."""
        return 3, SIDE, SIDE

    def list_samples(self) -> SampleTable:
        """Training images in the order of their files, then test images."""
        folder, meta = self.published.base_folder, self.published.meta
        labels = {file: labels for file, (_, labels) in self._contents.items()}
        sources = [f"{folder}/{file}" for file in labels for _ in labels[file]]
        keys = [f"{file}/{index}" for file in labels for index in range(len(labels[file]))]
        training = sum(len(labels[file]) for file, _ in self.published.train_list)
        all_labels = np.concatenate(list(labels.values()))
        parts = hold_out_validation(keys, all_labels, np.arange(training, len(keys)), f"{self.name} validation")
        return SampleTable(keys, all_labels, parts, sources, (f"{folder}/{meta['filename']}",))

    def dataset(self, samples: Indices, *, augment: bool) -> Images:
        """The given images."""
        augmentations = self.training_transforms() if augment else []
        transform = v2.Compose(augmentations) if augmentations else None
        return Images(self._pixels.__getitem__, samples, self.samples.labels[samples], transform, self.mixing(augment))

    def check(self, sample: int) -> None:
        """Nothing to read that `list_samples` has not read."""

    def class_names(self) -> list[str]:
        """Name of each class."""
        path = self._files[self.published.meta["filename"]]
        names = decode(self.decoders[1], path, f"{self.title}'s names of classes")[0].tolist()
        if len(names) != self.num_classes:
            raise DataCorrupt(f"{path}: names {len(names)} classes, and there are {self.num_classes}")
        return names

    @cached_property
    def _pixels(self) -> Tensor:
        """All images, training before test, uint8 [n, 3, 32, 32]."""
        return torch.from_numpy(np.concatenate([pixels for pixels, _ in self._contents.values()]))

    @cached_property
    def _contents(self) -> dict[str, tuple[NDArray[np.uint8], Indices]]:
        """Images and labels of each file, training before test."""
        return {file: self._read(self._files[file]) for file, _ in self.published.train_list + self.published.test_list}

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Where each published file is, by its name.

        Raises:
            DataMissing: it is not there.
            DataCorrupt: it is no file, or not the published one and that was asked for.
        """
        folder, meta = self.root / self.published.base_folder, self.published.meta
        official = dict(self.published.train_list + self.published.test_list) | {meta["filename"]: meta["md5"]}
        files = {name: path for name in official if (path := file_in(folder, name))}
        for name in official:
            if name not in files:
                raise DataMissing(f"{self.name}: no file {folder / name}; {self.instructions}")
        if self.official_checksums:
            for name, path in files.items():
                _require_md5(path, official[name])
        return files

    def _read(self, path: Path) -> tuple[NDArray[np.uint8], Indices]:
        pixels, labels = decode(self.decoders[0], path, f"images of {self.title}")
        if not ((labels >= 0) & (labels < self.num_classes)).all():
            raise DataCorrupt(f"{path}: expected labels from 0 to {self.num_classes - 1}")
        return pixels.reshape(-1, 3, SIDE, SIDE), labels


def _require_md5(path: Path, official: str) -> None:
    md5 = checksum(path, "md5")
    if md5 != official:
        raise DataCorrupt(
            f"{path}: md5 {md5} is not the official {official}; get the file again, or give"
            " official_checksums=False if it is meant to differ"
        )
