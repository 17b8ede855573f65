"""ImageNet 2012, the 1,000 classes of ILSVRC (Russakovsky et al., 2015, doi:10.1007/s11263-015-0816-y)."""

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import v2

from datamodules.base import SampleTable
from datamodules.errors import DataCorrupt, DataMissing
from datamodules.image_set import ImageDataModule, Images
from datamodules.splits import Indices, hold_out_validation

ENDINGS = {".jpeg", ".jpg", ".png"}
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH = f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{DEVKIT}/data/meta.mat"
RESIZE_RATIO = 256 / 224


@cache
def wnids() -> tuple[str, ...]:
    """WordNet identifiers of the 1,000 classes, sorted: the position is the label that everyone uses."""
    return tuple((Path(__file__).parent / "imagenet_wnids.txt").read_text().split())


class ImageNet(ImageDataModule):
    """``train/<wnid>/*.JPEG`` with ``val/<wnid>/*.JPEG``, or with a flat ``val/`` and the development kit.

    Any subset of the classes will do: labels stay 0 to 999, and test images of classes that ``train/`` lacks are
    left out. Grayscale and CMYK files become RGB. Test is the official validation part; a tenth of the training
    images is for validation. The first fingerprint reads every file once.

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

    def list_samples(self) -> SampleTable:
        """Training images in order of their path, then test images."""
        train = list(_in_class_folders(self.root, "train"))
        present = {label for _, label in train}
        test = [(file, label) for file, label in self._test_images() if label in present]
        for part, images in (("train", train), ("val", test)):
            if not images:
                raise DataMissing(f"{self.name}: no images in {self.root / part}; {self.instructions}")
        files, labels = zip(*train, *test, strict=True)
        keys, all_labels = list(files), np.array(labels, dtype=np.int64)
        parts = hold_out_validation(keys, all_labels, np.arange(len(train), len(keys)), "imagenet validation")
        return SampleTable(keys, all_labels, parts, sources=keys)

    def _test_images(self) -> list[tuple[str, int]]:
        flat = sorted(path for path in (self.root / "val").glob("*.*") if path.suffix.lower() in ENDINGS)
        if not flat:
            return list(_in_class_folders(self.root, "val"))
        labels = self._validation_labels
        numbers = [path.stem.rpartition("_")[2] for path in flat]
        for path, number in zip(flat, numbers, strict=True):
            if not number.isdigit() or not 1 <= int(number) <= len(labels):
                raise DataCorrupt(f"{path}: its name must end in a number from 1 to {len(labels)}")
        return [(f"val/{path.name}", labels[int(number) - 1]) for path, number in zip(flat, numbers, strict=True)]

    @cached_property
    def _validation_labels(self) -> list[int]:
        """Label of each official validation image, in order of their numbers."""
        import scipy.io  # heavy, and for a flat folder only

        synsets = scipy.io.loadmat(io.BytesIO(self._devkit(META)), squeeze_me=True)["synsets"]
        wnid_of = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        return [wnids().index(wnid_of[int(number)]) for number in self._devkit(GROUND_TRUTH).split()]

    def _devkit(self, file: str) -> bytes:
        archive = self.root / f"{DEVKIT}.tar.gz"
        if (self.root / file).is_file():
            return (self.root / file).read_bytes()
        if not archive.is_file():
            raise DataMissing(f"{self.name}: val/ is flat, and {self.root / file} is not there; {self.instructions}")
        with tarfile.open(archive) as content:
            try:
                member = content.extractfile(file)
            except KeyError:
                member = None
            if member is None:
                raise DataCorrupt(f"{archive}: holds no file {file}; get the archive again")
            return member.read()

    def dataset(self, samples: Indices, *, augment: bool) -> Images:
        """The given images, read from their files."""
        cut: list[v2.Transform] = [
            v2.Resize(round(self.image_size * RESIZE_RATIO), antialias=True),
            v2.CenterCrop(self.image_size),
        ]
        if augment and "crop" in self.augment:
            cut = [v2.RandomResizedCrop(self.image_size, antialias=True)]
        augmentations = self.training_transforms() if augment else []
        transform = v2.Compose([*cut, v2.PILToTensor(), *augmentations])
        load = partial(_read_images, self.root, self.samples.sources)
        return Images(load, samples, self.samples.labels[samples], transform, self.mixing(augment))

    def check(self, sample: int) -> None:
        """Decode one image."""
        _read_image(self.root / self.samples.sources[sample])

    def class_names(self) -> list[str]:
        """WordNet identifier of each class."""
        return list(wnids())


def _in_class_folders(root: Path, part: str) -> Iterator[tuple[str, int]]:
    """(file, label) of each image in ``<part>/<wnid>/``, in order of their path."""
    for folder in sorted(path for path in (root / part).glob("*") if path.is_dir()):
        if folder.name not in wnids():
            raise DataCorrupt(f"{folder}: {folder.name} is no wnid of ImageNet's 1,000 classes")
        label = wnids().index(folder.name)
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in ENDINGS:
                yield f"{part}/{folder.name}/{path.name}", label


def _read_images(root: Path, sources: list[str], samples: Indices) -> list[Image.Image]:
    return [_read_image(root / sources[sample]) for sample in samples]


def _read_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataCorrupt(f"{path}: cannot be read as an image: {error}") from error
