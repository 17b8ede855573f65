"""A simulated event camera looking at still images while it moves as N-MNIST's did.

Everything that decides an event is integer arithmetic, so the same images give the same bits on every machine:
positions are counted in 1/32 of a pixel, bilinear weights in the same unit, and log intensity comes from a rounded
table. What is random is the raw output of PCG64, whose stream is fixed by its definition.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from datamodules.events import EVENT, Events

SENSOR = 34
"""Width and height of the sensor in pixels, N-MNIST's."""

FINE = 32
"""Units of length in a pixel."""

LOG_UNIT = 1024
"""Units of log intensity (natural logarithm) in 1."""


@dataclass(frozen=True)
class Camera:
    """How images are shown, how they move over the sensor, and what makes its pixels send events.

    Args:
        pitch: distance of neighbouring image pixels on the sensor, in 1/32 of a sensor pixel.
        max_grey: grey value of a fully lit image pixel.
        path: where the image's upper left corner is on the sensor and when: (microsecond, x, y) with x and y in 1/32
            pixel, from 0 on; in between it moves on straight lines.
        step_us: time from one position to the next; between them log intensity moves on a straight line.
        dark: intensity where the image is 0.
        lit: intensity where it is `max_grey`; below `dark` for dark digits on a bright screen.
        blur: share of a pixel's light that falls on each neighbour, along rows and then along columns, in 1/256.
        threshold: log-intensity step that makes an event, in 1/1024.
        threshold_spread: number of different thresholds, from `threshold` on; each pixel of each recording draws one.
        mismatch: most by which a pixel's threshold for getting darker is above that for getting brighter.
        unrest: most by which the level of a pixel's last event differs from its level when the recording begins.
        latency_us: most by which a pixel's events come late; each pixel of each recording draws how much.
        noise_events: events without a cause in each recording, spread evenly over pixels and time.
    """

    pitch: int
    max_grey: int
    path: tuple[tuple[int, int, int], ...]
    step_us: int = 5_000
    dark: float = 0.15
    lit: float = 1.15
    blur: int = 0
    threshold: int = 384
    threshold_spread: int = 64
    mismatch: int = 0
    unrest: int = 0
    latency_us: int = 0
    noise_events: int = 64

    @property
    def duration_us(self) -> int:
        """How long the image moves; events come as much later as a pixel's latency."""
        return self.path[-1][0]

    def record(self, image: NDArray[np.integer], seed: int, number: int) -> Events:
        """Record an image.

        Args:
            image: grey values from 0 to `max_grey`, shape [n, n].
            seed: of everything random.
            number: of the recording; the events depend on camera, image, seed and number alone.

        Returns:
            The events in order of time.

        Raises:
            ValueError: a grey value is outside the range.
        """
        if not 0 <= image.min() <= image.max() <= self.max_grey:
            raise ValueError(f"grey values go from {image.min()} to {image.max()}; expected 0 to {self.max_grey}")
        from datamodules.dvs_kernel import threshold_events  # numba takes half a second to import

        raw = np.random.PCG64([seed, number]).random_raw(2 * SENSOR * SENSOR).reshape(-1, 2)
        of_pixels = raw[:, 0].reshape(SENSOR, SENSOR)
        brighter = self.threshold + _bits(of_pixels, 0, self.threshold_spread)
        darker = brighter + _bits(of_pixels, 20, self.mismatch + 1)
        caused = threshold_events(
            _bordered(self._blurred(image)),
            *_bilinear(self, len(image)),
            np.int32(self.pitch),
            self._log_intensities,
            np.stack([darker, brighter]),
            _bits(of_pixels, 40, 2 * self.unrest + 1) - self.unrest,
            self.step_us,
        )
        caused += _bits(of_pixels, 48, self.latency_us + 1).ravel().astype(np.int64)[caused >> 1 & 0x7FF] << 12
        return _unpack(np.sort(np.concatenate([caused, self._noise(raw[: self.noise_events, 1])])))

    def _blurred(self, image: NDArray[np.integer]) -> NDArray[np.int32]:
        """The image with light spread to the neighbours, rounded to whole grey values; none falls off its edges."""
        blurred = image.astype(np.int32)
        with_edges = np.arange(-1, len(image) + 1).clip(0, len(image) - 1)
        for _ in range(2 if self.blur else 0):  # along each axis
            edged = blurred[with_edges]
            blurred = (self.blur * (edged[:-2] + edged[2:]) + (256 - 2 * self.blur) * blurred + 128 >> 8).T
        return blurred

    @cached_property
    def _positions(self) -> NDArray[np.int64]:
        """The image's upper left corner (x, y) at each step, in 1/32 pixel, shape [steps + 1, 2]."""
        times, corners = np.array(self.path)[:, 0], np.array(self.path)[:, 1:]
        now = np.arange(0, self.duration_us + 1, self.step_us)
        leg = np.minimum(np.searchsorted(times, now, side="right"), len(times) - 1) - 1
        part, whole = (now - times[leg])[:, None], np.diff(times)[leg][:, None]
        return corners[leg] + np.diff(corners, axis=0)[leg] * part // whole

    @cached_property
    def _log_intensities(self) -> NDArray[np.int32]:
        """Log intensity, in 1/1024, of each weighted sum that four neighbouring pixels can give."""
        brightest = self.max_grey * self.pitch**2
        share = np.arange(brightest + 1) / brightest
        return np.rint(LOG_UNIT * np.log(self.dark + (self.lit - self.dark) * share)).astype(np.int32)

    def _noise(self, raw: NDArray[np.uint64]) -> NDArray[np.int64]:
        """One packed event without a cause for each random number."""
        bits = (raw >> np.uint64(1)).astype(np.int64)
        time, pixel, polarity = (bits >> 16) % self.duration_us, (bits >> 1) % SENSOR**2, bits & 1
        return time << 12 | pixel << 1 | polarity


def _bordered(image: NDArray[np.int32]) -> NDArray[np.int32]:
    """The image with zeros around it: one line before, and two after, for pixels that lie beside the image."""
    bordered = np.zeros((len(image) + 3, len(image) + 3), dtype=np.int32)
    bordered[1:-2, 1:-2] = image
    return bordered


def _bits(raw: NDArray[np.uint64], shift: int, count: int) -> NDArray[np.int32]:
    """One of the numbers from 0 to ``count - 1`` out of each random number, from its bits above ``shift``."""
    return ((raw >> np.uint64(shift)) % np.uint64(count)).astype(np.int32)


@lru_cache
def _bilinear(camera: Camera, image_size: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which lines of an image each sensor pixel lies between, at each step.

    Returns:
        For each step, axis (x, y) and pixel, the line before its middle, and the distance from there in 1/32 pixel,
        both [steps + 1, 2, sensor]. Line 0 and those after `image_size` are of the border.
    """
    middle = np.arange(SENSOR) * FINE + FINE // 2
    line, distance = np.divmod(middle - camera._positions[:, :, None] - camera.pitch // 2, camera.pitch)
    line = np.where((line >= -1) & (line < image_size), line + 1, image_size + 1)
    return line.astype(np.int32), distance.astype(np.int32)


def _unpack(packed: NDArray[np.int64]) -> Events:
    """Events from numbers of which each is an event: from the top time, 11 bits of pixel, one of polarity."""
    events = np.empty(len(packed), dtype=EVENT)
    pixel = packed >> 1 & 0x7FF
    events["x"], events["y"] = pixel % SENSOR, pixel // SENSOR
    events["t"], events["p"] = packed >> 12, packed & 1
    return events
