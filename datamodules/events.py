"""Event files read through tonic (the only module that imports it) into one checked form."""

from pathlib import Path

import numpy as np
import tonic.io
from numpy.typing import NDArray

from datamodules.errors import DataCorrupt

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.int8)])
"""One event: column, row, time in microseconds, polarity (1 on, 0 off)."""

Events = NDArray[np.void]

BYTES_PER_EVENT = 5
"""N-MNIST and N-Caltech101 store an event in 40 bits: x, y, polarity and a 23-bit time stamp."""


def read_nmnist(path: Path, sensor_size: tuple[int, int] = (34, 34)) -> Events:
    """Read one recording in N-MNIST's format.

    Args:
        path: the ``.bin`` file.
        sensor_size: (width, height) in pixels.

    Returns:
        Events in order of time, shape [n], n > 0.

    Raises:
        DataCorrupt: the file cannot be read, is cut inside an event, is empty, or has events off the sensor.
    """
    try:
        size = path.stat().st_size
        if size % BYTES_PER_EVENT:
            raise DataCorrupt(f"{path}: cut inside an event ({size} bytes are no multiple of {BYTES_PER_EVENT})")
        events = tonic.io.read_mnist_file(str(path), dtype=EVENT)
    except OSError as error:
        raise DataCorrupt(f"{path}: cannot be read: {error.strerror}") from error
    return checked(events, sensor_size, path)


def checked(events: Events, sensor_size: tuple[int, int], source: Path | str) -> Events:
    """Return the events in order of time.

    Raises:
        DataCorrupt: there are none, or one lies outside the sensor; a run never trains on silence.
    """
    if len(events) == 0:
        raise DataCorrupt(f"{source}: no events; get the file again, or remove it from the set")
    width, height = sensor_size
    x, y, t = events["x"], events["y"], events["t"]
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        first = int(outside.argmax())
        raise DataCorrupt(
            f"{source}: {outside.sum()} of {len(events)} events lie outside the {width}x{height} sensor,"
            f" the first (number {first}) at x={x[first]}, y={y[first]}"
        )
    return events if (np.diff(t) >= 0).all() else events[np.argsort(t, kind="stable")]
