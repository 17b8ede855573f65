"""The compiled loops of the simulated event camera: importing this module imports numba, which takes half a second.

All arithmetic is on integers. Sensor and image are square.
"""

# mypy: disallow-untyped-defs=False
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

EVENTS_AT_FIRST = 8192
"""Room for the events of most recordings; it is doubled where they need more."""


def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop, and keep its code for the next process where there is a place for it."""
    try:
        return njit(cache=True, error_model="numpy")(loop)
    except RuntimeError:  # "no locator available": neither beside the source nor in the user's home
        return njit(error_model="numpy")(loop)


@_compiled
def threshold_events(image, lines, weights, pitch, log_intensities, thresholds, offset, step_us):
    """Events of all pixels while an image moves over the sensor.

    When the log intensity of a pixel has moved by k thresholds since its last event, it sends k events, each at the
    time at which a straight line from the level before the step to the level after it crosses the threshold.

    Args:
        image: grey values with zeros around them, int32 [lines, lines].
        lines: for each step and axis (x, y), the image line before the middle of each sensor pixel, int32
            [steps + 1, 2, sensor].
        weights: distance of this middle from that line, the same shape.
        pitch: distance of lines, in the unit of the weights.
        log_intensities: int32, of each weighted sum of four pixels, whose weights sum up to ``pitch**2``.
        thresholds: of each sensor pixel for getting darker and for getting brighter, int32 [2, sensor, sensor].
        offset: how far the level of each pixel's last event is above the first level, int32 [sensor, sensor].
        step_us: time between two positions.

    Returns:
        One number an event, in no order: time << 12 | pixel << 1 | polarity, int64.
    """
    events = np.empty(EVENTS_AT_FIRST, np.int64)
    found = 0
    sensor = len(offset)
    across = np.empty((len(image), sensor), np.int32)
    before, level = np.empty((2, sensor, sensor), np.int32)
    _look(image, lines[0], weights[0], pitch, log_intensities, across, before)
    memory = before + offset  # level of each pixel's last event
    for step in range(1, len(lines)):
        _look(image, lines[step], weights[step], pitch, log_intensities, across, level)
        for y in range(sensor):
            for x in range(sensor):
                change = level[y, x] - memory[y, x]
                brighter = np.int64(change > 0)
                threshold = thresholds[brighter, y, x]
                if abs(change) < threshold:
                    continue
                number = abs(change) // threshold
                if found + number > len(events):
                    events = np.concatenate((events, np.empty(max(number, len(events)), np.int64)))
                memory[y, x] = _cross(
                    events[found : found + number],
                    before[y, x],
                    level[y, x],
                    memory[y, x],
                    threshold if brighter else -threshold,
                    (step - 1) * step_us,
                    step_us,
                    (y * sensor + x) << 1 | brighter,
                )
                found += number
        before, level = level, before
    return events[:found]


@_compiled
def _look(image, lines, weights, pitch, log_intensities, across, level):
    """Log intensity at each sensor pixel, by bilinear interpolation: first along x, then along y."""
    for line in range(len(image)):
        for x in range(across.shape[1]):
            left, right = image[line, lines[0, x]], image[line, lines[0, x] + 1]
            across[line, x] = left * (pitch - weights[0, x]) + right * weights[0, x]
    for y in range(len(level)):
        upper, lower, below = across[lines[1, y]], across[lines[1, y] + 1], weights[1, y]
        for x in range(len(level)):
            level[y, x] = log_intensities[upper[x] * (pitch - below) + lower[x] * below]


@_compiled
def _cross(events, before, level, memory, threshold, begin, step_us, pixel_and_polarity):
    """Write one pixel's events of a step; returns the level of the last. A falling level has a negative threshold."""
    for k in range(len(events)):
        memory += threshold
        time = begin + step_us * np.int64(memory - before) // np.int64(level - before)
        events[k] = time << 12 | pixel_and_polarity
    return memory
