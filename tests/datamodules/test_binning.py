"""Frames of event counts: brute force, tonic's frames where the two mean the same, and what no binning may change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tonic.transforms import ToFrame

from datamodules import DataCorrupt
from datamodules.batches import Batch
from datamodules.binning import Binning
from datamodules.cache import EventCache, EventFrames
from datamodules.events import EVENT, read_nmnist
from tests.datamodules.formats import random_events


def recorded(columns):
    events = np.empty(len(columns["t"]), dtype=EVENT)
    for name in "xytp":
        events[name] = columns[name]
    return events


def dense(binning, events):
    frames = np.zeros(binning.cells, dtype=np.int64)
    cells, counts = binning.count(events, "a recording")
    frames[cells] = counts
    return frames.reshape(binning.shape)


def brute_force(events, timesteps, step_of, size=(34, 34), full=(34, 34)):
    frames = np.zeros((timesteps, 2, size[1], size[0]), dtype=np.int64)
    for position, (x, y, t, p) in enumerate(events.tolist()):
        step = step_of(position, t - events["t"][0].item())
        if step < timesteps:
            frames[step, p, y * size[1] // full[1], x * size[0] // full[0]] += 1
    return frames


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 60), timesteps=st.integers(1, 12), span=st.integers(1, 200), seed=st.integers(0, 99))
def test_frames_equal_a_count_by_hand(count, timesteps, span, seed):
    events = recorded(random_events(count, size=34, span_us=span, seed=seed, start_us=1000))
    window = max((events["t"][-1] - events["t"][0]).item() // timesteps, 1)
    run = max(count // timesteps, 1)
    by_time = Binning(timesteps, (34, 34), (34, 34))
    by_count = Binning(timesteps, (34, 34), (34, 34), by="count")
    by_window = Binning(timesteps, (34, 34), (17, 34), window_us=7)
    last = timesteps - 1
    np.testing.assert_array_equal(
        dense(by_time, events), brute_force(events, timesteps, lambda position, t: min(t // window, last))
    )
    np.testing.assert_array_equal(
        dense(by_count, events), brute_force(events, timesteps, lambda position, t: min(position // run, last))
    )
    np.testing.assert_array_equal(
        dense(by_window, events), brute_force(events, timesteps, lambda position, t: t // 7, size=(17, 34))
    )


@settings(max_examples=40, deadline=None)
@given(timesteps=st.integers(1, 30), size=st.integers(1, 34), by=st.sampled_from(["time", "count"]))
def test_no_event_is_lost_and_time_moves_nothing(timesteps, size, by):
    columns = random_events(500, size=34)
    binning = Binning(timesteps, (34, 34), (size, size), by)
    frames = dense(binning, recorded(columns))
    assert frames.sum() == 500
    assert frames[:, 1].sum() == columns["p"].sum()
    later = recorded(columns | {"t": columns["t"] + 2**40})
    np.testing.assert_array_equal(dense(binning, later), frames)


@pytest.mark.parametrize("timesteps", [1, 10, 100])
def test_real_recordings_agree_with_tonic(real_nmnist, timesteps):
    binning = Binning(timesteps, (34, 34), (34, 34))
    tonic_frames = ToFrame(sensor_size=(34, 34, 2), n_time_bins=timesteps)
    for path in sorted(real_nmnist.glob("T*/*/*.bin"))[::40]:
        events = read_nmnist(path, (34, 34))
        ours, theirs = dense(binning, events), tonic_frames(events)
        np.testing.assert_array_equal(ours[:-1], theirs[:-1])
        window = (events["t"][-1] - events["t"][0]) // timesteps
        dropped_by_tonic = (events["t"] - events["t"][0] >= window * timesteps).sum()
        assert (ours[-1] - theirs[-1]).sum() == dropped_by_tonic
        assert (ours[-1] >= theirs[-1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "space"}, "'time' or 'count'"),
        ({"by": "count", "window_us": 5}, "goes with binning='time'"),
        ({"window_us": 0}, "at least 1"),
        ({"frame_size": (35, 34)}, "does not fit"),
        ({"timesteps": 10**6}, "too many cells"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    arguments = {"timesteps": 4, "sensor_size": (34, 34), "frame_size": (34, 34)} | options
    with pytest.raises(ValueError, match=message):
        Binning(**arguments)


def test_more_events_in_a_cell_than_can_be_kept_are_named():
    events = np.zeros(70_000, dtype=EVENT)
    with pytest.raises(DataCorrupt, match="hot pixel: 70000 events in one cell"):
        Binning(1, (34, 34), (34, 34)).count(events, "hot pixel")


@pytest.mark.parametrize("largest", [255, 256])
def test_a_cache_gives_back_what_was_counted(tmp_path, largest):
    binning = Binning(5, (34, 34), (34, 34))
    recordings = [recorded(random_events(200 + seed, size=34, seed=seed)) for seed in range(7)]
    recordings[3] = np.repeat(recordings[3][:1], largest)
    cache = EventCache.open_or_build(
        tmp_path / "cache", binning.shape, lambda: (binning.count(events, "") for events in recordings)
    )
    labels = np.arange(7) % 3
    frames = EventFrames(cache, np.arange(7), labels)
    x, y = frames[Batch(np.array([5, 3, 0]), seed=0)]
    assert x.dtype == (torch.uint8 if largest == 255 else torch.int32)
    np.testing.assert_array_equal(x.numpy(), np.stack([dense(binning, recordings[i]) for i in (5, 3, 0)]))
    assert y.tolist() == [2, 0, 0]
    binary, _ = EventFrames(cache, np.arange(7), labels, binarize=True)[Batch(np.array([3]), seed=0)]
    np.testing.assert_array_equal(binary.numpy()[0], dense(binning, recordings[3]) > 0)
