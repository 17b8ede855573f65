"""What ImageNet and Tiny ImageNet share: photographs in files of their own, classes named by WordNet identifiers."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from torchvision.transforms import v2

from datamodules.base import SampleTable
from datamodules.errors import DataCorrupt, DataMissing, decoding
from datamodules.files import files_in, folders_in
from datamodules.image_set import ImageDataModule, Images
from datamodules.splits import Indices, hold_out_validation

ENDINGS = {".jpeg", ".jpg", ".png"}
FORMATS = ("JPEG", "PNG")
"""What is decoded, whatever a file's ending; one of ImageNet's .JPEG files is a PNG."""

LARGEST_PIXELS = 89_478_485
"""Pillow's own limit, beyond which a small file may be made to fill the memory; ImageNet's largest has 61 million."""

Labelled = tuple[str, int]
"""A file, relative to the set's folder, and the class that it shows."""


class PhotographDataModule(ImageDataModule):
    """A set of photographs under ``train/`` and ``val/``, a file each.

    Any subset of the classes will do: labels stay what they are, and test images of classes that ``train/`` lacks are
    left out. Grayscale and CMYK files become RGB. Test is the official validation part; a tenth of the training
    images is for validation. The first fingerprint reads every file once.
    """

    file_size: ClassVar[tuple[int, int] | None] = None
    """(width, height) in pixels of every file, where the set says so."""
    lists: ClassVar[tuple[str, ...]] = ()
    """Files that say what the images show."""

    @property
    @abstractmethod
    def wnids(self) -> Sequence[str]:
        """WordNet identifier of each class; the position is the label."""

    @abstractmethod
    def training_images(self) -> list[Labelled]:
        """Images of ``train/`` in order of their path."""

    @abstractmethod
    def test_images(self) -> list[Labelled]:
        """Images of ``val/`` in order of their path."""

    @abstractmethod
    def cut(self, *, augment: bool) -> list[v2.Transform]:
        """From a photograph to one of the network's size."""

    def list_samples(self) -> SampleTable:
        """Training images in order of their path, then test images."""
        train = self.training_images()
        present = {label for _, label in train}
        test = [(file, label) for file, label in self.test_images() if label in present]
        for part, images in (("train", train), ("val", test)):
            if not images:
                raise DataMissing(f"{self.name}: no images in {self.folder / part}; {self.instructions}")
        files, labels = zip(*train, *test, strict=True)
        keys, all_labels = list(files), np.array(labels, dtype=np.int64)
        parts = hold_out_validation(keys, all_labels, np.arange(len(train), len(keys)), f"{self.name} validation")
        return SampleTable(keys, all_labels, parts, sources=keys, lists=self.lists)

    def dataset(self, samples: Indices, *, augment: bool) -> Images:
        """The given images, read from their files."""
        augmentations = self.training_transforms() if augment else []
        transform = v2.Compose([*self.cut(augment=augment), v2.PILToTensor(), *augmentations])
        load = partial(_read_all, self.folder, self.samples.sources, self.file_size)
        return Images(load, samples, self.samples.labels[samples], transform, self.mixing(augment))

    def check(self, sample: int) -> None:
        """Decode one image."""
        read_photograph(self.folder / self.samples.sources[sample], self.file_size)

    def class_names(self) -> list[str]:
        """WordNet identifier of each class."""
        return list(self.wnids)

    def in_class_folders(self, part: str, inside: str = "") -> Iterator[Labelled]:
        """The images in ``<part>/<wnid>/`` (in the folder `inside` of it, if given), in order of their path."""
        labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        listed = f" ({', '.join(self.lists)})" if self.lists else ""
        for folder in folders_in(self.folder / part):
            if folder.name not in labels:
                classes = f"{self.name}'s {len(labels):,} classes{listed}"
                raise DataCorrupt(f"{folder}: {folder.name} is no wnid of {classes}")
            place = Path(part, folder.name, inside).as_posix()
            for path in files_in(folder / inside, ENDINGS):
                yield f"{place}/{path.name}", labels[folder.name]


def read_photograph(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """One image as RGB.

    Args:
        path: its file.
        size: the (width, height) in pixels that it must have, if any.

    Raises:
        DataCorrupt: it is not there, no image, or of another size.
    """
    if not path.is_file():
        raise DataCorrupt(f"{path}: cannot be read: it is {'no file' if path.exists() else 'not there'}")
    with decoding(path, "an image"), Image.open(path, formats=FORMATS) as image:
        if size is not None and image.size != size:
            raise ValueError(f"{image.width}x{image.height} pixels instead of {size[0]}x{size[1]}")
        if image.width * image.height > LARGEST_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {LARGEST_PIXELS}")
        return image.convert("RGB")


def _read_all(folder: Path, sources: list[str], size: tuple[int, int] | None, samples: Indices) -> list[Image.Image]:
    return [read_photograph(folder / sources[sample], size) for sample in samples]
