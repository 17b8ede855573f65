"""Fixed draws, batches without repetition, and the loaders under two processes."""

import os
import subprocess
import sys
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from datamodules import DigitsDVS
from datamodules.batches import Batches
from datamodules.errors import CalibrationTooLarge
from datamodules.splits import hold_out_validation, stratified_draw

label_lists = st.lists(st.integers(0, 5), min_size=2, max_size=200)


def named(labels):
    return [f"sample {index}" for index in range(len(labels))], np.array(labels)


@settings(max_examples=100, deadline=None)
@given(labels=label_lists, share=st.floats(0.01, 1), data=st.data())
def test_a_draw_is_by_class_and_depends_on_names_alone(labels, share, data):
    keys, classes = named(labels)
    count = max(1, int(share * len(keys)))
    drawn = stratified_draw(keys, classes, count, "salt")
    assert len(set(drawn.tolist())) == count
    for label in set(labels):
        fair = count * (classes == label).sum() / len(keys)
        assert abs((classes[drawn] == label).sum() - fair) < 1
    order = np.array(data.draw(st.permutations(range(len(keys)))))
    moved = stratified_draw([keys[index] for index in order], classes[order], count, "salt")
    assert [keys[order[index]] for index in moved] == [keys[index] for index in drawn]


def test_draws_grow_and_differ_by_salt():
    keys, classes = named(np.arange(500) % 10)
    small, large = (set(stratified_draw(keys, classes, count, "a").tolist()) for count in (50, 100))
    assert small < large
    assert small != set(stratified_draw(keys, classes, 50, "b").tolist())


def test_a_draw_is_the_same_for_ever():
    keys, classes = named(np.arange(40) % 4)
    assert stratified_draw(keys, classes, 8, "pinned").tolist() == PINNED


PINNED = [38, 4, 1, 13, 19, 16, 27, 2]


@pytest.mark.parametrize("count", [0, 3])
def test_a_draw_of_nothing_or_too_much_is_refused(count):
    with pytest.raises(ValueError, match=f"cannot draw {count} of 2 samples"):
        stratified_draw(["a", "b"], np.array([0, 1]), count, "salt")


@settings(max_examples=50, deadline=None)
@given(labels=label_lists, data=st.data())
def test_parts_are_disjoint_and_whole(labels, data):
    keys, classes = named(labels)
    size = data.draw(st.integers(0, len(keys) - 2))
    test = np.array(data.draw(st.permutations(range(len(keys))))[:size], dtype=np.int64)
    parts = hold_out_validation(keys, classes, test, "salt")
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(together.tolist()) == list(range(len(keys)))


def shares(samples, batch_size, processes, epoch=0, shuffle=True):
    """The batches of each process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: True)
        patch.setattr(dist, "get_world_size", lambda: processes)
        found = []
        for rank in range(processes):
            patch.setattr(dist, "get_rank", lambda rank=rank: rank)
            batches = Batches(TensorDataset(torch.zeros(samples)), batch_size, shuffle=shuffle, seed=3)
            batches.set_epoch(epoch)
            found.append(list(batches))
            assert len(found[-1]) == len(batches)
        return found


@settings(max_examples=100, deadline=None)
@given(samples=st.integers(1, 100), batch_size=st.integers(1, 20), processes=st.integers(1, 5))
def test_every_sample_is_in_one_batch_of_one_process(samples, batch_size, processes):
    if samples < processes:
        with pytest.raises(ValueError, match="cannot be shared out"):
            shares(samples, batch_size, processes)
        return
    found = shares(samples, batch_size, processes)
    positions = [batch.positions for share in found for batch in share]
    assert sorted(np.concatenate(positions).tolist()) == list(range(samples))
    sizes = [len(batch) for batch in positions]
    assert min(sizes) > 0
    assert max(sizes) <= max(2, ceil(batch_size / processes))
    assert len({len(share) for share in found}) == 1, "no process waits for another's gradient"
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=100, deadline=None)
@given(samples=st.integers(5, 100), batch_size=st.integers(5, 20), processes=st.integers(2, 5))
def test_a_batch_has_the_same_samples_whatever_the_number_of_processes(samples, batch_size, processes):
    assume(samples // processes >= ceil(samples / batch_size))  # no batch smaller than the number of processes
    (alone,) = shares(samples, batch_size, 1)
    cut = zip(*shares(samples, batch_size, processes), strict=True)
    together = [np.concatenate([part.positions for part in batch]) for batch in cut]
    for one, parts in zip(alone, together, strict=True):
        assert sorted(one.positions.tolist()) == sorted(parts.tolist())


def test_calibration_batches_are_whole_in_every_process(monkeypatch):
    data = DigitsDVS(timesteps=2, calibration_samples=30, batch_size=8)
    alone = [y.tolist() for _, y in data.calibration_dataloader()]
    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 1}.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)
    assert [y.tolist() for _, y in data.calibration_dataloader()] == alone


def test_order_and_seeds_come_from_seed_and_epoch():
    def flat(found):
        return [(batch.positions.tolist(), batch.seed) for share in found for batch in share]

    assert flat(shares(50, 8, 2)) == flat(shares(50, 8, 2))
    assert flat(shares(50, 8, 2)) != flat(shares(50, 8, 2, epoch=1))
    assert [batch for share in shares(50, 8, 1, shuffle=False) for batch, _ in flat([share])] == [
        part.tolist() for part in np.array_split(np.arange(50), 7)
    ]


TWO_PROCESSES = """
import sys, torch
from lightning import LightningModule, Trainer
from datamodules import DigitsDVS

torch.set_num_threads(1)

class Labels(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 10)
        self.seen = {"train": [], "test": []}

    def note(self, part, x):
        self.seen[part] += (x * torch.arange(1, x[0].numel() + 1).view(x[0].shape)).sum((1, 2, 3, 4)).tolist()

    def training_step(self, batch, _):
        x, y = batch
        assert x.dtype == torch.float32
        self.note("train", x)
        return torch.nn.functional.cross_entropy(self.layer(x.mean((1, 2, 3, 4))[:, None]), y)

    def test_step(self, batch, _):
        self.note("test", batch[0])

    def on_train_end(self):
        torch.save(self.seen["train"], f"{sys.argv[1]}/train{self.global_rank}.pt")

    def on_test_end(self):
        torch.save(self.seen["test"], f"{sys.argv[1]}/test{self.global_rank}.pt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = DigitsDVS(timesteps=2, batch_size=50)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=1, limit_val_batches=0, **quiet)
model = Labels()
trainer.fit(model, data)
trainer.test(model, data, verbose=False)
"""


@pytest.mark.slow
def test_two_real_processes_see_every_sample_once(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    subprocess.run(
        [sys.executable, script, tmp_path],
        check=True,
        timeout=200,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
    )
    data = DigitsDVS(timesteps=2)
    for part, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
        weights = torch.arange(1, 2 * 2 * 34 * 34 + 1).view(2, 2, 34, 34)
        expected = [value for x, _ in loader for value in (x.float() * weights).sum((1, 2, 3, 4)).tolist()]
        shares = [torch.load(tmp_path / f"{part}{rank}.pt") for rank in (0, 1)]
        assert abs(len(shares[0]) - len(shares[1])) <= 1
        assert sorted(shares[0] + shares[1]) == sorted(expected)


@pytest.mark.parametrize("count", [50, 220, 500, 10_000])
def test_samples_to_judge_on_are_training_samples_that_nothing_else_uses(count):
    """Of the simulated digits 120 + 200 - 100 are unseen: those go first, and test samples never."""
    data = DigitsDVS(timesteps=2)
    parts, held_out = data.samples.parts, data.held_out(count)
    judged, calibration = set(held_out.indices.tolist()), set(data.calibration_indices().tolist())
    assert len(held_out.indices) == len(judged) == min(count, 1797 - 397 - 100)
    assert not judged & (set(parts.test.tolist()) | calibration)
    assert len(held_out.unseen) == min(count, 220)
    assert not set(held_out.unseen.tolist()) & set(parts.train.tolist())
    assert set(held_out.seen.tolist()) <= set(parts.train.tolist())
    labels = data.samples.labels[held_out.indices]
    assert max(np.bincount(labels)) - min(np.bincount(labels)) < 20 + 0.05 * count
    (x, _), *_ = data.held_out_dataloader(count)
    assert x.shape[1] == 2
    assert sum(len(y) for _, y in data.held_out_dataloader(count)) == len(judged)


def test_where_calibration_takes_all_nothing_is_judged(monkeypatch):
    data = DigitsDVS(timesteps=2, calibration_samples=1)
    (sample,) = data.calibration_indices()
    table = data.samples
    one = np.array([sample])
    parts = replace(table.parts, train=one, calibration_pool=one, validation=one[:0])
    monkeypatch.setattr(data, "_table", replace(table, parts=parts))
    with pytest.raises(CalibrationTooLarge, match="leave no training sample to judge on"):
        data.held_out(5)
