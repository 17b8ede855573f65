"""Every reader of recordings, images and tables gives a value or DataCorrupt for any bytes."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from datamodules import DataCorrupt
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
from datamodules.imagenet import _read_image, _synsets, _unpacked
from datamodules.isolation import decode
from tests.datamodules.formats import (
    polarity_packet,
    random_events,
    special_packet,
    write_aedat2,
    write_aedat3,
    write_aedat4,
    write_nmnist,
)
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


def images(protocol):
    content = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [3, 99]}
    return pickle.dumps(content, protocol)


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
    "image": (lambda path, _: _read_image(path), lambda _: [picture("JPEG"), picture("PNG")]),
    "synsets": (lambda path, _: _synsets(path), lambda _: [saved(scipy.io.savemat, {"synsets": table()})]),
    "kit": (lambda path, _: _unpacked(path, "kit/truth.txt", path.parent), lambda _: [archive()]),
    "cifar": (lambda path, _: decode("cifar_images", path, "images"), lambda _: [images(2), images(5)]),
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
