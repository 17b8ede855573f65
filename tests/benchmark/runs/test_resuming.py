"""A training that is cut off and started again gives the bits of one that was not."""

import pytest
import torch
from lightning.pytorch import Callback
from spikingjelly.activation_based import layer
from torch import nn

from benchmark.networks.zoo.neurons import lif
from benchmark.questions.suite import Question
from benchmark.runs import dense
from benchmark.runs.distributed import Devices
from datamodules.digits_dvs import DigitsDVS

EPOCHS, PATIENCE = 4, 2


def dropping(input_shape, classes):
    """A network whose training draws random numbers."""
    return nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.Dropout(0.2, step_mode="m"),
        layer.Linear(2 * 34 * 34, 8, step_mode="m"),
        layer.BatchNorm1d(8, step_mode="m"),
        lif(2.0),
        layer.Linear(8, classes, step_mode="m"),
        lif(2.0),
    )


class CutOff(Callback):
    """Ends the process's work in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
            raise OSError("cut off")


class Epochs(Callback):
    """The epochs that were trained."""

    def __init__(self) -> None:
        self.trained: list[int] = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.trained.append(trainer.current_epoch)


@pytest.fixture(scope="module")
def question():
    settings = {"epochs": EPOCHS, "patience": EPOCHS, "batch_size": 128, "learning_rate": 0.5}
    more = {"optimizer": "sgd", "momentum": 0.8, "warmup_epochs": 1, "weight_decay": 1e-4, "decay_norm": False}
    return Question(
        data={"name": "digits_dvs", "timesteps": 3},
        model={"name": f"{__name__}:dropping"},
        training={**settings, **more, "gradient_clip": 1.0, "label_smoothing": 0.1},
        compressor={"name": "identity"},
        calibration_samples=10,
        seed=3,
    )


@pytest.fixture(scope="module")
def data():
    data = DigitsDVS(timesteps=3, batch_size=128, seed=3)
    data.prepare_data()
    return data


def fit(question, data, path, *callbacks):
    epochs = Epochs()
    module, known = dense._fit(question, data, path, [epochs, *callbacks], Devices())
    return {name: value.clone() for name, value in module.state_dict().items()}, known, epochs.trained


@pytest.fixture(scope="module")
def undisturbed(question, data, tmp_path_factory):
    return fit(question, data, tmp_path_factory.mktemp("whole") / "net.training")


def assert_as(undisturbed, weights, known):
    for name, value in undisturbed[0].items():
        assert torch.equal(weights[name], value), name
    assert {**known, "seconds": 0} == {**undisturbed[1], "seconds": 0}


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_a_training_goes_on_after_its_last_epoch_to_the_bit(question, data, undisturbed, tmp_path, epoch):
    path = tmp_path / "net.training"
    with pytest.raises(OSError, match="cut off"):
        fit(question, data, path, CutOff(epoch))
    assert path.exists() == (epoch > 0)
    torch.rand(17)  # a process of its own would stand elsewhere
    weights, known, trained = fit(question, data, path)
    assert trained == [*range(epoch, EPOCHS)]
    assert_as(undisturbed, weights, known)
    assert [*tmp_path.iterdir()] == [path]


def test_a_training_that_had_ended_is_not_trained_further(question, data, undisturbed, tmp_path):
    path = tmp_path / "net.training"
    fit(question, data, path)
    weights, known, trained = fit(question, data, path)
    assert trained == []
    assert_as(undisturbed, weights, known)


def test_a_training_that_had_stopped_early_is_not_trained_further(question, data, tmp_path):
    hopeless = question.training.model_copy(update={"learning_rate": 1e-12, "epochs": 9, "patience": PATIENCE})
    question = question.model_copy(update={"training": hopeless})
    path = tmp_path / "net.training"
    weights, known, trained = fit(question, data, path)
    assert len(trained) == 1 + PATIENCE
    again, known_again, trained_again = fit(question, data, path)
    assert trained_again == []
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert known_again["epochs"] == known["epochs"]


def test_a_damaged_file_is_as_good_as_none(question, data, undisturbed, tmp_path):
    path = tmp_path / "net.training"
    with pytest.raises(OSError, match="cut off"):
        fit(question, data, path, CutOff(2))
    path.write_bytes(path.read_bytes()[:-1000])
    weights, known, trained = fit(question, data, path)
    assert trained == [*range(EPOCHS)]
    assert_as(undisturbed, weights, known)


@pytest.mark.parametrize("emulated", [True, False])
def test_a_precision_that_the_processor_only_emulates_is_said_to_be_slow(
    question, data, tmp_path, monkeypatch, caplog, emulated
):
    monkeypatch.setattr(dense, "computes_bfloat16", lambda device: not emulated)
    training = question.training.model_copy(update={"precision": "bf16-mixed", "epochs": 1})
    fit(question.model_copy(update={"training": training}), data, tmp_path / "net.training")
    said = [record.message for record in caplog.records if record.name == dense.__name__]
    assert ["training.precision 32-true is faster here" in line for line in said] == [True] * emulated
