"""Verifying, showing and timing a set."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmark.perf.reading import measure, waiting_share
from datamodules import CIFAR10, CIFAR100, NMNIST, DigitsDVS, TinyImageNet
from datamodules.show import show
from datamodules.verify import verify
from tests.datamodules.formats import random_events, write_nmnist
from tests.datamodules.pictures import official, write_cifar10, write_cifar100, write_tiny_imagenet


@pytest.fixture
def tiny_nmnist(tmp_path):
    for part, count in (("Train", 4), ("Test", 2)):
        for label in range(10):
            for index in range(count):
                events = random_events(120, size=34, span_us=300_000, seed=1000 * count + 10 * index + label)
                write_nmnist(tmp_path / "set" / part / str(label) / f"{index:05d}.bin", events)
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [None, 2])
def test_verify_names_every_fault(tiny_nmnist, tmp_path, workers):
    cut, empty = tiny_nmnist / "Train/1/00002.bin", tiny_nmnist / "Test/5/00000.bin"
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    shutil.copy(tiny_nmnist / "Train/7/00000.bin", tiny_nmnist / "Test/7/00001.bin")
    found = verify(NMNIST(tiny_nmnist), workers=workers, report=tmp_path / "report.json")
    assert [str(path) in fault for path, fault in zip((empty, cut), found.unusable, strict=True)] == [True, True]
    assert found.duplicates == [["Test/7/00001.bin", "Train/7/00000.bin"]]
    assert (found.sound, found.complete, found.samples) == (False, False, 60)
    assert found.samples_per_class["7"]["test"] == 2
    assert sum(found.samples_per_class["7"][part] for part in ("train", "validation")) == 4
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sound"] is False
    assert report["unusable"] == found.unusable
    assert report["fingerprint"] == NMNIST(tiny_nmnist).fingerprint()


def test_verify_finds_nothing_wrong_with_a_whole_set():
    found = verify(DigitsDVS())
    assert found.complete
    assert found.sound
    assert found.samples == 1797


def test_real_recordings_are_sound(real_nmnist):
    found = verify(NMNIST(real_nmnist))
    assert found.sound
    assert not found.complete
    assert found.samples == 860


def test_show_draws_the_events_of_each_class(tiny_nmnist, tmp_path):
    show(NMNIST(tiny_nmnist, timesteps=3), tmp_path / "events.png")
    pixels = np.asarray(Image.open(tmp_path / "events.png").convert("RGB")).astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((red > 240) & (green < 60) & (blue < 60)).any()  # on
    assert ((blue > 240) & (green < 60) & (red < 60)).any()  # off
    assert pixels.shape[0] > 2 * pixels.shape[1]  # ten rows of three frames


def test_show_draws_images(tmp_path):
    root = write_cifar100(tmp_path / "cifar", train=1000)
    show(CIFAR100(root, official_checksums=False), tmp_path / "images.png")
    assert Image.open(tmp_path / "images.png").width > 500
    for data in (
        CIFAR10(write_cifar10(tmp_path), official_checksums=False),
        TinyImageNet(write_tiny_imagenet(tmp_path)),
    ):
        show(data, tmp_path / "images.png")
        assert Image.open(tmp_path / "images.png").width > 100


def test_verify_counts_images_and_finds_what_is_wrong_with_them(tmp_path):
    cifar10 = official(CIFAR10, write_cifar10(tmp_path))(tmp_path)
    found = verify(cifar10)
    assert (found.sound, found.complete, found.samples) == (True, False, 120)
    assert found.samples_per_class["frog"] == {"train": 9, "validation": 1, "calibration_pool": 9, "test": 2}
    folder = tmp_path / "cifar-10-batches-py"
    shutil.copy(folder / "data_batch_1", folder / "data_batch_4")
    found = verify(CIFAR10(tmp_path, official_checksums=False))
    assert found.duplicates == [["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/data_batch_4"]]

    root = write_tiny_imagenet(tmp_path / "tiny-imagenet-200", train=5)
    assert verify(TinyImageNet(tmp_path)).sound
    one, other, cut = sorted(root.glob("train/*/images/*.JPEG"))[:3]
    shutil.copy(one, other)
    cut.write_bytes(cut.read_bytes()[:-300])
    found = verify(TinyImageNet(tmp_path))
    assert found.duplicates == [[file.relative_to(root).as_posix() for file in (one, other)]]
    assert [str(cut) in fault for fault in found.unusable] == [True]
    assert (found.samples, found.published_samples) == (21, 110_000)


def test_measure_times_the_three_ways_of_reading(tiny_nmnist):
    rows = measure(NMNIST(tiny_nmnist, timesteps=5))
    assert [row["what"] for row in rows] == ["tonic: read file, ToFrame", "build cache", "read cache, dense batches"]
    assert all(row["samples_per_second"] > 0 for row in rows)
    assert rows[0]["times_tonic"] == 1
    assert json.loads(json.dumps(rows)) == rows


def test_waiting_is_what_is_not_the_step(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    # begin 0; each batch: a tick of waiting, then a tick of work; end
    assert waiting_share([1, 2, 3], lambda batch: None) == pytest.approx(1 - 3 / 7)
