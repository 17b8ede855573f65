"""What the event-camera sets share: recordings in files, binned once, read from the cache."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from datamodules.augment import EventAugmentation
from datamodules.base import BenchmarkDataModule
from datamodules.binning import Binning
from datamodules.cache import FORMAT_VERSION, EventCache, EventFrames, SparseSample
from datamodules.errors import DataCorrupt
from datamodules.events import Events
from datamodules.fingerprint import combine, fingerprint_files
from datamodules.parallel import map_in_order
from datamodules.splits import Indices
from datamodules.storage import cache_folder

logger = logging.getLogger(__name__)


class EventDataModule(BenchmarkDataModule):
    """A set of event-camera recordings, seen as T frames of event counts per polarity.

    Its loaders give counts as bytes (uint8, or int32 if one exceeds 255), which become float32 on the device
    when a Trainer drives them; calibration batches, which a method may read without one, are float32 at once.

    Args:
        root: see `BenchmarkDataModule`, as the other arguments that are not named here.
        timesteps: T, the number of frames.
        binning: ``"time"`` for T equal windows of each recording's span, ``"count"`` for equal event numbers.
        window_us: length of a frame in microseconds instead; what comes after T frames is left out.
        frame_size: height and width of a frame, both this long; events of merged pixels are added. By default
            the sensor's own size.
        binarize: 1 where there is any event, instead of how many.
        augment: names of augmentations for training batches, applied in this order; see `augment.py`.
        options: of `BenchmarkDataModule`.
    """

    sensor_size: ClassVar[tuple[int, int]]
    """(width, height) of the sensor in pixels."""

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        timesteps: int = 10,
        binning: Literal["time", "count"] = "time",
        window_us: int | None = None,
        frame_size: int | None = None,
        binarize: bool = False,
        augment: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(root, timesteps=timesteps, **options)
        size = self.sensor_size if frame_size is None else (frame_size, frame_size)
        self.binning = Binning(timesteps, self.sensor_size, size, binning, window_us)
        self.binarize = binarize
        self.augmentation = EventAugmentation(tuple(augment), self.num_classes)
        self._cache: EventCache | None = None

    @abstractmethod
    def read(self, sample: int) -> Events:
        """Events of one recording, in order of time; DataCorrupt names a file that cannot be used."""

    def check(self, sample: int) -> None:
        """Read one recording."""
        self.read(sample)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(2, height, width): off and on events."""
        return self.binning.shape[1:]

    def settings(self) -> dict[str, Any]:
        """How events become frames."""
        return {
            "binning": self.binning.by,
            "window_us": self.binning.window_us,
            "binarize": self.binarize,
            "augment": list(self.augmentation.names),
        }

    def setup(self, stage: str | None = None) -> None:
        """List the recordings and open the cache of binned events, building it if need be."""
        super().setup(stage)
        self.cache  # noqa: B018  # built here, before any worker process wants it

    @property
    def cache(self) -> EventCache:
        """The binned recordings, all parts together, built once per files and binning."""
        if self._cache is None:
            key = combine(fingerprint_files(self.folder, self.samples.files), asdict(self.binning), FORMAT_VERSION)
            folder = cache_folder() / "events" / self.name / key[:32]
            self._cache = EventCache.open_or_build(folder, self.binning.shape, self.binned)
        return self._cache

    def dataset(self, samples: Indices, *, augment: bool) -> EventFrames:
        """The given recordings as frames."""
        augmentation = self.augmentation if augment and self.augmentation.names else None
        return EventFrames(self.cache, samples, self.samples.labels[samples], self.binarize, augmentation)

    def binned(self) -> Iterator[SparseSample]:
        """Every recording binned, in order; those of one file are read together, files in parallel."""
        logger.info("binning %d recordings of %s, once", len(self.samples.keys), self.name)
        for counted in map_in_order(self._count, self.samples.by_file()):
            if isinstance(counted, DataCorrupt):
                raise counted
            yield from counted

    def _count(self, samples: list[int]) -> list[SparseSample] | DataCorrupt:
        keys = self.samples.keys
        try:
            return [self.binning.count(self.read(sample), keys[sample]) for sample in samples]
        except DataCorrupt as error:
            return error
