"""Augmentations of event frames in their sparse form: each costs as much as there are events, not pixels.

``flip``, ``roll`` and ``cutout`` are those of neuromorphic data augmentation (Li et al., ECCV 2022,
arXiv:2203.06145), ``crop`` is the padded crop usual for CIFAR, ``event_drop`` is EventDrop (Gu et al., IJCAI 2021,
arXiv:2106.05836), ``mixup`` that of Zhang et al. (ICLR 2018, arXiv:1710.09412).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

Integers = NDArray[np.int64]

ROLL_SHARE = 5 / 48
"""Farthest roll as a share of the frame's side: 5 pixels of 48."""

CUTOUT_SHARE = 8 / 48
"""Longest side of the cut as a share of the frame's side: 8 pixels of 48."""

CROP_SHARE = 4 / 32
"""Padding as a share of the frame's side: 4 pixels of 32."""

DROP_RATIOS = (0.1, 0.9)
"""Share of events, or of the time span, that EventDrop drops: between these."""

DROP_AREA_SHARES = (0.05, 0.3)
"""Sides of the area that EventDrop empties, as shares of the frame's sides: between these."""

MIXUP_ALPHA = 0.5


@dataclass(frozen=True)
class EventBatch:
    """The filled cells of a batch: of which sample, where, and how many events; all arrays are [k].

    No cell stands twice, and every augmentation keeps it so.
    """

    sample: Integers
    step: Integers
    polarity: Integers
    y: Integers
    x: Integers
    count: Integers
    shape: tuple[int, ...]
    """(B, T, 2, H, W)"""

    @classmethod
    def from_flat(cls, cells: Integers, counts: Integers, shape: tuple[int, ...]) -> "EventBatch":
        """From flat indices into a dense batch of this shape."""
        sample, step, polarity, y, x = np.unravel_index(cells, shape)
        return cls(sample, step, polarity, y, x, counts, shape)

    def flat(self) -> Integers:
        """Flat index of each cell into a dense batch."""
        return np.ravel_multi_index((self.sample, self.step, self.polarity, self.y, self.x), self.shape)

    def where(self, keep: NDArray[np.bool_]) -> "EventBatch":
        """The cells for which `keep` is true."""
        columns = {name: getattr(self, name)[keep] for name in ("sample", "step", "polarity", "y", "x", "count")}
        return replace(self, **columns)


Generator = np.random.Generator


def flip(batch: EventBatch, random: Generator) -> EventBatch:
    """Mirror every other sample, on average, left to right."""
    mirrored = random.random(batch.shape[0]) < 0.5
    width = batch.shape[4]
    return replace(batch, x=np.where(mirrored[batch.sample], width - 1 - batch.x, batch.x))


def roll(batch: EventBatch, random: Generator) -> EventBatch:
    """Shift each sample by some pixels; what leaves on one side comes in on the other."""
    height, width = batch.shape[3:]
    dy, dx = _shifts(batch, random, ROLL_SHARE)
    return replace(batch, y=(batch.y + dy) % height, x=(batch.x + dx) % width)


def crop(batch: EventBatch, random: Generator) -> EventBatch:
    """Shift each sample by some pixels; what leaves is lost."""
    height, width = batch.shape[3:]
    dy, dx = _shifts(batch, random, CROP_SHARE)
    y, x = batch.y + dy, batch.x + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return replace(batch, y=y, x=x).where(inside)


def cutout(batch: EventBatch, random: Generator) -> EventBatch:
    """Empty a square at a random place of each sample."""
    size = batch.shape[0], 1
    longest = max(1, round(CUTOUT_SHARE * batch.shape[4]))
    side = random.integers(1, longest, size, endpoint=True)
    return batch.where(~_inside(batch, random, np.concatenate([side, side], axis=1)))


def event_drop(batch: EventBatch, random: Generator) -> EventBatch:
    """For each sample drop nothing, a stretch of time, an area, or single events at random."""
    samples, steps = batch.shape[:2]
    way = random.integers(0, 4, samples)[batch.sample]
    ratio = random.uniform(*DROP_RATIOS, samples)
    begin = random.random(samples) * (1 - ratio) * steps
    in_stretch = (batch.step >= begin[batch.sample]) & (batch.step < (begin + ratio * steps)[batch.sample])
    sides = np.ceil(random.uniform(*DROP_AREA_SHARES, (samples, 2)) * batch.shape[3:]).astype(np.int64)
    in_area = _inside(batch, random, sides)
    thinned = random.binomial(batch.count, 1 - ratio[batch.sample])
    count = np.select([way == 1, way == 2, way == 3], [batch.count * ~in_stretch, batch.count * ~in_area, thinned])
    count = np.where(way == 0, batch.count, count)
    return replace(batch, count=count).where(count > 0)


AUGMENTATIONS: dict[str, Callable[[EventBatch, Generator], EventBatch]] = {
    "flip": flip,
    "roll": roll,
    "crop": crop,
    "cutout": cutout,
    "event_drop": event_drop,
}


@dataclass(frozen=True)
class EventAugmentation:
    """Some augmentations, in order.

    Args:
        names: of `AUGMENTATIONS`, or ``"mixup"``, which comes last wherever it stands.
        classes: number of classes of the set, for mixup.

    Raises:
        ValueError: a name that there is not.
    """

    names: tuple[str, ...]
    classes: int

    def __post_init__(self) -> None:
        known = [*AUGMENTATIONS, "mixup"]
        for name in self.names:
            if name not in known:
                raise ValueError(f"unknown augmentation {name!r}; there are: {', '.join(known)}")

    def sparse(self, batch: EventBatch, seed: int) -> EventBatch:
        """The batch after all augmentations but mixup; the same seed gives the same result."""
        random = np.random.default_rng(seed)
        for name in self.names:
            if name != "mixup":
                batch = AUGMENTATIONS[name](batch, random)
        return batch

    def dense(self, frames: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix pairs of samples if asked for; labels become class shares, shape [B, classes], float32."""
        if "mixup" not in self.names:
            return frames, labels
        mix = v2.MixUp(alpha=MIXUP_ALPHA, num_classes=self.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mixed, shares = mix(tv_tensors.Video(frames.float()), labels)
        return mixed.as_subclass(Tensor), shares


def _shifts(batch: EventBatch, random: Generator, share: float) -> tuple[Integers, Integers]:
    """Vertical and horizontal shift of each cell's sample, at most `share` of the side."""
    farthest = np.floor(share * np.array(batch.shape[3:])).astype(np.int64)
    shifts = random.integers(-farthest, farthest, (batch.shape[0], 2), endpoint=True)
    dy, dx = shifts[batch.sample].T
    return dy, dx


def _inside(batch: EventBatch, random: Generator, sides: Integers) -> NDArray[np.bool_]:
    """Whether each cell lies in a rectangle of its sample's sides (vertical, horizontal), [B, 2], somewhere."""
    corner = random.integers(0, np.array(batch.shape[3:]) - sides, endpoint=True)
    top, left = corner[batch.sample].T
    bottom, right = (corner + sides)[batch.sample].T
    return (batch.y >= top) & (batch.y < bottom) & (batch.x >= left) & (batch.x < right)
