"""Events -> counts per time step, polarity and pixel, kept sparse."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataCorrupt
from datamodules.events import Events

MAX_COUNT = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Binning:
    """How a recording becomes T frames of event counts.

    Args:
        timesteps: T, the number of frames.
        sensor_size: (width, height) of the sensor in pixels.
        frame_size: (width, height) of a frame; pixels are merged and their events added, none is lost.
        by: ``"time"`` cuts the recording's span into T equal windows, ``"count"`` its events into T equal runs.
        window_us: length of a frame in microseconds; then the T frames start at the first event and what comes
            after them is left out. Only with ``by="time"``.

    The rest of the division by T (less than T microseconds, or T events) goes to the last frame, as SpikingJelly
    does it; tonic's ``ToFrame(n_time_bins=T)`` and ``ToFrame(n_event_bins=T)`` drop it and agree otherwise.

    Raises:
        ValueError: the arguments do not go together.
    """

    timesteps: int
    sensor_size: tuple[int, int]
    frame_size: tuple[int, int]
    by: Literal["time", "count"] = "time"
    window_us: int | None = None

    def __post_init__(self) -> None:
        if self.by not in ("time", "count"):
            raise ValueError(f"binning is {self.by!r}; it must be 'time' or 'count'")
        if self.window_us is not None and (self.by == "count" or self.window_us < 1):
            raise ValueError(f"window_us={self.window_us} must be at least 1, and goes with binning='time' only")
        if any(not 0 < size <= full for size, full in zip(self.frame_size, self.sensor_size, strict=True)):
            raise ValueError(f"frame size {self.frame_size} does not fit the sensor's {self.sensor_size}")
        if self.cells > np.iinfo(np.int32).max:
            raise ValueError(f"{self.timesteps} steps of {self.frame_size} are too many cells for one sample")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, 2, height, width) of a sample; channel 0 is off, 1 is on."""
        width, height = self.frame_size
        return self.timesteps, 2, height, width

    @property
    def cells(self) -> int:
        """Number of cells of a sample, T * 2 * height * width."""
        return int(np.prod(self.shape))

    def count(self, events: Events, source: str) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """Count the events of one recording.

        Args:
            events: in order of time, shape [n], n > 0.
            source: named if a count is beyond 65,535.

        Returns:
            The cells that hold events (flat indices into `shape`, ascending) and their counts, both [k].
        """
        step = self._time_step(events)
        (width, height), (full_width, full_height) = self.frame_size, self.sensor_size
        x = events["x"].astype(np.int64) * width // full_width
        y = events["y"].astype(np.int64) * height // full_height
        cells = ((step * 2 + events["p"]) * height + y) * width + x
        cells, counts = np.unique(cells[step < self.timesteps].astype(np.int32), return_counts=True)
        if counts.max() > MAX_COUNT:
            raise DataCorrupt(f"{source}: {counts.max()} events in one cell; more than {MAX_COUNT} cannot be kept")
        return cells, counts.astype(np.uint16)

    def _time_step(self, events: Events) -> NDArray[np.int64]:
        elapsed = events["t"] - events["t"][0]
        if self.window_us is not None:
            return elapsed // self.window_us
        position = elapsed if self.by == "time" else np.arange(len(events))
        total = elapsed[-1] if self.by == "time" else len(events)
        return np.minimum(position // max(total // self.timesteps, 1), self.timesteps - 1)
