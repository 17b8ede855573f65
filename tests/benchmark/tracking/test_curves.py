"""Trainings are logged while they happen, and a fault of W&B costs none of them."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch import Callback, Trainer

from benchmark.tracking.curves import TrainingCurves
from compressors import LAMP
from tests.benchmark.factory import make_record
from tests.benchmark.tracking.wandb_files import logged, read, run_files
from tests.compressors.networks import QUIET, RandomEvents, classifier

QUESTION = make_record("lamp", 0.25, seed=3).question


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))


class Validated(RandomEvents):
    """Random events with a validation part."""

    val_dataloader = RandomEvents.train_dataloader


def train(results: Path, epochs: int, *more: Callback) -> None:
    callbacks = [TrainingCurves(QUESTION, "tiny", results), *more]
    Trainer(max_epochs=epochs, callbacks=callbacks, num_sanity_val_steps=0, **QUIET).fit(classifier(), Validated())


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged at each step, as numbers."""
    steps = [record.history for record in logged(path) if record.WhichOneof("record_type") == "history"]
    return [{item.key or ".".join(item.nested_key): item.value_json for item in step.item} for step in steps]


def test_every_epoch_is_a_step_of_the_run_of_a_training(tmp_path: Path) -> None:
    train(tmp_path, 3)
    (path,) = run_files(tmp_path)
    found = read(path)
    assert (found["run"].job_type, found["run"].run_group) == ("dense training", "tiny")
    assert found["config"]["model"] == {"name": "conv"}
    assert "compressor" not in found["config"]
    steps = history(path)
    assert [step["epoch"] for step in steps] == ["1", "2", "3"]
    assert all({"train/loss", "val/accuracy", "learning_rate"} <= step.keys() for step in steps)
    rates = [float(step["learning_rate"]) for step in steps]
    assert rates == sorted(rates, reverse=True)
    assert len({step["train/loss"] for step in steps}) == 3
    assert found["exit_code"] == 0
    assert wandb.run is None


def test_it_is_there_before_the_training_ends(tmp_path: Path) -> None:
    seen: list[int] = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
            seen.append(len(run_files(tmp_path)))

    train(tmp_path, 2, Look())
    assert seen == [1, 1]


def test_fine_tuning_has_a_run_of_its_own_and_a_fit_without_epochs_none(tmp_path: Path) -> None:
    train(tmp_path / "none", 0, LAMP(0.5))
    assert run_files(tmp_path / "none") == []
    train(tmp_path / "tuned", 1, LAMP(0.5))
    (path,) = run_files(tmp_path / "tuned")
    found = read(path)
    assert found["run"].job_type == "fine-tuning"
    assert found["config"]["compressor"] == {"name": "lamp"}


def test_the_same_training_goes_on_in_its_own_run(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        train(tmp_path / folder, 1)
    first, second = (read(run_files(tmp_path / folder)[0])["run"].run_id for folder in ("first", "second"))
    assert first == second


def test_a_fault_is_one_warning_and_the_training_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(wandb, "init", broken)
    with caplog.at_level(logging.WARNING, "benchmark.tracking.curves"):
        train(tmp_path, 2)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "benchmark.tracking.curves"]
    assert "OSError: no network" in message
    assert "--no-wandb" in message
