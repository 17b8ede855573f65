"""Trainings in Weights & Biases, logged while they happen: each a W&B run of its own beside those of the records.

A record's run is logged when the record is stored; a training takes hours before there is one, and is looked at
meanwhile. As everywhere, a fault of W&B is a warning and costs no result.
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmark.questions.suite import Question, digest
from benchmark.tracking.runs import Mode, open_run
from compressors.base import Compressor

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)


class TrainingCurves(Callback):
    """Logs loss, accuracy and learning rate after every epoch of a fit, and the machine's load meanwhile.

    The W&B run is in the suite's group, of the job type ``dense training`` or ``fine-tuning``; its id follows from what
    is trained, so that a training that goes on goes on in its own run. A fit without epochs leaves none.

    Args:
        question: whose network is trained.
        suite: its suite's name.
        results: the results folder.
        mode: as for :func:`benchmark.tracking.runs.log_run`.
    """

    def __init__(self, question: Question, suite: str, results: Path, mode: Mode | None = None) -> None:
        self.question, self.suite, self.results, self.mode = question, suite, results, mode
        self._run: wandb.Run | None = None
        self._opened = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the run."""
        compressed = any(isinstance(callback, Compressor) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        arguments = _described(self.question, compressed) | {"group": self.suite}
        self._guarded(lambda: self._open(arguments))

    def _open(self, arguments: dict[str, Any]) -> None:
        self._run = self._opened.enter_context(open_run(self.results, self.mode, system=True, **arguments))
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch before, whose means are complete by now."""
        if trainer.current_epoch:
            self._guarded(lambda: self._note(trainer, trainer.current_epoch))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last epoch."""
        self._guarded(lambda: self._note(trainer, trainer.current_epoch))

    def _note(self, trainer: Trainer, epoch: int) -> None:
        if self._run is not None:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._run.log({"epoch": epoch, "learning_rate": rate, **metrics})

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Finish the run."""
        self._run = None
        self._guarded(self._opened.close)

    on_exception = teardown

    def _guarded(self, step: Any) -> None:
        try:
            step()
        except Exception as error:  # whatever W&B raises must not cost the training
            self._run = None
            said = " ".join(str(error).split())
            _log.warning(
                "the training of %s is not in Weights & Biases: %s: %s. It goes on; its record will be logged, or go "
                "without: --no-wandb",
                self.question.label,
                type(error).__name__,
                said,
            )


def _described(question: Question, compressed: bool) -> dict[str, Any]:
    """Id, name, job type and configuration of the run of a training."""
    dense = {name: question.model_dump(mode="json")[name] for name in ("data", "model", "training", "seed")}
    config = question.model_dump(mode="json") if compressed else dense
    job = "fine-tuning" if compressed else "dense training"
    network = f"{question.data.label} {question.model.label} seed {question.seed}"
    name = f"{job}: {question.label if compressed else network}"
    return {"id": f"training-{digest(config)}", "name": name, "job_type": job, "config": config}
