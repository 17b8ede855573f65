"""CIFAR-100 (Krizhevsky, 2009), in the layout that torchvision uses."""

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
from datamodules.download import Download
from datamodules.errors import DataCorrupt, DataMissing
from datamodules.files import checksum
from datamodules.image_set import ImageDataModule, Images
from datamodules.isolation import decode
from datamodules.splits import Indices, hold_out_validation

FOLDER = torchvision.datasets.CIFAR100.base_folder
CHECKSUMS = dict(torchvision.datasets.CIFAR100.train_list + torchvision.datasets.CIFAR100.test_list)
"""Official md5 of each file that holds images."""

SIDE = 32


class CIFAR100(ImageDataModule):
    """``cifar-100-python/{train,test,meta}``; official split, a tenth of the training images for validation.

    Args:
        root: see `ImageDataModule`, as the other arguments that are not named here.
        official_checksums: refuse files other than the published ones. Without it the same layout is read
            whatever its checksums; nothing but arrays, lists and text is unpickled either way.
        options: of `ImageDataModule`.
    """

    name = "cifar100"
    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    transforms: ClassVar[dict[str, Callable[[], v2.Transform]]] = {
        "crop": partial(v2.RandomCrop, SIDE, padding=4),
        "flip": v2.RandomHorizontalFlip,
        "autoaugment": partial(v2.AutoAugment, v2.AutoAugmentPolicy.CIFAR10),
        "erase": v2.RandomErasing,
    }
    published_samples = 60_000
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            torchvision.datasets.CIFAR100.url,
            torchvision.datasets.CIFAR100.filename,
            torchvision.datasets.CIFAR100.tgz_md5,
        ),
    )
    instructions = (
        "get cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it, so that the"
        " folder holds cifar-100-python/train, test and meta"
    )

    def __init__(self, root: str | Path | None = None, *, official_checksums: bool = True, **options: Any) -> None:
        super().__init__(root, **options)
        self.official_checksums = official_checksums

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, 32, 32)."""
        return 3, SIDE, SIDE

    def list_samples(self) -> SampleTable:
        """Training images in the order of their file, then test images."""
        labels = {part: self._contents[part][1] for part in CHECKSUMS}
        sources = [f"{FOLDER}/{part}" for part in CHECKSUMS for _ in labels[part]]
        keys = [f"{part}/{index}" for part in CHECKSUMS for index in range(len(labels[part]))]
        test = np.arange(len(labels["train"]), len(keys))
        all_labels = np.concatenate([labels[part] for part in CHECKSUMS])
        parts = hold_out_validation(keys, all_labels, test, "cifar100 validation")
        return SampleTable(keys, all_labels, parts, sources, (f"{FOLDER}/meta",))

    def dataset(self, samples: Indices, *, augment: bool) -> Images:
        """The given images."""
        augmentations = self.training_transforms() if augment else []
        transform = v2.Compose(augmentations) if augmentations else None
        return Images(self._pixels.__getitem__, samples, self.samples.labels[samples], transform, self.mixing(augment))

    def check(self, sample: int) -> None:
        """Nothing to read that `list_samples` has not read."""

    def class_names(self) -> list[str]:
        """Name of each class."""
        path = self.root / FOLDER / "meta"
        names = decode("cifar_names", path, "CIFAR-100's names of classes")[0].tolist()
        if len(names) != self.num_classes:
            raise DataCorrupt(f"{path}: names {len(names)} classes, and there are {self.num_classes}")
        return names

    @cached_property
    def _pixels(self) -> Tensor:
        """All images, training before test, uint8 [n, 3, 32, 32]."""
        return torch.from_numpy(np.concatenate([self._contents[part][0] for part in CHECKSUMS]))

    @cached_property
    def _contents(self) -> dict[str, tuple[NDArray[np.uint8], Indices]]:
        """Images and labels of each file."""
        for file in (*CHECKSUMS, "meta"):
            if not (self.root / FOLDER / file).is_file():
                raise DataMissing(f"{self.name}: no file {self.root / FOLDER / file}; {self.instructions}")
        return {part: self._read(self.root / FOLDER / part) for part in CHECKSUMS}

    def _read(self, path: Path) -> tuple[NDArray[np.uint8], Indices]:
        if self.official_checksums:
            md5 = checksum(path, "md5")
            if md5 != CHECKSUMS[path.name]:
                raise DataCorrupt(
                    f"{path}: md5 {md5} is not the official {CHECKSUMS[path.name]}; get the file again, or give"
                    " official_checksums=False if it is meant to differ"
                )
        pixels, labels = decode("cifar_images", path, "images of CIFAR-100")
        if not ((labels >= 0) & (labels < self.num_classes)).all():
            raise DataCorrupt(f"{path}: expected fine_labels from 0 to {self.num_classes - 1}")
        return pixels.reshape(-1, 3, SIDE, SIDE), labels
