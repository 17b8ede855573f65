"""Each event set in each of its on-disk formats, tiny, and the real recordings of N-MNIST."""

import json
import shutil

import numpy as np
import pytest
import scipy.io
import torch
from lightning import LightningModule, Trainer

from datamodules import CIFAR10DVS, MNISTDVS, NMNIST, DataCorrupt, DataMissing, DVSGesture
from datamodules.errors import CalibrationTooLarge
from tests.datamodules.formats import polarity_packet, random_events, write_aedat2, write_aedat3, write_nmnist

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def tiny_nmnist(tmp_path):
    for part, count in (("Train", 6), ("Test", 2)):
        for label in range(10):
            for index in range(count):
                events = random_events(200, size=34, span_us=300_000, seed=1000 * count + 10 * index + label)
                write_nmnist(tmp_path / part / str(label) / f"{index:05d}.bin", events)
    return tmp_path


def everything(loader):
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def test_loaders_give_the_parts_in_the_promised_shapes(tiny_nmnist):
    data = NMNIST(tiny_nmnist, timesteps=7, batch_size=8, calibration_samples=20)
    data.prepare_data()
    data.setup("fit")
    loaders = {
        "train": data.train_dataloader(),
        "validation": data.val_dataloader(),
        "calibration": data.calibration_dataloader(),
        "test": data.test_dataloader(),
    }
    found = {part: everything(loader) for part, loader in loaders.items()}
    assert {part: tuple(x.shape) for part, (x, _) in found.items()} == {
        "train": (54, 7, 2, 34, 34),
        "validation": (6, 7, 2, 34, 34),
        "calibration": (20, 7, 2, 34, 34),
        "test": (20, 7, 2, 34, 34),
    }
    assert {part: len(y) for part, (_, y) in found.items()} == data.describe()["counts"]
    assert found["calibration"][0].dtype == torch.float32
    assert found["train"][0].dtype == torch.uint8
    assert all(y.dtype == torch.int64 for _, y in found.values())
    assert found["test"][1].tolist() == [label for label in range(10) for _ in range(2)]
    assert found["train"][0].sum() == 54 * 200


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_batches_whatever_the_workers(tiny_nmnist, workers):
    options = {"timesteps": 3, "batch_size": 8, "augment": ["flip", "roll", "event_drop"]}
    x, y = everything(NMNIST(tiny_nmnist, seed=4, num_workers=workers, **options).train_dataloader())
    again, labels = everything(NMNIST(tiny_nmnist, seed=4, **options).train_dataloader())
    other, _ = everything(NMNIST(tiny_nmnist, seed=5, **options).train_dataloader())
    assert torch.equal(x, again)
    assert torch.equal(y, labels)
    assert not torch.equal(x, other)


def test_a_trainer_sees_float_and_new_orders(tiny_nmnist):
    class Watch(LightningModule):
        def __init__(self):
            super().__init__()
            self.epochs = []
            self.layer = torch.nn.Linear(1, 10)

        def on_train_epoch_start(self):
            self.epochs.append([])

        def training_step(self, batch, _):
            x, y = batch
            assert x.dtype == torch.float32
            self.epochs[-1] += y.tolist()
            return torch.nn.functional.cross_entropy(self.layer(x.mean((1, 2, 3, 4))[:, None]), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    watch = Watch()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=2, limit_val_batches=0, **quiet)
    trainer.fit(watch, NMNIST(tiny_nmnist, timesteps=2, batch_size=16))
    first, second = watch.epochs
    assert sorted(first) == sorted(second)
    assert first != second


def test_calibration_is_fixed_by_number_and_seed(tiny_nmnist):
    def drawn(**options):
        return NMNIST(tiny_nmnist, timesteps=2, **options).calibration_indices().tolist()

    train = NMNIST(tiny_nmnist, timesteps=2).samples.parts.train.tolist()
    first = drawn(calibration_samples=20)
    assert first == drawn(calibration_samples=20, seed=9, batch_size=3)
    assert first != drawn(calibration_samples=20, calibration_seed=1)
    assert set(first) <= set(train)
    with pytest.raises(CalibrationTooLarge, match=r"nmnist: 55 calibration samples .* has 54 .*ask for as many at"):
        drawn(calibration_samples=55)
    with pytest.raises(ValueError, match="calibration_samples is 0"):
        drawn(calibration_samples=0)


def test_fingerprints_follow_files_and_split_not_the_place(tiny_nmnist, tmp_path_factory):
    there = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(tiny_nmnist, there)
    first = NMNIST(tiny_nmnist, timesteps=2)
    assert NMNIST(there, timesteps=5, batch_size=2).fingerprint() == first.fingerprint()
    assert NMNIST(there, timesteps=2).describe() == first.describe()
    assert json.loads(json.dumps(first.describe())) == first.describe()
    write_nmnist(there / "Train/3/00001.bin", random_events(200, size=34))
    assert NMNIST(there, timesteps=2).fingerprint() != first.fingerprint()


def test_missing_sets_say_what_goes_where(tmp_path):
    for data in (NMNIST(tmp_path), MNISTDVS(tmp_path), CIFAR10DVS(tmp_path), DVSGesture(tmp_path)):
        with pytest.raises(DataMissing, match=str(tmp_path)) as missing:
            data.setup()
        assert data.name in str(missing.value)
        assert data.instructions in str(missing.value)


def test_a_bad_file_is_named_and_leaves_no_cache(tiny_nmnist):
    bad = tiny_nmnist / "Train/4/00002.bin"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-2])
    with pytest.raises(DataCorrupt, match=str(bad)):
        NMNIST(tiny_nmnist, timesteps=2).setup()
    bad.write_bytes(b"")
    with pytest.raises(DataCorrupt, match=f"{bad}: no events"):
        NMNIST(tiny_nmnist, timesteps=2).setup()
    bad.write_bytes(whole)
    NMNIST(tiny_nmnist, timesteps=2).setup()


def test_a_bad_file_is_named_by_worker_processes(tiny_nmnist, monkeypatch):
    monkeypatch.setattr("datamodules.parallel.ITEMS_WORTH_A_PROCESS", 10)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    whole = NMNIST(tiny_nmnist, timesteps=3)
    whole.setup()
    assert len(whole.cache) == 80
    bad = tiny_nmnist / "Test/9/00001.bin"
    bad.write_bytes(bad.read_bytes()[:-1])
    with pytest.raises(DataCorrupt, match=str(bad)):
        NMNIST(tiny_nmnist, timesteps=3).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "random"}, "no split 'random'; it has: official, pooled"),
        ({"timesteps": 0}, "timesteps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"augment": ["flp"]}, "unknown augmentation 'flp'; there are: flip"),
        ({"frame_size": 35}, "does not fit"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NMNIST("anywhere", **options)


def test_real_nmnist_in_both_splits(real_nmnist):
    official, pooled = (NMNIST(real_nmnist, timesteps=10, split=split) for split in ("official", "pooled"))
    assert official.describe()["counts"] == {"train": 720, "validation": 80, "calibration": 100, "test": 60}
    assert pooled.describe()["counts"] == {"train": 504, "validation": 56, "calibration": 100, "test": 300}
    assert official.fingerprint() != pooled.fingerprint()
    of_class = np.bincount(pooled.samples.labels, minlength=10) * 300 / 860
    assert (abs(np.bincount(pooled.samples.labels[pooled.samples.parts.test]) - of_class) < 1).all()
    x, _ = everything(pooled.test_dataloader())
    assert (x.flatten(1).sum(1) > 1000).all()


def write_recording(path, events):
    if path.suffix == ".aedat":
        return write_aedat2(path, events)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        return np.savez(path, **events)
    if path.suffix == ".npy":
        records = np.empty(len(events["t"]), dtype=[(name, "i8") for name in "txyp"])
        for name in "txyp":
            records[name] = events[name]
        return np.save(path, records)
    ones = np.ones(len(events["t"]))
    matrix = np.stack([events["t"], ones, ones, events["x"], events["y"], events["p"]], axis=1)
    return scipy.io.savemat(path, {"out1": matrix})


def write_cifar10_dvs(root, ending, numbers):
    for label, name in enumerate(CLASSES):
        for number in numbers:
            events = random_events(100, seed=1000 * label + number, start_us=2**31 - 400_000)
            write_recording(root / name / f"cifar10_{name}_{number}{ending}", events)
    return root


def test_cifar10_dvs_is_the_same_in_every_format(tmp_path):
    roots = [write_cifar10_dvs(tmp_path / ending, ending, range(10)) for ending in (".aedat", ".npz", ".npy", ".mat")]
    sets = [CIFAR10DVS(root, timesteps=4, frame_size=48) for root in roots]
    tests = [everything(data.test_dataloader()) for data in sets]
    assert tests[0][0].shape == (10, 4, 2, 48, 48)
    assert tests[0][0].sum() == 1000
    for x, y in tests[1:]:
        assert torch.equal(x, tests[0][0])
        assert torch.equal(y, tests[0][1])
    assert len({data.fingerprint() for data in sets}) == 4
    assert len({tuple(data.calibration_indices().tolist()) for data in map(_with_few_samples, roots)}) == 1


def _with_few_samples(root):
    return CIFAR10DVS(root, calibration_samples=20)


def test_cifar10_dvs_reads_real_aedat4(tmp_path, real_dvs128):
    recordings = sorted(real_dvs128.glob("aedat4/redpob/archived_recordings/*.aedat4"))
    for label, name in enumerate(CLASSES[:2]):
        (tmp_path / name).mkdir()
        for number in range(3):
            shutil.copy(recordings[3 * label + number], tmp_path / name / f"cifar10_{name}_{number}.aedat4")
    data = CIFAR10DVS(tmp_path, timesteps=10)
    data.setup()
    assert len(data.cache) == 6
    assert data.cache.counts.sum() > 6 * 18_000


def test_cifar10_dvs_splits(tmp_path):
    root = write_cifar10_dvs(tmp_path, ".npz", [0, 1, 2, 3, 4, 5, 50, 100, 101, 1000])
    default = CIFAR10DVS(root).samples
    tested = [default.keys[index] for index in default.parts.test]
    assert tested == [f"{name}/cifar10_{name}_50" for name in CLASSES]  # last as text, not as a number
    tebn = CIFAR10DVS(root, split="tebn").samples
    trained = {tebn.keys[index] for index in [*tebn.parts.train, *tebn.parts.validation]}
    assert trained == {f"{name}/cifar10_{name}_{number}" for name in CLASSES for number in (100, 101, 1000)}
    assert CIFAR10DVS(root).fingerprint() != CIFAR10DVS(root, split="tebn").fingerprint()


def test_cifar10_dvs_refuses_one_recording_in_two_formats(tmp_path):
    root = write_cifar10_dvs(tmp_path, ".npz", range(2))
    write_recording(root / "cat/cifar10_cat_1.aedat", random_events(100))
    with pytest.raises(DataCorrupt, match=r"cifar10_cat_1\.aedat and cat/cifar10_cat_1\.npz are the same"):
        CIFAR10DVS(root).setup()


def write_gestures(root, user, spans):
    """A file of one user: for each (class, begin, end) 50 events, and 30 between gestures that belong to none."""
    gestures, strays = [], []
    for label, begin, end in spans:
        gestures.append(random_events(50, seed=label + 100 * user, start_us=begin, span_us=end - begin))
        strays.append(random_events(30, seed=label, start_us=end, span_us=1000))
    packets = [polarity_packet(part) for pair in zip(gestures, strays, strict=True) for part in pair if len(part["t"])]
    write_aedat3(root / f"user{user:02d}_led.aedat", *packets)
    table = "".join(f"{label},{begin},{end}\n" for label, begin, end in spans)
    (root / f"user{user:02d}_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + table)
    return gestures


@pytest.fixture
def tiny_gestures(tmp_path):
    spans = [
        (label, 2**31 - 4_000_000 + label * 100_000, 2**31 - 3_950_000 + label * 100_000) for label in range(1, 12)
    ]
    written = {user: write_gestures(tmp_path, user, spans) for user in (1, 2, 3)}
    (tmp_path / "trials_to_train.txt").write_text("user02_led.aedat\nuser01_led.aedat\n\n")
    (tmp_path / "trials_to_test.txt").write_text("user03_led.aedat\n")
    return tmp_path, written


def test_gestures_are_cut_out_of_original_recordings(tiny_gestures):
    root, written = tiny_gestures
    data = DVSGesture(root, timesteps=5, batch_size=50)
    assert data.describe()["counts"] | {"calibration": 0} == {
        "train": 20,
        "validation": 2,
        "calibration": 0,
        "test": 11,
    }
    x, y = next(iter(data.test_dataloader()))
    assert y.tolist() == list(range(11))
    assert x.flatten(1).sum(1).tolist() == [50] * 11
    for frames, events in zip(x, written[3], strict=True):
        together = np.zeros((2, 128, 128), dtype=np.int64)
        np.add.at(together, (events["p"], events["y"], events["x"]), 1)
        np.testing.assert_array_equal(frames.sum(0).numpy(), together)


def test_gesture_labels_are_part_of_the_fingerprint(tiny_gestures):
    root, _ = tiny_gestures
    before = DVSGesture(root).fingerprint()
    table = root / "user01_led_labels.csv"
    table.write_text(table.read_text().replace("\n1,", "\n2,"))
    assert DVSGesture(root).fingerprint() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class,startTime_usec,endTime_usec\n12,1,2\n", "a class that is not 1 to 11"),
        ("class,startTime_usec,endTime_usec\n", "no gestures"),
        ("class,begin,end\n1,2,3\n", "a table of class,startTime_usec,endTime_usec"),
        ("class,startTime_usec,endTime_usec\n1,3,2\n", "a gesture from 3 to 2"),
        ("class,startTime_usec,endTime_usec\n1,0," + "9" * 30 + "\n", "a gesture from 0 to 999"),
        ("class,startTime_usec,endTime_usec\n1,x,3\n", "in whole numbers"),
        ("class,startTime_usec,endTime_usec\n1,5,6\n", "no events"),
    ],
)
def test_bad_label_tables_are_named(tiny_gestures, content, message):
    root, _ = tiny_gestures
    (root / "user01_led_labels.csv").write_text(content)
    with pytest.raises(DataCorrupt, match=f"user01_led.*{message}"):
        DVSGesture(root).setup()


def test_a_listed_recording_that_is_not_there_is_named(tiny_gestures):
    root, _ = tiny_gestures
    (root / "user02_led.aedat").unlink()
    with pytest.raises(DataMissing, match=r"user02_led\.aedat, listed in trials_to_train\.txt"):
        DVSGesture(root).setup()
    (root / "trials_to_train.txt").unlink()
    with pytest.raises(DataMissing, match=r"trials_to_train\.txt is not there"):
        DVSGesture(root).setup()


@pytest.fixture
def tiny_cuts(tmp_path):
    for part, users in (("ibmGestureTrain", (1, 2)), ("ibmGestureTest", (24,))):
        for user in users:
            folder = tmp_path / part / f"user{user:02d}_led"
            folder.mkdir(parents=True)
            for label in range(11):
                events = random_events(40, seed=label, span_us=1000)
                np.save(folder / f"{label}.npy", np.stack([events[name] for name in "xypt"], axis=1))
    return tmp_path


def test_gesture_cuts_of_tonic(tiny_cuts):
    data = DVSGesture(tiny_cuts, timesteps=3, window_us=100_000)
    assert data.samples.labels[data.samples.parts.test].tolist() == list(range(11))
    x, _ = everything(data.test_dataloader())
    expected = random_events(40, seed=0, span_us=1000)["t"] * 1000
    assert x[0].sum() == (expected - expected[0] < 300_000).sum()
    np.save(tiny_cuts / "ibmGestureTest/user24_led/11.npy", np.zeros((1, 4)))
    with pytest.raises(DataCorrupt, match=r"11\.npy: the name must be a class"):
        DVSGesture(tiny_cuts).setup()


def test_original_gestures_and_cuts_are_of_different_number(tiny_gestures, tmp_path_factory):
    root, _ = tiny_gestures
    assert DVSGesture(root).published_samples == 1176 + 288
    assert DVSGesture(tmp_path_factory.mktemp("cuts")).published_samples == 1077 + 264


@pytest.mark.parametrize("name", ["../user02_led.aedat", "/etc/passwd", "user02_led.aedat/..", "\udcff"])
def test_a_list_of_trials_names_recordings_and_no_other_files(tiny_gestures, name):
    root, _ = tiny_gestures
    (root / "trials_to_train.txt").write_bytes(b"user01_led.aedat\n" + name.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataCorrupt, match=r"trials_to_train\.txt: cannot be read as a list of recordings"):
        DVSGesture(root).setup()


def test_a_folder_of_cuts_that_is_no_recording_is_named(tiny_cuts):
    shutil.copytree(tiny_cuts / "ibmGestureTest/user24_led", tiny_cuts / "ibmGestureTrain/user24_led (copy)")
    with pytest.raises(DataCorrupt, match=r"ibmGestureTrain/user24_led \(copy\): its name is not that of a recording"):
        DVSGesture(tiny_cuts).setup()
