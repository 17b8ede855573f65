"""More from the same calibration samples: pictures and recordings changed in ways that leave their class alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from compressors.calibration.hessians import CalibrationError

SHIFT_SHARE = 1 / 16
"""Farthest shift, as a share of the shorter side: 2 pixels of 34."""


def _shift(x: Tensor) -> Tensor:
    """Move one sample by some pixels; what leaves is lost, and silence (zeros) comes in."""
    height, width = x.shape[-2:]
    return v2.RandomCrop((height, width), padding=round(SHIFT_SHARE * min(height, width)))(x)


def _flip(x: Tensor) -> Tensor:
    """Mirror every other sample, on average, left to right."""
    return v2.RandomHorizontalFlip()(x)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"shift": _shift, "flip": _flip}
"""By name; each changes one sample ``[..., H, W]``."""


def augmented(x: Tensor, names: Sequence[str], seed: int) -> Tensor:
    """A batch ``[B, ..., H, W]`` of which every sample was changed in its own way; the same seed gives the same.

    Raises:
        CalibrationError: the samples are no pictures.
    """
    if not names:
        return x
    if x.dim() < 4:
        raise CalibrationError(f"augment changes pictures [B, ..., H, W]: leave it out for inputs {list(x.shape)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([_changed(sample, names) for sample in x])


def with_copies(batches: Iterable[Tensor], names: Sequence[str], copies: int) -> Iterator[Tensor]:
    """Each batch, and behind it so many of its kind in which every sample was changed: the same ones each time."""
    for place, x in enumerate(batches):
        yield x
        for number in range(copies):
            yield augmented(x, names, place * copies + number)


def _changed(sample: Tensor, names: Sequence[str]) -> Tensor:
    for name in names:
        sample = AUGMENTATIONS[name](sample)
    return sample
