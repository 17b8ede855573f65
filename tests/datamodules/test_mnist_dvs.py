"""MNIST before the simulated camera: what is written once, how it is read again, and what may be wrong with it."""

import gzip
import hashlib
import multiprocessing
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tonic

from datamodules import MNISTDVS, NMNIST, DataCorrupt, DataMissing, mnist_dvs
from datamodules.download import Download, fetch_and_unpack
from datamodules.errors import CacheUnwritable
from datamodules.events import encode_nmnist, read_nmnist
from datamodules.mnist_dvs import CAMERA, SEEDS
from datamodules.prepare import prepare
from datamodules.verify import verify
from tests.datamodules.pictures import digit_like, write_idx, write_mnist


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test alone."""
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(tmp_path, cache):
    return write_mnist(tmp_path / "mnist")


def recordings(data):
    return {key: data.read(sample) for sample, key in enumerate(data.samples.keys)}


def test_each_recording_is_what_the_camera_makes_of_the_image(tiny):
    data = MNISTDVS(tiny, timesteps=4)
    found = recordings(data)
    assert list(found) == [f"Train/{n:05d}" for n in range(60)] + [f"Test/{n:05d}" for n in range(20)]
    assert data.samples.labels.tolist() == [7 * n % 10 for n in (*range(60), *range(20))]
    for part, number in (("Train", 0), ("Train", 41), ("Test", 19)):
        expected = CAMERA.record(digit_like(7 * number % 10, number), SEEDS[part], number)
        np.testing.assert_array_equal(found[f"{part}/{number:05d}"], expected)


def test_the_camera_gives_the_same_bits_on_every_machine():
    together = hashlib.sha256()
    for number in range(10):
        together.update(encode_nmnist(CAMERA.record(digit_like(number, number), 0, number)).tobytes())
    assert together.hexdigest() == PINNED


PINNED = "ff0c90fe1feb72a661d6654c3a7ec597b6c9849c004b838f7cc68c61e8130ff6"
"""Raise `VERSION` when this changes without a change of `CAMERA`."""


def test_files_are_nmnist_recordings_one_after_the_other(tiny):
    data = MNISTDVS(tiny)
    of_files = data.samples.by_file()
    assert [len(samples) for samples in of_files] == [25, 25, 10, 20]
    path = data.folder / data.samples.sources[of_files[1][0]]
    one_file = tonic.io.read_mnist_file(path, dtype=np.dtype([(name, int) for name in "xytp"]))
    together = np.concatenate([data.read(sample) for sample in of_files[1]])
    for column in "xytp":
        np.testing.assert_array_equal(one_file[column], together[column])


def test_parts_are_those_of_mnist(tiny):
    data = MNISTDVS(tiny, timesteps=2, calibration_samples=20)
    parts = data.samples.parts
    assert parts.test.tolist() == list(range(60, 80))
    assert sorted([*parts.train, *parts.validation]) == list(range(60))
    assert set(data.calibration_indices()) <= set(parts.train)
    assert data.describe()["counts"] == {"train": 54, "validation": 6, "calibration": 20, "test": 20}
    x, y = next(iter(data.test_dataloader()))
    assert x.shape == (20, 2, 2, 34, 34)
    assert y.tolist() == [7 * n % 10 for n in range(20)]
    assert x.sum() == sum(len(data.read(sample)) for sample in parts.test)


def test_a_subset_is_by_class_and_holds_the_same_recordings(tiny):
    whole, part = MNISTDVS(tiny), MNISTDVS(tiny, samples=30)
    every, some = recordings(whole), recordings(part)
    assert np.bincount(part.samples.labels).tolist() == [4] * 10
    assert [sum(key.startswith(name) for key in some) for name in ("Train", "Test")] == [30, 10]
    for key, events in some.items():
        np.testing.assert_array_equal(events, every[key])
    assert part.fingerprint() != whole.fingerprint()
    assert (whole.published_samples, MNISTDVS(samples=6000).published_samples) == (70_000, 7_000)


@pytest.mark.parametrize("samples", [0, 9, 60_001])
def test_a_subset_that_cannot_be_is_refused(samples):
    with pytest.raises(ValueError, match=f"samples is {samples}; it must be from 10, one of each class, to 60000"):
        MNISTDVS(samples=samples)


def test_processes_write_the_bytes_that_one_process_writes(tmp_path, cache, monkeypatch):
    def written():
        data = MNISTDVS(write_mnist(tmp_path / "mnist", 100, 30))
        content = {file: (data.folder / file).read_bytes() for file in data.samples.files}
        shutil.rmtree(cache)
        return content

    alone = written()
    monkeypatch.setattr(mnist_dvs, "WORTH_PROCESSES", 10)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert written() == alone
    assert len(alone) == 4 + 2 + 1


def test_time_and_size_are_said_before_the_work_and_once(tiny, capfd):
    data = MNISTDVS(tiny)
    data.setup()
    said = capfd.readouterr()
    size = sum((data.folder / file).stat().st_size for file in data.samples.sources)
    assert said.out == ""
    assert f"simulating 80 recordings of mnist_dvs once: about 0 s on {os.cpu_count()} cores" in said.err
    assert "simulated" not in said.err  # it takes no minute
    assert size > 80 * 5 * CAMERA.noise_events
    MNISTDVS(tiny).setup()
    assert capfd.readouterr().err == ""


def test_off_a_terminal_it_says_once_a_minute_how_far_it_is(tiny, capfd, monkeypatch):
    monkeypatch.setattr(mnist_dvs, "MINUTE", 0.0)
    MNISTDVS(tiny).setup()
    said = capfd.readouterr().err
    assert (
        said.index("cores") < said.index("simulated 1 of 80, about ") < said.index("simulated 80 of 80, about 0 s left")
    )


def test_too_small_a_disk_is_named_before_anything_is_written(tiny, cache, monkeypatch):
    monkeypatch.setattr(mnist_dvs.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CacheUnwritable, match=r"MB are needed, and 0 MB are free; free space, or set SNNBENCH_CACHE"):
        MNISTDVS(tiny).setup()
    assert list(cache.rglob("*.bin")) == []


def _build_and_die(root):
    whole, written = mnist_dvs._recording, []

    def die(digits, image):
        written.append(image)
        if len(written) > 60:
            os._exit(9)
        return whole(digits, image)

    mnist_dvs._recording = die
    MNISTDVS(root).setup()


def test_a_killed_simulation_leaves_nothing_that_looks_finished(tiny):
    process = multiprocessing.get_context("fork").Process(target=_build_and_die, args=(tiny,))
    process.start()
    process.join(60)
    data = MNISTDVS(tiny)
    assert process.exitcode == 9
    assert not data.folder.exists()
    assert len(recordings(data)) == 80
    assert [path for path in data.folder.parent.iterdir() if path.is_dir()] == [data.folder]


def test_fingerprints_follow_images_and_not_places(tiny, tmp_path):
    first = MNISTDVS(tiny, timesteps=2)
    shutil.copytree(tiny, tmp_path / "there")
    there = MNISTDVS(tmp_path / "there", timesteps=2)
    assert there.describe() == first.describe()
    images = np.stack([digit_like(3, number) for number in range(60)])
    write_idx(tmp_path / "there/MNIST/raw/train-images-idx3-ubyte", images)
    changed = MNISTDVS(tmp_path / "there", timesteps=2)
    assert changed.folder != first.folder
    assert changed.fingerprint() != first.fingerprint()


def test_another_camera_is_another_folder(tiny, monkeypatch):
    before = MNISTDVS(tiny).folder
    monkeypatch.setattr(mnist_dvs, "CAMERA", replace(CAMERA, noise_events=7))
    assert MNISTDVS(tiny).folder != before


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_how_to_get_it(tiny, name):
    (tiny / "MNIST/raw" / name).unlink()
    with pytest.raises(DataMissing, match=rf"mnist_dvs: no file {tiny}/MNIST/raw/{name}; get train-images.*ossci"):
        MNISTDVS(tiny).setup()


def test_locating_the_set_makes_nothing(tiny, cache, tmp_path):
    MNISTDVS(tiny).locate()
    assert list(cache.rglob("*.bin")) == []
    with pytest.raises(DataMissing, match="mnist_dvs: no file"):
        MNISTDVS(tmp_path / "none").locate()


def test_a_file_too_many_is_named(tiny):
    data = MNISTDVS(tiny)
    data.setup()
    shutil.copy(data.folder / "Test/0000.bin", data.folder / "Test/0001.bin")
    with pytest.raises(
        DataCorrupt, match=r"Test/0001\.bin: has \d+ bytes instead of no as in recordings\.csv; remove the folder"
    ):
        MNISTDVS(tiny).setup()


def test_prepare_fetches_mnists_files_into_their_folder(tiny, tmp_path, monkeypatch):
    raw = tiny / "MNIST/raw/train-images-idx3-ubyte"
    published = tmp_path / "published.gz"
    published.write_bytes(gzip.compress(raw.read_bytes()))
    whole = raw.read_bytes()
    raw.unlink()
    assert MNISTDVS.downloads[0].filename == "MNIST/raw/train-images-idx3-ubyte.gz"
    md5 = hashlib.md5(published.read_bytes()).hexdigest()
    download = Download(published.as_uri(), "MNIST/raw/train-images-idx3-ubyte.gz", md5)
    monkeypatch.setattr(MNISTDVS, "downloads", (download,))
    monkeypatch.setattr("datamodules.download._append", lambda url, target: shutil.copy(published, target))
    prepare(MNISTDVS(tiny, timesteps=2))
    assert raw.read_bytes() == whole
    fetch_and_unpack(download, tmp_path / "new/place")
    assert (tmp_path / "new/place/MNIST/raw/train-images-idx3-ubyte").read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((60, 28, 27), np.uint8), r"holds images \(60, 28, 27\); expected"),
        ("train-images-idx3-ubyte", np.zeros((59, 28, 28), np.uint8), r"expected \(60, 28, 28\)"),
        ("t10k-labels-idx1-ubyte", np.full(20, 10, np.uint8), "expected labels from 0 to 9"),
        ("t10k-labels-idx1-ubyte", np.zeros((20, 1), np.uint8), "cannot be read as MNIST's labels"),
    ],
)
def test_files_that_are_not_mnists_are_named(tiny, cache, name, content, message):
    write_idx(tiny / "MNIST/raw" / name, content)
    with pytest.raises(DataCorrupt, match=message):
        MNISTDVS(tiny).setup()
    assert list(cache.rglob("*.bin")) == []


@pytest.mark.parametrize("kept", [0, 3, 8, 15, 5000])
def test_a_cut_file_of_mnist_is_named(tiny, kept):
    path = tiny / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataCorrupt, match=f"{path}: cannot be read as MNIST's images"):
        MNISTDVS(tiny).setup()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("part,number", "number,part"),
        ("Train,7,9,", "Train,7,ten,"),
        ("Train,7,9,", "Train,7,10,"),
        ("Train,7,9,", "../../7,7,9,"),
        ("Train,7,9,", "Train,7,9,1"),
        ("Train,7,9,", "Train,7,9,-"),
        ("Train,7,9,", "Train,"),
        ("Train,7,9,", "Train,7,9,\0"),
        ("Train,7,9,", "Train,7,9,\n"),
        ("Train,7,9,", "Train,7,é,"),
    ],
)
def test_a_list_that_was_changed_is_named_with_the_remedy(tiny, old, new):
    data = MNISTDVS(tiny)
    data.setup()
    path = data.folder / "recordings.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataCorrupt, match=rf"{data.folder}.*; remove the folder, and the recordings are simulated"):
        MNISTDVS(tiny).setup()


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(path.read_bytes()[:-5]), os.unlink])
def test_a_file_of_recordings_that_was_cut_or_lost_is_named(tiny, change):
    data = MNISTDVS(tiny)
    data.setup()
    change(data.folder / "Test/0000.bin")
    with pytest.raises(
        DataCorrupt, match=r"Test/0000\.bin: has \w+ bytes instead of \d+ as in recordings\.csv; remove the folder"
    ):
        MNISTDVS(tiny).setup()


def test_verify_names_a_recording_that_was_changed(tiny):
    data = MNISTDVS(tiny)
    assert verify(data).sound
    path = data.folder / data.samples.sources[0]
    content = bytearray(path.read_bytes())
    content[5 * len(data.read(0))] = 99
    path.write_bytes(content)
    found = verify(MNISTDVS(tiny))
    assert len(found.unusable) == 1
    assert f"{path}, recording Train/00001 of recordings.csv: 1 of" in found.unusable[0]
    assert "outside the 34x34 sensor" in found.unusable[0]


def test_an_encoded_recording_is_read_back(tmp_path):
    events = CAMERA.record(digit_like(4, 0), 0, 0)
    (tmp_path / "a.bin").write_bytes(encode_nmnist(events).tobytes())
    np.testing.assert_array_equal(read_nmnist(tmp_path / "a.bin", (34, 34)), events)


def test_recordings_are_like_the_real_ones_of_the_same_images(real_mnist, real_nmnist):
    """N-MNIST names a recording by its image's number, from 1."""
    images = mnist_dvs.read_digits(real_mnist)["Train"][0]
    data = NMNIST(real_nmnist)
    real, simulated, likeness = [], [], []
    for sample in data.samples.parts.train[::18]:
        number = int(data.samples.keys[sample].split("/")[-1].removesuffix(".bin")) - 1
        one, other = data.read(sample), CAMERA.record(images[number], 0, number)
        real.append(len(one))
        simulated.append(len(other))
        pixels = [np.bincount(34 * events["y"].astype(int) + events["x"], minlength=34**2) for events in (one, other)]
        likeness.append(np.corrcoef(*pixels)[0, 1])
    assert len(real) == 40
    assert np.mean(simulated) == pytest.approx(np.mean(real), rel=0.1)
    assert np.std(simulated) == pytest.approx(np.std(real), rel=0.2)
    assert np.corrcoef(real, simulated)[0, 1] > 0.97
    assert np.mean(likeness) > 0.93
