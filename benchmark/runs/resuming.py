"""A training that was cut off goes on after its last epoch, with the bits of one that was not."""

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from torch import Tensor

VALIDATION = "val/accuracy"


class KeptTraining(Checkpoint):
    """Keeps, after every epoch, all that a training needs to go on, in one file; and the weights of its best epoch.

    The file is replaced whole: whoever is killed while writing leaves the one of the epoch before.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best: dict[str, Tensor] = {}
        self.accuracy = -1.0
        self.began = time.perf_counter()
        self._random: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        """Wall time of the training, with that before it was cut off."""
        return time.perf_counter() - self.began

    def state_dict(self) -> dict[str, Any]:
        """The best weights, and where the random generators stand."""
        return {"best": self.best, "accuracy": self.accuracy, "seconds": self.seconds, "random": _random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what an earlier process has kept."""
        self.best, self.accuracy = state_dict["best"], state_dict["accuracy"]
        self.began = time.perf_counter() - state_dict["seconds"]
        self._random = state_dict["random"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the random numbers of the training that was cut off; one that had ended does not go on."""
        if self._random:
            _restore_random_state(self._random)
            torch.empty((), dtype=torch.int64).random_()  # what an epoch's DataLoader draws: this one had it too early
        stops = trainer.early_stopping_callbacks
        trainer.should_stop = any(
            isinstance(stop, EarlyStopping) and stop.wait_count >= stop.patience for stop in stops
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        accuracy = float(trainer.callback_metrics[VALIDATION])
        if accuracy > self.accuracy:
            self.accuracy = accuracy
            self.best = {name: value.detach().to("cpu", copy=True) for name, value in pl_module.state_dict().items()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the training as it is now."""
        partial = self.path.with_suffix(f".partial-{os.getpid()}")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.path)


def kept_training(path: Path) -> Path | None:
    """The file, if a training can go on from it: one that cannot be read is as good as none."""
    try:
        torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError, KeyError):
        return None
    return path


def _random_state() -> dict[str, Any]:
    """Where the generators of torch, NumPy and Python stand, in what may be read without running code."""
    numpy = dict(np.random.get_state(legacy=False))  # noqa: NPY002  # the one that seed_everything seeds
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "numpy": numpy | {"state": {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]}},
        "python": list(random.getstate()),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    version, words, following = state["python"]
    random.setstate((version, tuple(words), following))
