"""Which files belong to a set: no copies beside it, no hidden ones; what only looks like a file is named."""

import shutil

import numpy as np
import pytest
from PIL import Image

from datamodules import (
    CIFAR10,
    CIFAR10DVS,
    CIFAR100,
    MNISTDVS,
    NMNIST,
    DataCorrupt,
    DVSGesture,
    ImageNet,
    TinyImageNet,
)
from datamodules.imagenet import wnids
from tests.datamodules.formats import random_events, write_aedat2, write_nmnist
from tests.datamodules.pictures import official, write_cifar10, write_cifar100, write_mnist, write_tiny_imagenet


def nmnist(root):
    for part, count in (("Train", 3), ("Test", 1)):
        for label in range(10):
            for number in range(count):
                write_nmnist(root / part / str(label) / f"{number:05d}.bin", random_events(20, size=34, seed=number))
    return NMNIST(root), root / "Train/3/00001.bin"


def mnist_dvs(root):
    return MNISTDVS(write_mnist(root)), root / "MNIST/raw/t10k-labels-idx1-ubyte"


def cifar10_dvs(root):
    for label in ("airplane", "cat"):
        for number in range(11):
            write_aedat2(root / label / f"cifar10_{label}_{number}.aedat", random_events(20))
    return CIFAR10DVS(root), root / "cat/cifar10_cat_3.aedat"


def dvs_gesture(root):
    for part, user in (("ibmGestureTrain", 1), ("ibmGestureTest", 24)):
        (root / part / f"user{user:02d}_led").mkdir(parents=True)
        for label in range(11):
            np.save(root / part / f"user{user:02d}_led" / f"{label}.npy", np.zeros((1, 4), np.int16))
    return DVSGesture(root), root / "ibmGestureTrain/user01_led/4.npy"


def imagenet(root):
    for part, count in (("train", 3), ("val", 1)):
        for wnid in wnids()[:2]:
            (root / part / wnid).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8)).save(root / part / wnid / f"{number}.JPEG")
    return ImageNet(root), root / f"train/{wnids()[1]}/2.JPEG"


def cifar10(root):
    return official(CIFAR10, write_cifar10(root))(root), root / "cifar-10-batches-py/data_batch_3"


def cifar100(root):
    return official(CIFAR100, write_cifar100(root))(root), root / "cifar-100-python/meta"


def tiny_imagenet(root):
    write_tiny_imagenet(root)
    return TinyImageNet(root), sorted(root.glob("train/*/images/*.JPEG"))[-1]


def tiny_imagenet_in_its_folder(root):
    write_tiny_imagenet(root / "tiny-imagenet-200")
    return TinyImageNet(root), root / "tiny-imagenet-200/wnids.txt"


IN_NAMED_FOLDERS = [nmnist, mnist_dvs, cifar10_dvs, cifar10, cifar100, tiny_imagenet, tiny_imagenet_in_its_folder]
SETS = [*IN_NAMED_FOLDERS, dvs_gesture, imagenet]


@pytest.mark.parametrize("make", SETS)
def test_hidden_files_are_none_of_the_set(tmp_path, make):
    data, one = make(tmp_path)
    before = data.samples.sources
    one.with_name("._" + one.name).write_bytes(b"what an archive of another system leaves")
    (one.parent.parent / ".ipynb_checkpoints").mkdir()
    (one.parent / ".hidden").mkdir()
    assert type(data)(tmp_path).samples.sources == before


@pytest.mark.parametrize("make", SETS)
@pytest.mark.parametrize("fault", ["a folder", "a link to nowhere"])
def test_what_looks_like_a_file_and_is_none_is_named(tmp_path, make, fault):
    data, one = make(tmp_path)
    one.unlink()
    if fault == "a folder":
        one.mkdir()
    else:
        one.symlink_to(tmp_path / "gone")
    with pytest.raises(DataCorrupt, match=f"{one}: is {fault}, where a file was expected; remove or replace it"):
        data.setup()


@pytest.mark.parametrize("make", SETS)
def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path, make):
    data, one = make(tmp_path)
    one.parent.rename(tmp_path / "moved")
    one.parent.symlink_to(tmp_path / "gone")
    with pytest.raises(DataCorrupt, match=f"{one.parent}: is a link"):
        data.setup()


@pytest.mark.parametrize("make", IN_NAMED_FOLDERS)
def test_what_should_be_a_folder_and_is_a_file_is_named(tmp_path, make):
    data, one = make(tmp_path)
    one.parent.rename(tmp_path / "moved")
    one.parent.touch()
    with pytest.raises(DataCorrupt, match=f"{one.parent}: is no folder, where one was expected"):
        data.setup()


@pytest.mark.parametrize("make", [cifar10, cifar100, tiny_imagenet, tiny_imagenet_in_its_folder])
def test_copies_of_folders_are_none_of_the_set(tmp_path, make):
    data, one = make(tmp_path / "set")
    before = data.samples.sources
    for folder in (one.parent, *((tmp_path / "set").glob("train")), *((tmp_path / "set").glob("val"))):
        shutil.copytree(folder, folder.with_name(f"{folder.name} (copy)"))
    assert type(data)(tmp_path / "set").samples.sources == before


def test_a_copy_of_nmnists_test_part_is_not_trained_on(tmp_path):
    before = nmnist(tmp_path)[0].samples.sources
    for name in ("Test_small", "Train_old", "Tiny"):
        write_nmnist(tmp_path / name / "3/00009.bin", random_events(20, size=34))
    assert NMNIST(tmp_path).samples.sources == before
    assert len(before) == 40


def test_a_folder_in_a_flat_validation_part_is_named(tmp_path):
    imagenet(tmp_path)
    (tmp_path / "val/x.JPEG").mkdir()
    with pytest.raises(DataCorrupt, match=r"val/x\.JPEG: is a folder"):
        ImageNet(tmp_path).setup()


def test_links_to_files_and_folders_are_followed(tmp_path):
    data, one = nmnist(tmp_path / "set")
    before = data.samples.sources
    for path in (one, one.parent.parent / "4", tmp_path / "set/Test"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert NMNIST(tmp_path / "set").samples.sources == before
