"""CIFAR-10 and CIFAR-100: tiny sets in their layout, and the real images of CIFAR-100."""

import os
import pickle

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from datamodules import CIFAR10, CIFAR100, DataCorrupt, DataMissing, isolation
from tests.datamodules.pictures import CIFAR10_NAMES, official, random_pixels, write_cifar10, write_cifar100

TEST_FILES = {CIFAR10: "test_batch", CIFAR100: "test"}
WRITERS = {CIFAR10: write_cifar10, CIFAR100: write_cifar100}
both = pytest.mark.parametrize("data_class", WRITERS)


def tiny(data_class, root, **options):
    samples = options.pop("calibration_samples", 10)
    return data_class(root, official_checksums=False, calibration_samples=samples, **options)


def stored(data_class, root, files):
    """Images and labels of some files, read by plain pickle."""
    contents = [
        pickle.loads((root / data_class.published.base_folder / file).read_bytes(), encoding="latin1") for file in files
    ]
    pixels = np.concatenate([content["data"] for content in contents]).reshape(-1, 3, 32, 32)
    return pixels, [label for content in contents for label in content.get("fine_labels", content.get("labels"))]


@both
@pytest.mark.parametrize("protocol", [2, 4, 5, "python 2"])
def test_the_test_part_is_read_back(tmp_path, data_class, protocol):
    data = tiny(data_class, WRITERS[data_class](tmp_path, protocol=protocol), batch_size=100)
    x, y = next(iter(data.test_dataloader()))
    pixels, labels = stored(data_class, tmp_path, [TEST_FILES[data_class]])
    np.testing.assert_array_equal(x.numpy(), pixels)
    assert y.tolist() == labels


def test_parts_and_names(tmp_path):
    data = tiny(CIFAR100, write_cifar100(tmp_path / "100"))
    assert data.describe()["counts"] == {"train": 180, "validation": 20, "calibration": 10, "test": 100}
    assert data.class_names()[7] == "c7"
    data = tiny(CIFAR10, write_cifar10(tmp_path / "10"))
    assert data.describe()["counts"] == {"train": 90, "validation": 10, "calibration": 10, "test": 20}
    assert data.class_names() == CIFAR10_NAMES
    assert (data.input_shape, data.num_classes) == ((3, 32, 32), 10)


def test_the_batches_of_cifar10_are_its_training_part_in_their_order(tmp_path):
    data = tiny(CIFAR10, write_cifar10(tmp_path))
    parts = data.samples.parts
    training = np.union1d(parts.train, parts.validation)
    images = data.dataset(training, augment=False)
    pixels, labels = stored(CIFAR10, tmp_path, [f"data_batch_{number}" for number in range(1, 6)])
    np.testing.assert_array_equal(images.load(images.samples).numpy(), pixels)
    assert images.labels.tolist() == labels
    assert [data.samples.keys[index] for index in (0, 20, 99, 100)] == [
        *("data_batch_1/0", "data_batch_2/0", "data_batch_5/19", "test_batch/0")
    ]
    assert np.bincount(data.samples.labels[parts.validation]).tolist() == [1] * 10
    assert set(data.calibration_indices()) <= set(parts.train)


@both
def test_bytes_become_normalised_floats(tmp_path, data_class):
    data = tiny(data_class, WRITERS[data_class](tmp_path), batch_size=100)
    x, y = next(iter(data.test_dataloader()))
    seen, _ = data.on_after_batch_transfer([x.clone(), y], 0)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (data.mean, data.std))
    torch.testing.assert_close(seen, (x / 255 - mean) / std)
    calibration, _ = next(iter(data.calibration_dataloader()))
    assert calibration.dtype == torch.float32
    assert calibration.min() < 0


@both
def test_augmentations_come_from_the_seed_and_leave_test_alone(tmp_path, data_class):
    root = WRITERS[data_class](tmp_path)

    def first_batch(**options):
        return next(iter(tiny(data_class, root, **options).train_dataloader()))

    plain, labels = first_batch(seed=1)
    x, y = first_batch(seed=1, augment=["crop", "flip"])
    again, _ = first_batch(seed=1, augment=["crop", "flip"], num_workers=1)
    assert torch.equal(x, again)
    assert torch.equal(y, labels)
    assert not torch.equal(x, plain)
    for image, before in zip(x, plain, strict=True):
        padded = torch.nn.functional.pad(before, (4, 4, 4, 4))
        cuts = padded.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)
        assert any((cuts == candidate).all((1, 2, 3)).any() for candidate in (image, image.flip(-1)))
    of_test = [next(iter(tiny(data_class, root, augment=a).test_dataloader()))[0] for a in ([], ["crop", "mixup"])]
    assert torch.equal(*of_test)


@both
def test_mixup_gives_class_shares_and_normalised_images(tmp_path, data_class):
    data = tiny(data_class, WRITERS[data_class](tmp_path), augment=["mixup"])
    x, shares = next(iter(data.train_dataloader()))
    assert x.dtype == torch.float32
    assert x.min() < 0
    assert shares.shape == (len(x), data.num_classes)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(x)))
    assert data.on_after_batch_transfer([x, shares], 0)[0] is x


@both
def test_other_checksums_need_a_word(tmp_path, data_class):
    with pytest.raises(DataCorrupt, match=r"md5 .* official_checksums=False"):
        data_class(WRITERS[data_class](tmp_path)).setup()


@both
def test_one_changed_byte_in_any_official_file_is_named(tmp_path, data_class):
    published = official(data_class, WRITERS[data_class](tmp_path))
    data = published(tmp_path)
    assert len(data.samples.files) == {CIFAR10: 7, CIFAR100: 3}[data_class]
    assert len(data.class_names()) == data.num_classes
    for file in data.samples.files:
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(DataCorrupt, match=rf"{file}: md5 \w+ is not the official"):
            published(tmp_path).setup()
        (tmp_path / file).write_bytes(whole)
    published(tmp_path).setup()


@both
def test_every_file_is_needed_by_name(tmp_path, data_class):
    data = tiny(data_class, WRITERS[data_class](tmp_path))
    for file in data.samples.files:
        (tmp_path / file).rename(tmp_path / "elsewhere")
        with pytest.raises(DataMissing, match=f"no file .*{file}; get cifar-10"):
            tiny(data_class, tmp_path).setup()
        (tmp_path / "elsewhere").rename(tmp_path / file)


@both
def test_the_fingerprint_is_of_every_file_and_of_no_place(tmp_path, data_class, monkeypatch):
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    seen = set()
    for name in ("here", "there"):
        seen.add(tiny(data_class, WRITERS[data_class](tmp_path / name)).fingerprint())
    assert len(seen) == 1
    for file in tiny(data_class, tmp_path / "here").samples.files:
        with (tmp_path / "here" / file).open("ab") as opened:
            opened.write(b".")  # behind the end of the pickle
        seen.add(tiny(data_class, tmp_path / "here").fingerprint())
    assert len(seen) == {CIFAR10: 8, CIFAR100: 4}[data_class]


def test_the_fingerprint_of_cifar100_is_the_same_for_ever(tmp_path):
    data = tiny(CIFAR100, write_cifar100(tmp_path, protocol="python 2"))
    assert data.fingerprint() == PINNED
    assert data.samples.parts.validation[:5].tolist() == [3, 7, 12, 17, 26]
    assert data.calibration_indices()[:5].tolist() == [94, 136, 50, 144, 6]


PINNED = "81ecd9c1a22c49dd7911318f8c52951c267bec7d6e21d349d1ddc6e0724f6024"


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


ONE = random_pixels(1, 0)


@both
def test_files_run_no_code(tmp_path, monkeypatch, data_class):
    isolation._of_process.cache_clear()  # the next one starts here, where a trace of the code would be seen
    monkeypatch.chdir(tmp_path)
    bad = WRITERS[data_class](tmp_path) / data_class.published.base_folder / TEST_FILES[data_class]
    bad.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataCorrupt, match=rf"{bad}: .*it wants \w+\.mkdir"):
        tiny(data_class, tmp_path).setup()
    assert not (tmp_path / "code-was-run").exists()


@both
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": random_pixels(3, 0), "fine_labels": [1, 2], "labels": [1, 2]}, "expected data"),
        ({"data": ONE, "fine_labels": [100], "labels": [10]}, "expected labels from 0 to 9"),
        ({"data": ONE, "fine_labels": [-1], "labels": [-1]}, "expected labels from 0 to 9"),
        ({"data": ONE, "fine_labels": [1.0], "labels": [1.0]}, "cannot be read as images of CIFAR-10"),
        ({"data": np.zeros((1, 3072)), "fine_labels": [1], "labels": [1]}, "expected data"),
        ({"data": random_pixels(0, 0), "fine_labels": [], "labels": []}, "expected data"),
        ({"fine_labels": [1], "labels": [1]}, "expected data"),
        ({"data": ONE}, "expected data"),
        ([1], "a list instead of a dictionary"),
    ],
)
def test_contents_that_cannot_be_are_named(tmp_path, data_class, content, message):
    bad = WRITERS[data_class](tmp_path) / data_class.published.base_folder / TEST_FILES[data_class]
    bad.write_bytes(pickle.dumps(content))
    with pytest.raises(DataCorrupt, match=f"{bad}: .*{message}"):
        tiny(data_class, tmp_path).setup()


@both
def test_files_that_are_no_pickles_are_named(tmp_path, data_class):
    bad = WRITERS[data_class](tmp_path, protocol="python 2") / data_class.published.base_folder / TEST_FILES[data_class]
    for content in (bad.read_bytes()[:-9], b"", b"nonsense"):
        bad.write_bytes(content)
        with pytest.raises(DataCorrupt, match=f"{bad}: cannot be read as images of {data_class.title}"):
            tiny(data_class, tmp_path).setup()


def test_the_files_of_one_set_are_not_the_others(tmp_path):
    ten, hundred = write_cifar10(tmp_path / "10"), write_cifar100(tmp_path / "100")
    one, other = ten / "cifar-10-batches-py/test_batch", hundred / "cifar-100-python/test"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(DataCorrupt, match="test_batch: .* n labels"):
        tiny(CIFAR10, ten).setup()
    with pytest.raises(DataCorrupt, match="test: .* n fine_labels"):
        tiny(CIFAR100, hundred).setup()


@both
def test_names_of_other_than_all_classes_are_refused(tmp_path, data_class):
    data = tiny(data_class, WRITERS[data_class](tmp_path))
    meta = data_class.published.meta
    path = tmp_path / data_class.published.base_folder / meta["filename"]
    path.write_bytes(pickle.dumps({meta["key"]: ["a", "b"]}))
    with pytest.raises(DataCorrupt, match=f"{path}: names 2 classes, and there are {data.num_classes}"):
        data.class_names()


@pytest.mark.slow
def test_real_cifar100_is_whole_and_its_statistics_are_the_published_ones(real_cifar100):
    data = tiny(CIFAR100, real_cifar100, batch_size=1000)
    assert data.describe()["counts"] == {"train": 45000, "validation": 5000, "calibration": 10, "test": 10000}
    parts = data.samples.parts
    images = data.dataset(np.union1d(parts.train, parts.validation), augment=False)
    x = images.load(images.samples).double() / 255
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.tensor([0.5071, 0.4865, 0.4409]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.tensor([0.2673, 0.2564, 0.2762]).double(), atol=1e-4, rtol=0)
    assert np.bincount(data.samples.labels[parts.test]).tolist() == [100] * 100
    assert data.class_names()[:2] == ["apple", "aquarium_fish"]


class Linear(LightningModule):
    """Enough to tell classes apart, and to count what is seen."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 8 * 8, 100)
        self.losses = []

    def training_step(self, batch, _):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.layer(torch.nn.functional.avg_pool2d(x, 4).flatten(1)), y)
        self.losses.append((len(y), loss.item()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.002)


@pytest.mark.slow
def test_one_real_epoch_of_cifar100(real_cifar100):
    module = Linear()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, **quiet)
    trainer.fit(module, tiny(CIFAR100, real_cifar100, batch_size=500))
    assert sum(count for count, _ in module.losses) == 45_000
    losses = [loss for _, loss in module.losses]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.3
