"""What the image sets share: images as bytes, torchvision's augmentations, one normalisation on the device."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from datamodules.base import BenchmarkDataModule
from datamodules.batches import Batch
from datamodules.splits import Indices

MIXUP_ALPHA = 0.2

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a batch of bytes and labels to a normalised float32 batch and class shares [B, classes]."""


class ImageDataModule(BenchmarkDataModule):
    """A set of colour images, ``x: [B, 3, H, W]``; the classifier shows each one for T time steps.

    Loaders give bytes; on the device they become float32 with mean 0 and deviation 1 over the training images.
    Calibration batches, which a method may read without a Trainer, are so at once.

    Args:
        root: see `BenchmarkDataModule`, as the other arguments that are not named here.
        timesteps: T, how many times the classifier shows the same image.
        augment: names of augmentations for training images, applied in this order; see `transforms`.
        options: of `BenchmarkDataModule`.

    Raises:
        ValueError: an augmentation that there is not.
    """

    mean: ClassVar[tuple[float, float, float]]
    """Mean of each channel over the training images, as a share of 255."""
    std: ClassVar[tuple[float, float, float]]
    """Standard deviation of each channel, as a share of 255."""
    transforms: ClassVar[dict[str, Callable[[], v2.Transform]]]
    """Augmentations of one image as bytes, by name."""
    other_augmentations: ClassVar[tuple[str, ...]] = ("mixup",)
    """Names of augmentations that are done elsewhere than on one image as bytes."""

    def __init__(
        self, root: str | Path | None = None, *, timesteps: int = 4, augment: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(root, timesteps=timesteps, **options)
        known = [*self.transforms, *self.other_augmentations]
        for name in augment:
            if name not in known:
                raise ValueError(f"unknown augmentation {name!r}; {self.name} has: {', '.join(known)}")
        self.augment = tuple(augment)

    def settings(self) -> dict[str, Any]:
        """The augmentations."""
        return {"augment": list(self.augment)}

    def to_float(self, x: Tensor) -> Tensor:
        """Bytes as float32 with mean 0 and deviation 1."""
        scaled = functional.to_dtype(x, torch.float32, scale=True)
        return functional.normalize(scaled, list(self.mean), list(self.std), inplace=True)

    def training_transforms(self) -> list[v2.Transform]:
        """The augmentations of one image as bytes that were asked for."""
        return [self.transforms[name]() for name in self.augment if name in self.transforms]

    def mixing(self, augment: bool) -> Mix | None:
        """Mixup, if asked for."""
        return self._mix if augment and "mixup" in self.augment else None

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return v2.MixUp(alpha=MIXUP_ALPHA, num_classes=self.num_classes)(self.to_float(images), labels)


class Images(Dataset):
    """Some images with their labels; a `Batch` gives bytes [B, 3, H, W] and labels [B].

    Args:
        load: from indices to that many images.
        samples: which images, shape [n].
        labels: their classes, shape [n].
        transform: from a loaded image to a tensor of bytes, random if it likes; or None.
        mix: of a whole batch, which makes it float32 and its labels class shares [B, classes]; or None.
    """

    def __init__(
        self,
        load: Callable[[Indices], Iterable[Any]],
        samples: Indices,
        labels: Indices,
        transform: v2.Transform | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.load = load
        self.samples = samples
        self.labels = labels
        self.transform = transform
        self.mix = mix

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = self.load(self.samples[batch.positions])
        labels = torch.from_numpy(self.labels[batch.positions])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch.seed)
            if self.transform is not None:
                images = [self.transform(image) for image in images]
            stacked = images if isinstance(images, Tensor) else torch.stack(list(images))
            return (stacked, labels) if self.mix is None else self.mix(stacked, labels)
