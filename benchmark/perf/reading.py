"""How fast event sets are read: tonic on the files, building the cache, and reading it."""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tonic.transforms import ToFrame

from datamodules.batches import Batch
from datamodules.cache import EventCache, EventFrames
from datamodules.event_set import EventDataModule

SAMPLES = 400
"""Most samples that tonic is timed on."""

BATCH_SIZE = 64


def measure(data: EventDataModule) -> list[dict[str, Any]]:
    """Time one set, in this process alone.

    Returns:
        A row for each way of reading: ``data``, ``timesteps``, ``what``, ``samples_per_second`` and ``times_tonic``.
    """
    count = min(SAMPLES, len(data.samples.keys))
    frames = ToFrame(sensor_size=(*data.sensor_size, 2), n_time_bins=data.timesteps)

    def read_with_tonic() -> int:
        for sample in range(count):
            frames(data.read(sample))
        return count

    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder) / "cache"
        rates = {
            "tonic: read file, ToFrame": _rate(read_with_tonic),
            "build cache": _rate(lambda: len(EventCache.open_or_build(build, data.binning.shape, data.binned))),
            "read cache, dense batches": _rate(lambda: _read_all(EventCache(build))),
        }
    tonic = rates["tonic: read file, ToFrame"]
    return [
        {
            "data": data.name,
            "timesteps": data.timesteps,
            "what": what,
            "samples_per_second": rate,
            "times_tonic": rate / tonic,
        }
        for what, rate in rates.items()
    ]


def waiting_share(batches: Iterable[Any], step: Callable[[Any], object]) -> float:
    """Share of the time of an epoch that is spent waiting for the next batch rather than in `step`.

    Args:
        batches: a loader.
        step: what a training step does with a batch; it must wait for the device.
    """
    in_step = 0.0
    begin = time.perf_counter()
    for batch in batches:
        step_begin = time.perf_counter()
        step(batch)
        in_step += time.perf_counter() - step_begin
    return 1 - in_step / (time.perf_counter() - begin)


def _rate(work: Callable[[], int]) -> float:
    """Samples per second of `work`, which returns how many it did."""
    begin = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - begin)


def _read_all(cache: EventCache) -> int:
    frames = EventFrames(cache, np.arange(len(cache)), np.zeros(len(cache), dtype=np.int64))
    order = np.random.default_rng(0).permutation(len(cache))
    for begin in range(0, len(order), BATCH_SIZE):
        frames[Batch(order[begin : begin + BATCH_SIZE], seed=0)]
    return len(order)
