"""What the event-camera sets share: recordings in files, binned once, read from the cache."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch.utils.data import DataLoader

from datamodules.base import BenchmarkDataModule
from datamodules.binning import Binning
from datamodules.cache import FORMAT_VERSION, EventCache, EventFrames, SparseSample
from datamodules.events import Events
from datamodules.fingerprint import combine, fingerprint_files
from datamodules.splits import Indices
from datamodules.storage import cache_folder


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
        **options: Any,
    ) -> None:
        super().__init__(root, timesteps=timesteps, **options)
        size = self.sensor_size if frame_size is None else (frame_size, frame_size)
        self.binning = Binning(timesteps, self.sensor_size, size, binning, window_us)
        self.binarize = binarize
        self._cache: EventCache | None = None

    @abstractmethod
    def read(self, sample: int) -> Events:
        """Events of one recording, in order of time; DataCorrupt names a file that cannot be used."""

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
        }

    def setup(self, stage: str | None = None) -> None:
        """List the recordings and open the cache of binned events, building it if need be."""
        super().setup(stage)
        self.cache  # noqa: B018  # built here, before any worker process wants it

    @property
    def cache(self) -> EventCache:
        """The binned recordings, all parts together, built once per files and binning."""
        if self._cache is None:
            key = combine(fingerprint_files(self.root, self.samples.files), asdict(self.binning), FORMAT_VERSION)
            folder = cache_folder() / "events" / self.name / key[:32]
            self._cache = EventCache.open_or_build(folder, self.binning.shape, self._binned)
        return self._cache

    def dataset(self, samples: Indices, *, augment: bool) -> EventFrames:
        """The given recordings as frames."""
        return EventFrames(self.cache, samples, self.samples.labels[samples], binarize=self.binarize)

    def calibration_dataloader(self) -> DataLoader:
        """Calibration batches, never augmented, float32."""
        loader = super().calibration_dataloader()
        loader.collate_fn = _as_float
        return loader

    def _binned(self) -> Iterator[SparseSample]:
        for sample, key in enumerate(self.samples.keys):
            yield self.binning.count(self.read(sample), key)


def _as_float(batch: Any) -> Any:
    frames, labels = batch
    return frames.float(), labels
