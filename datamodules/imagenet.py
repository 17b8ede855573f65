"""ImageNet 2012, the 1,000 classes of ILSVRC (Russakovsky et al., 2015, doi:10.1007/s11263-015-0816-y)."""

import tarfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from numpy.typing import NDArray
from torchvision.transforms import v2

from datamodules.errors import DataCorrupt, DataMissing, decoding
from datamodules.files import files_in
from datamodules.isolation import decode
from datamodules.photographs import ENDINGS, Labelled, PhotographDataModule

LARGEST_TABLE_BYTES = 1 << 26
"""Longest file of the development kit that is unpacked."""

DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH = f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{DEVKIT}/data/meta.mat"
RESIZE_RATIO = 256 / 224


@cache
def wnids() -> tuple[str, ...]:
    """WordNet identifiers of the 1,000 classes, sorted: the position is the label that everyone uses."""
    return tuple((Path(__file__).parent / "imagenet_wnids.txt").read_text().split())


class ImageNet(PhotographDataModule):
    """``train/<wnid>/*.JPEG`` with ``val/<wnid>/*.JPEG``, or with a flat ``val/`` and the development kit.

    Labels are 0 to 999 in order of the identifiers. `PhotographDataModule` says what else is read and how it is split.

    Args:
        root: see `ImageDataModule`, as the other arguments that are not named here.
        image_size: side of an image in pixels; the shorter side is resized to 256/224 of it first, then the centre
            is cut out. The augmentation ``crop`` takes a random part instead.
        options: of `ImageDataModule`.
    """

    name = "imagenet"
    num_classes = 1000
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    transforms: ClassVar[dict[str, Callable[[], v2.Transform]]] = {
        "flip": v2.RandomHorizontalFlip,
        "autoaugment": v2.AutoAugment,
        "erase": v2.RandomErasing,
    }
    other_augmentations = ("crop", "mixup")
    published_samples = 1_281_167 + 50_000
    instructions = (
        "its licence wants you to get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and"
        " ILSVRC2012_devkit_t12.tar.gz yourself from https://image-net.org/download; unpack them, so that the folder"
        " holds train/<wnid>/*.JPEG and val/ (<wnid>/*.JPEG, or *.JPEG beside ILSVRC2012_devkit_t12.tar.gz)"
    )

    def __init__(self, root: str | Path | None = None, *, image_size: int = 224, **options: Any) -> None:
        super().__init__(root, **options)
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}; it must be at least 1")
        self.image_size = image_size

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, image_size, image_size)."""
        return 3, self.image_size, self.image_size

    @property
    def wnids(self) -> tuple[str, ...]:
        """WordNet identifier of each class."""
        return wnids()

    def training_images(self) -> list[Labelled]:
        """Images of ``train/<wnid>/``."""
        return list(self.in_class_folders("train"))

    def test_images(self) -> list[Labelled]:
        """Images of ``val/<wnid>/``, or of a flat ``val/``."""
        flat = files_in(self.root / "val", ENDINGS)
        if not flat:
            return list(self.in_class_folders("val"))
        labels = self._validation_labels
        numbers = [path.stem.rpartition("_")[2] for path in flat]
        for path, number in zip(flat, numbers, strict=True):
            if not number.isdecimal() or not 1 <= int(number) <= len(labels):
                raise DataCorrupt(f"{path}: its name must end in a number from 1 to {len(labels)}")
        return [(f"val/{path.name}", labels[int(number) - 1]) for path, number in zip(flat, numbers, strict=True)]

    def cut(self, *, augment: bool) -> list[v2.Transform]:
        """The centre, or a random part."""
        if augment and "crop" in self.augment:
            return [v2.RandomResizedCrop(self.image_size, antialias=True)]
        return [v2.Resize(round(self.image_size * RESIZE_RATIO), antialias=True), v2.CenterCrop(self.image_size)]

    @cached_property
    def _validation_labels(self) -> list[int]:
        """Label of each official validation image, in order of their numbers."""
        numbers, names = self._devkit(META, _synsets)
        wnid_of = dict(zip(numbers.tolist(), names.tolist(), strict=True))
        shown = self._devkit(GROUND_TRUTH, lambda path: path.read_bytes().split())
        with decoding(self.root / GROUND_TRUTH, "numbers of ImageNet's classes"):
            return [wnids().index(wnid_of[int(number)]) for number in shown]

    def _devkit(self, file: str, read: Callable[[Path], Any]) -> Any:
        """What `read` makes of a file of the development kit, unpacked or in its archive."""
        archive = self.root / f"{DEVKIT}.tar.gz"
        if (self.root / file).is_file():
            return read(self.root / file)
        if not archive.is_file():
            raise DataMissing(f"{self.name}: val/ is flat, and {self.root / file} is not there; {self.instructions}")
        with TemporaryDirectory() as folder:
            return read(_unpacked(archive, file, Path(folder)))


def _synsets(path: Path) -> list[NDArray[Any]]:
    return decode("synsets", path, "the table of ImageNet's classes")


def _unpacked(archive: Path, file: str, folder: Path) -> Path:
    """Unpack one file of an archive into a folder."""
    with decoding(archive, "an archive"), tarfile.open(archive) as content:
        member = next((entry for entry in content if entry.name == file), None)
        if member is None or not member.isfile() or member.size > LARGEST_TABLE_BYTES:
            raise DataCorrupt(f"{archive}: holds no file {file}; get the archive again")
        source = content.extractfile(member)
        assert source is not None  # that of a file
        unpacked = folder / Path(file).name
        unpacked.write_bytes(source.read())
    return unpacked
