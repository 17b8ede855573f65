"""CIFAR-100 and ImageNet: tiny sets in their layouts, and the real images."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from datamodules import CIFAR100, DataCorrupt, DataMissing, ImageNet, isolation
from datamodules.imagenet import wnids

DEVKIT = "ILSVRC2012_devkit_t12"


def write_cifar100(root, train=200, test=100, protocol=2):
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        content = {
            "data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": [index % 100 for index in range(count)],
        }
        (folder / part).write_bytes(pickle.dumps(content, protocol))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"c{i}" for i in range(100)]}, protocol))
    return root


def cifar100(root, **options):
    return CIFAR100(
        root, official_checksums=False, calibration_samples=options.pop("calibration_samples", 10), **options
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar100_is_read_back(tmp_path, protocol):
    data = cifar100(write_cifar100(tmp_path, protocol=protocol), batch_size=100)
    x, y = next(iter(data.test_dataloader()))
    stored = pickle.loads((tmp_path / "cifar-100-python/test").read_bytes())
    np.testing.assert_array_equal(x.numpy(), stored["data"].reshape(100, 3, 32, 32))
    assert y.tolist() == stored["fine_labels"]
    assert data.describe()["counts"] == {"train": 180, "validation": 20, "calibration": 10, "test": 100}
    assert data.class_names()[7] == "c7"


def test_bytes_become_normalised_floats(tmp_path):
    data = cifar100(write_cifar100(tmp_path), batch_size=100)
    x, y = next(iter(data.test_dataloader()))
    seen, _ = data.on_after_batch_transfer([x.clone(), y], 0)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (data.mean, data.std))
    torch.testing.assert_close(seen, (x / 255 - mean) / std)
    calibration, _ = next(iter(data.calibration_dataloader()))
    assert calibration.dtype == torch.float32
    assert calibration.min() < 0


def test_augmentations_come_from_the_seed_and_leave_test_alone(tmp_path):
    root = write_cifar100(tmp_path)

    def first_batch(**options):
        return next(iter(cifar100(root, **options).train_dataloader()))

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
    both = [next(iter(cifar100(root, augment=names).test_dataloader()))[0] for names in ([], ["crop", "mixup"])]
    assert torch.equal(*both)


def test_mixup_gives_class_shares_and_normalised_images(tmp_path):
    data = cifar100(write_cifar100(tmp_path), augment=["mixup"])
    x, shares = next(iter(data.train_dataloader()))
    assert x.dtype == torch.float32
    assert x.min() < 0
    assert shares.shape == (len(x), 100)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(x)))
    assert data.on_after_batch_transfer([x, shares], 0)[0] is x


def test_cifar100_with_other_checksums_needs_a_word(tmp_path):
    with pytest.raises(DataCorrupt, match=r"train: md5 .* official_checksums=False"):
        CIFAR100(write_cifar100(tmp_path)).setup()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Bomb()), r"it wants \w+\.mkdir"),
        (pickle.dumps({"data": np.zeros((3, 3072), np.uint8), "fine_labels": [1, 2]}), "expected data"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [100]}), "expected fine_labels from 0"),
        (pickle.dumps({"data": np.zeros((1, 3072)), "fine_labels": [1]}), "expected data"),
        (pickle.dumps({"fine_labels": [1]}), "expected data"),
        (pickle.dumps([1]), "a list instead of a dictionary"),
        (b"", "cannot be read as images of CIFAR-100"),
        (b"nonsense", "cannot be read as images of CIFAR-100"),
    ],
)
def test_bad_cifar100_files_are_named_and_run_nothing(tmp_path, monkeypatch, content, message):
    isolation._of_process.cache_clear()  # the next one starts here, where a trace of the code would be seen
    monkeypatch.chdir(tmp_path)
    (write_cifar100(tmp_path) / "cifar-100-python/test").write_bytes(content)
    with pytest.raises(DataCorrupt, match=f"cifar-100-python/test: .*{message}"):
        cifar100(tmp_path).setup()
    assert not (tmp_path / "code-was-run").exists()


def test_missing_image_sets_say_what_goes_where(tmp_path):
    for data in (CIFAR100(tmp_path), ImageNet(tmp_path)):
        with pytest.raises(DataMissing) as missing:
            data.setup()
        assert str(tmp_path) in str(missing.value)
        assert data.instructions in str(missing.value)


def test_unknown_image_augmentations_are_refused():
    with pytest.raises(ValueError, match=r"unknown augmentation 'event_drop'; cifar100 has: crop, flip"):
        CIFAR100("anywhere", augment=["event_drop"])
    assert ImageNet("anywhere", augment=["crop", "flip"]).settings() == {"augment": ["crop", "flip"]}


@pytest.mark.slow
def test_real_cifar100_is_whole_and_its_statistics_are_the_published_ones(real_cifar100):
    data = cifar100(real_cifar100, batch_size=1000)
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
    trainer.fit(module, cifar100(real_cifar100, batch_size=500))
    assert sum(count for count, _ in module.losses) == 45_000
    losses = [loss for _, loss in module.losses]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.3


def write_image(path, mode="RGB", size=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path, "JPEG")


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
