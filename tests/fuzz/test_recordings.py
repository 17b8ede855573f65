"""Every reader of recordings, images and tables gives a value or DataCorrupt for any bytes."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from datamodules import DataCorrupt, TinyImageNet
from datamodules.dvs_gesture import _gestures_of_file, _names_of_trials
from datamodules.events import (
    read_aedat2,
    read_aedat3,
    read_aedat4,
    read_arrays,
    read_gesture_cut,
    read_mat,
    read_nmnist,
)
from datamodules.imagenet import _synsets, _unpacked
from datamodules.isolation import decode
from datamodules.mnist_dvs import read_digits
from datamodules.photographs import read_photograph
from tests.datamodules.formats import (
    polarity_packet,
    random_events,
    special_packet,
    write_aedat2,
    write_aedat3,
    write_aedat4,
    write_nmnist,
)
from tests.datamodules.pictures import pickled, write_mnist, write_tiny_imagenet
from tests.fuzz.mutations import fuzz

EVENTS = random_events(40, size=34)
COLUMNS = np.stack([EVENTS["t"], EVENTS["x"], EVENTS["y"], EVENTS["x"], EVENTS["y"], EVENTS["p"]], axis=1)


def saved(write, *arguments, **options) -> bytes:
    """What a library writes to a file."""
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def written(folder: Path, write, *arguments) -> bytes:
    """What the tests write by hand to a file."""
    write(folder / "valid", *arguments)
    return (folder / "valid").read_bytes()


def records():
    array = np.empty(40, dtype=[("t", "u8"), ("x", "u2"), ("y", "u2"), ("p", "?")])
    for name in "txyp":
        array[name] = EVENTS[name]
    return array


def picture(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels).save, kind)


def table():
    return np.array([(1, "n01440764"), (2, "n01443537")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])


def images(labels, protocol):
    content = {"data": np.zeros((2, 3072), np.uint8), labels: [3, 9]}
    return pickled(content, protocol)


def archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        entry = tarfile.TarInfo("kit/truth.txt")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"1\n2\n"))
    return file.getvalue()


READERS = {
    "nmnist": (read_nmnist, lambda folder: [written(folder, write_nmnist, EVENTS)]),
    "aedat2": (read_aedat2, lambda folder: [written(folder, write_aedat2, EVENTS)]),
    "aedat3": (
        read_aedat3,
        lambda folder: [written(folder, write_aedat3, special_packet(), polarity_packet(EVENTS), special_packet(3))],
    ),
    "aedat4": (read_aedat4, lambda folder: [written(folder, write_aedat4, EVENTS, EVENTS)]),
    "arrays": (
        read_arrays,
        lambda _: [saved(np.save, records()), saved(np.savez, **EVENTS), saved(np.savez_compressed, **EVENTS)],
    ),
    "cut": (read_gesture_cut, lambda _: [saved(np.save, np.asfortranarray(COLUMNS[:, [1, 2, 5, 0]].astype("i2")))]),
    "mat": (
        read_mat,
        lambda _: [saved(scipy.io.savemat, {"out1": COLUMNS}, do_compression=packed) for packed in (True, False)],
    ),
    "image": (lambda path, _: read_photograph(path), lambda _: [picture("JPEG"), picture("PNG")]),
    "small": (lambda path, _: read_photograph(path, (16, 12)), lambda _: [picture("JPEG"), picture("PNG")]),
    "synsets": (lambda path, _: _synsets(path), lambda _: [saved(scipy.io.savemat, {"synsets": table()})]),
    "kit": (lambda path, _: _unpacked(path, "kit/truth.txt", path.parent), lambda _: [archive()]),
    "cifar10": (
        lambda path, _: decode("cifar10_images", path, "images"),
        lambda _: [images("labels", protocol) for protocol in ("python 2", 5)],
    ),
    "names": (
        lambda path, _: decode("cifar10_names", path, "names"),
        lambda _: [pickled({"label_names": ["cat", "dog"]}, protocol) for protocol in ("python 2", 5)],
    ),
    "cifar100": (
        lambda path, _: decode("cifar100_images", path, "images"),
        lambda _: [images("fine_labels", protocol) for protocol in (2, 5)],
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_a_value_or_data_corrupt(tmp_path, name):
    read, valid = READERS[name]
    fuzz(lambda path: read(path, (34, 34)), DataCorrupt, tmp_path / name, *valid(tmp_path))


def test_any_bytes_of_the_tables_of_gestures_are_a_value_or_data_corrupt(tmp_path):
    (tmp_path / "user01_led.aedat").touch()
    table = b"class,startTime_usec,endTime_usec\n1,10,20\n11,30,40\n"
    (tmp_path / "user01_led_labels.csv").write_bytes(table)
    path = tmp_path / "user01_led_labels.csv"
    fuzz(lambda _: _gestures_of_file(tmp_path, "train", "user01_led.aedat"), DataCorrupt, path, table)


def test_any_bytes_of_the_lists_of_gestures_are_a_value_or_an_error_by_name(tmp_path):
    fuzz(_names_of_trials, DataCorrupt, tmp_path / "trials", b"user01_led.aedat\nuser02_lab.aedat\n")


@pytest.mark.parametrize("file", TinyImageNet.lists)
def test_any_bytes_of_the_lists_of_tiny_imagenet_are_a_value_or_data_corrupt(tmp_path, file):
    path = write_tiny_imagenet(tmp_path) / file
    fuzz(lambda _: TinyImageNet(tmp_path).setup(), DataCorrupt, path, path.read_bytes())


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_any_bytes_of_mnists_files_are_a_value_or_data_corrupt(tmp_path, name):
    path = write_mnist(tmp_path, 3, 3) / "MNIST/raw" / name
    fuzz(lambda _: read_digits(tmp_path), DataCorrupt, path, path.read_bytes())
