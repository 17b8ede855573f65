"""Files that the project writes for itself are believed no more than others: somebody else's cache, a bad disk."""

import os

import numpy as np
import pytest
import torch

from compressors.second_order.solution_cache import CacheError, SolutionCache
from datamodules import DataCorrupt
from datamodules.batches import Batch
from datamodules.cache import EventCache, EventFrames
from datamodules.fingerprint import fingerprint_files
from datamodules.recordings import LIST, listed, read, write
from tests.fuzz.mutations import fuzz

SHAPE = (2, 2, 4, 4)
EVENT = bytes([1, 2, 0, 0, 9])


def samples():
    random = np.random.default_rng(0)
    for count in (5, 1, 8):
        cells = np.sort(random.choice(64, count, replace=False)).astype(np.int32)
        yield cells, random.integers(1, 300, count, dtype=np.uint16)


@pytest.mark.parametrize("name", ["cells", "counts", "offsets", "description.json"])
def test_any_bytes_of_a_cache_of_events_are_frames_or_data_corrupt(tmp_path, name):
    folder = tmp_path / "cache"
    EventCache.open_or_build(folder, SHAPE, samples)

    def read_frames(_):
        cache = EventCache.open_or_build(folder, SHAPE, samples)
        frames = EventFrames(cache, np.arange(3), np.zeros(3, dtype=np.int64))
        frames[Batch(np.arange(3), 0)]

    fuzz(read_frames, DataCorrupt, folder / name, (folder / name).read_bytes())


def test_any_bytes_of_a_list_of_recordings_are_recordings_or_data_corrupt(tmp_path):
    write(tmp_path, [("Train", 3, 7, EVENT), ("Train", 8, 1, 2 * EVENT), ("Test", 0, 7, EVENT)])

    def read_all(_):
        for recording in listed(tmp_path, classes=10):
            read(tmp_path, recording, (34, 34))

    fuzz(read_all, DataCorrupt, tmp_path / LIST, (tmp_path / LIST).read_bytes())


def test_any_bytes_of_a_solution_are_the_solution_or_an_error_by_name(tmp_path):
    weight, cache = torch.eye(4), SolutionCache(tmp_path)
    cache.get_or_solve("a", [weight], lambda: {"weight": weight, "order": torch.arange(4)})
    [path] = tmp_path.glob("*.safetensors")

    def read_solution(_):
        solution = SolutionCache(tmp_path).get_or_solve("a", [weight], dict)
        assert {name: tensor.shape for name, tensor in solution.items()} == {"weight": (4, 4), "order": (4,)}

    fuzz(read_solution, CacheError, path, path.read_bytes())


def test_a_remembered_fingerprint_that_is_none_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a").write_bytes(b"content")
    right = fingerprint_files(tmp_path, ["a"])
    [memo] = (tmp_path / "cache/fingerprints").iterdir()
    for content in (b"", os.urandom(64), right[:-1].encode(), b"\xff" * 64):
        memo.write_bytes(content)
        assert fingerprint_files(tmp_path, ["a"]) == right
