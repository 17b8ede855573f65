"""ImageNet: tiny sets in its layouts, real photographs; and what all image sets share."""

import io
import tarfile

import numpy as np
import pytest
import scipy.io
import torch

from datamodules import CIFAR10, CIFAR100, DataCorrupt, DataMissing, ImageNet, TinyImageNet
from datamodules.imagenet import wnids
from tests.datamodules.pictures import write_image

DEVKIT = "ILSVRC2012_devkit_t12"


def test_missing_image_sets_say_what_goes_where(tmp_path):
    for data in (CIFAR10(tmp_path), CIFAR100(tmp_path), TinyImageNet(tmp_path), ImageNet(tmp_path)):
        with pytest.raises(DataMissing) as missing:
            data.setup()
        assert str(tmp_path) in str(missing.value)
        assert data.instructions in str(missing.value)


def test_unknown_image_augmentations_are_refused():
    with pytest.raises(ValueError, match=r"unknown augmentation 'event_drop'; cifar100 has: crop, flip"):
        CIFAR100("anywhere", augment=["event_drop"])
    assert ImageNet("anywhere", augment=["crop", "flip"]).settings() == {"augment": ["crop", "flip"]}


CLASSES = [wnids()[label] for label in (3, 500, 999)]


@pytest.fixture
def tiny_imagenet(tmp_path):
    for label, wnid in enumerate(CLASSES):
        for index, mode in enumerate(("RGB", "L", "CMYK", "RGB")):
            write_image(tmp_path / f"train/{wnid}/{wnid}_{index}.JPEG", mode, seed=10 * label + index)
        write_image(tmp_path / f"val/{wnid}/ILSVRC2012_val_{label:08d}.JPEG", seed=100 + label)
    return tmp_path


def test_imagenet_keeps_official_labels_in_a_subset(tiny_imagenet):
    data = ImageNet(tiny_imagenet, image_size=16, batch_size=20, calibration_samples=3)
    x, y = next(iter(data.test_dataloader()))
    assert x.shape == (3, 3, 16, 16)
    assert x.dtype == torch.uint8
    assert y.tolist() == [3, 500, 999]
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (11, 3, 16, 16)
    assert set(y.tolist()) <= {3, 500, 999}
    augmented = ImageNet(tiny_imagenet, image_size=16, augment=["crop", "flip", "erase"])
    assert next(iter(augmented.train_dataloader()))[0].shape == (11, 3, 16, 16)


def write_devkit(root, numbers_to_wnids, archive):
    """Ground truth and synset table of the development kit, with IDs in an order of their own."""
    identifiers = {wnid: position + 1 for position, wnid in enumerate(reversed(wnids()))}
    synsets = np.array([(identifiers[wnid], wnid) for wnid in wnids()], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    truth = "".join(f"{identifiers[wnid]}\n" for wnid in numbers_to_wnids).encode()
    files = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}
    if not archive:
        (root / DEVKIT / "data").mkdir(parents=True)
        for name, content in files.items():
            (root / DEVKIT / "data" / name).write_bytes(content)
        return
    with tarfile.open(root / f"{DEVKIT}.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{DEVKIT}/data/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_a_development_kit_without_its_tables_is_named(tiny_imagenet):
    for number, path in enumerate(list(tiny_imagenet.glob("val/*/*")), 1):
        path.rename(tiny_imagenet / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    with tarfile.open(tiny_imagenet / f"{DEVKIT}.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataCorrupt, match=r"t12\.tar\.gz: holds no file .*meta\.mat; get the archive again"):
        ImageNet(tiny_imagenet).setup()


@pytest.mark.parametrize("archive", [True, False])
def test_a_flat_validation_folder_is_labelled_by_the_development_kit(tiny_imagenet, archive):
    for path in list(tiny_imagenet.glob("val/*/*")):
        path.unlink()
    shown = [CLASSES[2], wnids()[0], CLASSES[0], CLASSES[1]]  # the second is of a class that train/ lacks
    for number in range(1, 5):
        write_image(tiny_imagenet / f"val/ILSVRC2012_val_{number:08d}.JPEG", seed=number)
    with pytest.raises(DataMissing, match=r"val/ is flat, and .*meta\.mat is not there"):
        ImageNet(tiny_imagenet).setup()
    write_devkit(tiny_imagenet, shown, archive)
    table = ImageNet(tiny_imagenet).samples
    tested = {table.keys[index]: table.labels[index] for index in table.parts.test}
    assert tested == {f"val/ILSVRC2012_val_{number:08d}.JPEG": label for number, label in ((1, 999), (3, 3), (4, 500))}
    write_image(tiny_imagenet / "val/ILSVRC2012_val_00000005.JPEG")
    with pytest.raises(DataCorrupt, match="00000005.*a number from 1 to 4"):
        ImageNet(tiny_imagenet).setup()


def test_bad_images_are_named(tiny_imagenet):
    bad = tiny_imagenet / f"val/{CLASSES[1]}/ILSVRC2012_val_00000001.JPEG"
    whole = bad.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no image"):
        bad.write_bytes(content)
        with pytest.raises(DataCorrupt, match=str(bad)):
            list(ImageNet(tiny_imagenet, image_size=16).test_dataloader())


def test_folders_that_are_no_class_are_named(tiny_imagenet):
    write_image(tiny_imagenet / "train/n00000000/a.JPEG")
    with pytest.raises(DataCorrupt, match=r"n00000000 is no wnid"):
        ImageNet(tiny_imagenet).setup()


def test_real_photographs(real_imagenet, tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).symlink_to(real_imagenet / "train")
    data = ImageNet(tmp_path, image_size=64, augment=["crop", "flip"], calibration_samples=20)
    seen = [y for _, y in data.test_dataloader()]
    folders = sorted(path.name for path in (real_imagenet / "train").iterdir())
    assert torch.cat(seen).tolist() == [wnids().index(wnid) for wnid in folders]
    assert len(wnids()) == len(set(wnids())) == 1000
    assert list(wnids()) == sorted(wnids())
    x, _ = next(iter(data.calibration_dataloader()))
    assert x.shape == (20, 3, 64, 64)
    assert x.mean().abs() < 0.6
