"""A simulated event camera looking at still images while it moves as N-MNIST's did.

Everything that decides an event is integer arithmetic, so the same images give the same bits on every machine:
positions are counted in 1/32 of a pixel, bilinear weights in the same unit (their products with 4-bit grey
values are exact in float32), and log intensity comes from a rounded table. The noise is the raw output of
PCG64, whose stream is fixed by its definition.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from datamodules.events import EVENT, Events

SENSOR = 34
"""Width and height of the sensor in pixels, N-MNIST's."""

FINE = 32
"""Units of length in a pixel."""

MAGNIFICATION = 3
"""Sensor pixels for a pixel of the image."""

STEP_US = 5_000
CORNERS = ((0, 0), (112, 224), (224, 0), (0, 0))
"""Displacement (x, y) at the corners of the triangle of saccades, in 1/32 pixel: 3.5 and 7 pixels, N-MNIST's."""

STEPS_PER_SACCADE = 21
"""21 steps of 5 ms: 105 ms for each of the three saccades; a step moves the image by at most 3/8 of a pixel."""

MAX_GREY = 16
BACKGROUND = 0.15
"""Intensity of the unlit scene, as a share of a fully lit pixel."""

LOG_UNIT = 1024
"""Units of log intensity (natural logarithm) in 1."""

THRESHOLD = 384
THRESHOLD_SPREAD = 64
"""Log-intensity step that makes an event, in 1/1024: from 384 to 447, different for each pixel and recording."""

NOISE_EVENTS = 64
"""Events without a cause in each recording, spread evenly over pixels and time."""

IMAGES_AT_ONCE = 128
"""Images simulated together: their state fits into a second-level cache."""


def record(images: NDArray[np.integer], seed: int) -> list[Events]:
    """Record each image with three saccades of 105 ms.

    Args:
        images: grey values 0 to 16, shape [n, 8, 8].
        seed: of pixel thresholds and noise; recording i depends on the image, the seed and i alone.

    Returns:
        For each image its events in order of time.
    """
    renderings = _renderings(images.shape[1])
    with threadpool_limits(1):  # the products are so small that threads only wait for each other
        return [
            events
            for begin in range(0, len(images), IMAGES_AT_ONCE)
            for events in _record_batch(images[begin : begin + IMAGES_AT_ONCE], renderings, seed, begin)
        ]


def _displacements() -> NDArray[np.int64]:
    """Displacement (x, y) of the image on the sensor at each step, in 1/32 pixel, shape [steps + 1, 2]."""
    fractions = np.arange(STEPS_PER_SACCADE)[:, None]
    legs = [
        np.array(start) + (np.array(end) - start) * fractions // STEPS_PER_SACCADE for start, end in pairwise(CORNERS)
    ]
    return np.concatenate([*legs, [CORNERS[-1]]])


def _renderings(image_size: int) -> list[NDArray[np.float32]]:
    """For each step the linear map from image to sensor, [image_size^2, sensor^2], with integer entries."""
    pitch = MAGNIFICATION * FINE
    triangle = np.ptp(np.array(CORNERS), axis=0)
    rest = (SENSOR * FINE - image_size * pitch - triangle) // 2  # centres the triangle on the sensor
    pixel_centres = np.arange(SENSOR) * FINE + FINE // 2
    image_centres = np.arange(image_size) * pitch + pitch // 2

    def weights(shift: int) -> NDArray[np.int64]:
        distance = np.abs(pixel_centres[None, :] - image_centres[:, None] - shift)
        return np.maximum(pitch - distance, 0)  # [image_size, sensor]: bilinear interpolation

    return [np.kron(weights(y), weights(x)).astype(np.float32) for x, y in (_displacements() + rest).tolist()]


def _log_intensities() -> NDArray[np.int32]:
    """Log intensity, in 1/1024, of each value that a rendering can give."""
    brightest = MAX_GREY * (MAGNIFICATION * FINE) ** 2
    share = np.arange(brightest + 1) / brightest
    return np.rint(LOG_UNIT * np.log(BACKGROUND + share)).astype(np.int32)


def _record_batch(
    images: NDArray[np.integer], renderings: list[NDArray[np.float32]], seed: int, first: int
) -> list[Events]:
    grey = images.reshape(len(images), -1).astype(np.float32)
    table = _log_intensities()
    raw = _raw_noise(len(images), seed, first)
    threshold = THRESHOLD + (raw[:, :, 0] % THRESHOLD_SPREAD).astype(np.int32)  # [n, pixels]
    before = table.take((grey @ renderings[0]).astype(np.int32))
    memory = before.copy()  # level of each pixel's last event
    keys = [_noise_events(raw[:, :NOISE_EVENTS, 1])]
    for step, rendering in enumerate(renderings[1:]):
        level = table.take((grey @ rendering).astype(np.int32))
        keys.append(_threshold_events(level, before, memory, threshold, step * STEP_US))
        before = level
    return _unpack(np.sort(np.concatenate(keys)), len(images))


def _pack(
    image: NDArray[np.int64], time: NDArray[np.int64], pixel: NDArray[np.int64], polarity: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One number for each event, so that sorting the numbers sorts the events by image and time."""
    return image << 32 | time << 12 | pixel << 1 | polarity  # 20 bits of microseconds, 11 of pixel


def _unpack(keys: NDArray[np.int64], images: int) -> list[Events]:
    events = np.empty(len(keys), dtype=EVENT)
    pixel = keys >> 1 & 0x7FF
    events["x"], events["y"] = pixel % SENSOR, pixel // SENSOR
    events["t"], events["p"] = keys >> 12 & 0xFFFFF, keys & 1
    return np.split(events, np.searchsorted(keys >> 32, np.arange(1, images)))


def _threshold_events(
    level: NDArray[np.int32],
    before: NDArray[np.int32],
    memory: NDArray[np.int32],
    threshold: NDArray[np.int32],
    step_begin: int,
) -> NDArray[np.int64]:
    """Packed events of one step; all arrays are [n, pixels], and `memory` moves on to the level of the last event.

    A pixel whose level has moved by k thresholds sends k events, each at the time at which a straight line
    from the level before to the level now crosses the threshold.
    """
    change = (level - memory).ravel()
    where = np.flatnonzero(np.abs(change) >= threshold.ravel())
    sign, step_size = np.sign(change[where]), threshold.ravel()[where]
    number = np.abs(change[where]) // step_size
    last_level = memory.ravel()[where]
    memory.ravel()[where] += sign * number * step_size

    where, sign, step_size, last_level = (  # one row an event, where a pixel has several
        np.repeat(column.astype(np.int64), number) for column in (where, sign, step_size, last_level)
    )
    nth = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + 1
    crossed = last_level + sign * nth * step_size
    start, end = before.ravel()[where], level.ravel()[where]
    time = step_begin + STEP_US * (crossed - start) // (end - start)
    image, pixel = np.divmod(where, SENSOR**2)
    return _pack(image, time, pixel, (sign > 0).astype(np.int64))


def _raw_noise(count: int, seed: int, first: int) -> NDArray[np.uint64]:
    """Random 64-bit numbers of each recording, [count, pixels, 2], from a stream of its own."""
    draws = 2 * SENSOR * SENSOR
    streams = [np.random.PCG64([seed, first + index]).random_raw(draws) for index in range(count)]
    return np.stack(streams).reshape(count, -1, 2)


def _noise_events(raw: NDArray[np.uint64]) -> NDArray[np.int64]:
    """One packed event without a cause for each random number, [n, NOISE_EVENTS]."""
    image = np.repeat(np.arange(len(raw)), raw.shape[1])
    bits = (raw.ravel() >> np.uint64(1)).astype(np.int64)
    time = (bits >> 16) % (3 * STEPS_PER_SACCADE * STEP_US)
    return _pack(image, time, (bits >> 1) % SENSOR**2, bits & 1)
