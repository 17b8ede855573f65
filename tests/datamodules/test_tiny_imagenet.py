"""Tiny ImageNet: a few of its 200 classes, in Stanford's layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataCorrupt, DataMissing, TinyImageNet
from tests.datamodules.pictures import TINY_WNIDS, write_image, write_tiny_imagenet

CLASSES = (0, 3, 199)


def tiny(root, **options):
    return TinyImageNet(root, calibration_samples=options.pop("calibration_samples", 3), batch_size=50, **options)


def decoded(path):
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


def test_the_validation_part_is_the_test_set_with_the_classes_of_its_list(tmp_path):
    x, y = next(iter(tiny(write_tiny_imagenet(tmp_path)).test_dataloader()))
    assert y.tolist() == [*CLASSES, *CLASSES]
    assert x.dtype == torch.uint8
    for index, image in enumerate(x):
        np.testing.assert_array_equal(image.numpy(), decoded(tmp_path / f"val/images/val_{index}.JPEG"))


def test_labels_are_positions_of_the_sorted_identifiers(tmp_path):
    data = tiny(write_tiny_imagenet(tmp_path))
    listed = (tmp_path / "wnids.txt").read_text().split()
    assert data.class_names() == sorted(listed) == TINY_WNIDS
    assert listed != sorted(listed)
    for key, label in zip(data.samples.keys, data.samples.labels, strict=True):
        assert key.startswith(("val/images/", f"train/{TINY_WNIDS[label]}/images/"))


def test_a_tenth_of_the_training_images_is_for_validation(tmp_path):
    data = tiny(write_tiny_imagenet(tmp_path, train=20))
    assert data.describe()["counts"] == {"train": 54, "validation": 6, "calibration": 3, "test": 6}
    parts = data.samples.parts
    assert data.samples.labels[parts.validation].tolist() == [0, 0, 3, 3, 199, 199]
    assert all(data.samples.keys[index].startswith("train/") for index in (*parts.train, *parts.validation))
    assert all(data.samples.keys[index].startswith("val/") for index in parts.test)
    assert set(data.calibration_indices()) <= set(parts.train)
    assert (data.input_shape, data.num_classes, data.published_samples) == ((3, 64, 64), 200, 110_000)


def test_grayscale_images_become_three_equal_channels(tmp_path):
    data = tiny(write_tiny_imagenet(tmp_path))
    x, y = next(iter(data.train_dataloader()))
    assert x.shape[1:] == (3, 64, 64)
    equal = (x == x[:, :1]).all((1, 2, 3))
    assert len(y[equal]) >= 2
    assert not equal.all()


def test_what_a_network_sees_is_normalised(tmp_path):
    data = tiny(write_tiny_imagenet(tmp_path))
    x, y = next(iter(data.test_dataloader()))
    seen, _ = data.on_after_batch_transfer([x.clone(), y], 0)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (data.mean, data.std))
    torch.testing.assert_close(seen, (x / 255 - mean) / std)
    calibration, _ = next(iter(data.calibration_dataloader()))
    assert calibration.dtype == torch.float32


def test_a_crop_is_a_window_of_the_image_with_eight_black_pixels_around(tmp_path):
    root = write_tiny_imagenet(tmp_path)
    plain, _ = next(iter(tiny(root, seed=1).train_dataloader()))
    x, _ = next(iter(tiny(root, seed=1, augment=["crop", "flip"]).train_dataloader()))
    again, _ = next(iter(tiny(root, seed=1, augment=["crop", "flip"]).train_dataloader()))
    assert torch.equal(x, again)
    assert not torch.equal(x, plain)
    for image, before in zip(x, plain, strict=True):
        padded = torch.nn.functional.pad(before, (8, 8, 8, 8))
        windows = [padded[:, top : top + 64, left : left + 64] for top in range(17) for left in range(17)]
        assert any(torch.equal(window, shown) for window in windows for shown in (image, image.flip(-1)))
    of_test = [next(iter(tiny(root, augment=a).test_dataloader()))[0] for a in ([], ["crop", "flip", "mixup"])]
    assert torch.equal(*of_test)


def test_stanfords_folder_in_the_root_is_the_same_data(tmp_path):
    bare = tiny(write_tiny_imagenet(tmp_path / "bare"))
    inside = tiny(write_tiny_imagenet(tmp_path / "inside/tiny-imagenet-200").parent)
    assert inside.describe() == bare.describe()
    assert inside.samples.keys == bare.samples.keys
    x, _ = next(iter(inside.test_dataloader()))
    assert torch.equal(x, next(iter(bare.test_dataloader()))[0])


def test_the_fingerprint_is_of_images_and_lists_alone(tmp_path):
    before = tiny(write_tiny_imagenet(tmp_path)).fingerprint()
    (tmp_path / "test/images/test_0.JPEG").unlink()
    (tmp_path / "words.txt").unlink()
    assert tiny(tmp_path).fingerprint() == before
    seen = {before}
    for file in ("wnids.txt", "val/val_annotations.txt"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "\n")
        seen.add(tiny(tmp_path).fingerprint())
    write_image(tmp_path / "val/images/val_0.JPEG", size=(64, 64), seed=1)
    seen.add(tiny(tmp_path).fingerprint())
    assert len(seen) == 4


def test_a_part_of_the_classes_keeps_its_labels_and_is_tested_on_itself(tmp_path):
    write_tiny_imagenet(tmp_path)
    (tmp_path / f"train/{TINY_WNIDS[3]}").rename(tmp_path / "elsewhere")
    table = tiny(tmp_path).samples
    assert table.labels[table.parts.test].tolist() == [0, 199, 0, 199]
    assert set(table.labels) == {0, 199}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "it names 199 classes in 199 lines instead of 200"),
        (lambda lines: [*lines, "n99999999"], "it names 201 classes in 201 lines"),
        (lambda lines: [*lines[:-1], lines[0]], "it names 199 classes in 200 lines"),
        (lambda lines: [*lines[:-1], "../../etc"], r"'../../etc' is no identifier such as n01443537"),
        (lambda lines: [*lines[:-1], lines[-1] + "\tcat"], "is no identifier"),
    ],
)
def test_a_list_of_other_than_200_identifiers_is_refused(tmp_path, change, message):
    path = write_tiny_imagenet(tmp_path) / "wnids.txt"
    path.write_text("\n".join(change(path.read_text().split())))
    with pytest.raises(DataCorrupt, match=f"{path}: .*{message}"):
        tiny(tmp_path).setup()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_9.JPEG\tn00000000\t0\t0\t1\t1", "names no class of wnids.txt"),
        ("val_9.JPEG n10000000 0 0 1 1", "names no class of wnids.txt"),
        ("val_9.JPEG", "names no class of wnids.txt"),
        (f"val_0.JPEG\t{TINY_WNIDS[5]}\t0\t0\t1\t1", "a file a second time"),
    ],
)
def test_a_bad_line_about_test_images_is_quoted(tmp_path, line, message):
    path = write_tiny_imagenet(tmp_path) / "val/val_annotations.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataCorrupt, match=f"{path}: cannot be read as a table.*{line[:8]}.*{message}"):
        tiny(tmp_path).setup()


def test_lists_of_another_system_are_read_too(tmp_path):
    before = tiny(write_tiny_imagenet(tmp_path)).samples
    for file in TinyImageNet.lists:
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes().replace(b"\n", b"\r\n"))
    assert tiny(tmp_path).samples.labels.tolist() == before.labels.tolist()


def test_images_that_no_line_is_about_are_named(tmp_path):
    write_tiny_imagenet(tmp_path)
    write_image(tmp_path / "val/images/val_0 (copy).JPEG", size=(64, 64))
    with pytest.raises(DataCorrupt, match=r"val_0 \(copy\)\.JPEG: val_annotations\.txt does not say what it shows"):
        tiny(tmp_path).setup()


def test_folders_that_are_no_class_are_named(tmp_path):
    write_image(write_tiny_imagenet(tmp_path) / "train/n00000000/images/a.JPEG", size=(64, 64))
    with pytest.raises(DataCorrupt, match=r"train/n00000000: n00000000 is no wnid of tiny_imagenet's 200 classes"):
        tiny(tmp_path).setup()


@pytest.mark.parametrize("lacking", ["wnids.txt", "val/val_annotations.txt", "val/images", "train"])
def test_what_is_not_there_is_named_with_the_remedy(tmp_path, lacking):
    (write_tiny_imagenet(tmp_path) / lacking).rename(tmp_path / "elsewhere")
    with pytest.raises(
        DataMissing, match=f"{tmp_path / lacking.removesuffix('/images')}; get http://cs231n"
    ) as missing:
        tiny(tmp_path).setup()
    assert missing.value.exit_status == 3


def test_images_of_another_size_and_bad_ones_are_named(tmp_path):
    bad = write_tiny_imagenet(tmp_path) / "val/images/val_1.JPEG"
    whole = bad.read_bytes()
    write_image(bad, size=(64, 63))
    with pytest.raises(DataCorrupt, match=f"{bad}: .*64x63 pixels instead of 64x64"):
        list(tiny(tmp_path).test_dataloader())
    for content in (whole[: len(whole) // 2], b"", b"no image"):
        bad.write_bytes(content)
        with pytest.raises(DataCorrupt, match=str(bad)):
            list(tiny(tmp_path).test_dataloader())
