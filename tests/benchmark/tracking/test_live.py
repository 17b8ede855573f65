"""Trainings are logged while they happen, and a fault of W&B costs none of them."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch import Callback, Trainer

from benchmark.tracking import live
from benchmark.tracking.live import LiveRun
from compressors import LAMP, OBC, Mimic
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
    callbacks = [LiveRun(QUESTION, "tiny", results), *more]
    Trainer(max_epochs=epochs, callbacks=callbacks, num_sanity_val_steps=0, **QUIET).fit(classifier(), Validated())


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged at each step, as numbers."""
    read(path)  # which waits until all of it is written
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


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a compression is, it is logged."""
    monkeypatch.setattr(live, "LONG_S", 0.0)


def test_reconstruction_is_logged_step_by_step_with_the_distances_that_choose_the_state(
    tmp_path: Path, everything: None
) -> None:
    mimic = Mimic(0.5, schedule=None, reconstruction_steps=8, augment=())
    train(tmp_path, 0, mimic)
    (path,) = run_files(tmp_path)
    found = read(path)
    assert found["run"].job_type == "compression"
    assert found["config"]["compressor"] == {"name": "lamp"}  # of the question that was asked
    assert mimic.compression is not None
    (stage,) = mimic.compression.stages
    steps = history(path)
    losses = [step for step in steps if "reconstruct/loss" in step]
    assert [float(step["reconstruct/step"]) for step in losses] == [*range(1, len(losses) + 1)]
    assert {float(step["reconstruct/start_rate"]) for step in losses} == {0.1, 0.03}
    held = [float(step["held_out/distance"]) for step in steps if "held_out/distance" in step]
    after = stage["after"]["output"] + sum(stage["after"]["spikes"]) / len(stage["after"]["spikes"])
    assert min(held) >= after - 1e-6  # the state that was kept is the best of those looked at, or the one before
    if stage["steps"]:
        assert min(held) == pytest.approx(after, rel=1e-5)


def test_an_elimination_is_logged_layer_by_layer(tmp_path: Path, everything: None) -> None:
    obc = OBC(0.4, allocation="relative_loss")
    train(tmp_path, 0, obc)
    (path,) = run_files(tmp_path)
    steps = history(path)
    assert obc.compression is not None
    layers = obc.compression.layers
    eliminated = [float(step["eliminate/weights"]) for step in steps if "eliminate/weights" in step]
    assert eliminated == [sum(layer.weights for layer in layers[: n + 1]) for n in range(len(layers))]
    done = [step for step in steps if "compress/layers" in step]
    assert [float(step["compress/layers"]) for step in done] == [*range(1, len(layers) + 1)]
    assert float(done[-1]["compress/density"]) == pytest.approx(obc.compression.density)
    assert float(done[-1]["compress/loss"]) == pytest.approx(sum(layer.loss or 0 for layer in layers))


def test_a_compression_before_fine_tuning_is_in_the_run_of_the_fine_tuning(tmp_path: Path, everything: None) -> None:
    train(tmp_path, 1, LAMP(0.5))
    (path,) = run_files(tmp_path)
    assert read(path)["run"].job_type == "fine-tuning"
    steps = history(path)
    assert any("compress/layers" in step for step in steps)
    assert any("train/loss" in step for step in steps)


def test_figures_are_told_to_nobody_by_default() -> None:
    assert LAMP(0.5).state.note({"compress/layers": 1}) is None


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
    with caplog.at_level(logging.WARNING, "benchmark.tracking.live"):
        train(tmp_path, 2)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "benchmark.tracking.live"]
    assert "OSError: no network" in message
    assert "--no-wandb" in message
