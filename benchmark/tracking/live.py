"""Work in Weights & Biases, logged while it happens: each a W&B run of its own beside those of the records.

A record's run is logged when the record is stored; a training or a compression takes hours before there is one, and is
looked at meanwhile. As everywhere, a fault of W&B is a warning and costs no result.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmark.questions.suite import Question, digest
from benchmark.tracking.layout import tags_of
from benchmark.tracking.runs import Mode, open_run
from compressors.base import Compressor

if TYPE_CHECKING:
    import wandb

LONG_S = 10.0  # a compression that ends sooner is told of by its record's run alone

GROUPS = ("compress", "eliminate", "reconstruct", "held_out")
"""What compressors tell figures of; each group counts its own steps."""

_log = logging.getLogger(__name__)


class LiveRun(Callback):
    """Logs what happens in a fit, and the machine's load meanwhile.

    After every epoch loss, accuracy and learning rate; and whatever figures a compressor tells of its work
    (:data:`compressors.progress.Note`): the distance to the dense network that reconstruction makes small, and how far
    an elimination is. The W&B run is in the suite's group, of the job type ``dense training``, ``fine-tuning`` or
    ``compression``; its id follows from what is asked for, so that work that goes on goes on in its own run. A fit
    without epochs whose compression is over within :data:`LONG_S` leaves none.

    Args:
        question: whose network it is.
        suite: its suite's name.
        results: the results folder.
        mode: as for :func:`benchmark.tracking.runs.log_run`.
    """

    def __init__(self, question: Question, suite: str, results: Path, mode: Mode | None = None) -> None:
        self.question, self.suite, self.results, self.mode = question, suite, results, mode
        self._run: wandb.Run | None = None
        self._opened, self._broken = ExitStack(), False
        self._job = "dense training"
        self._began, self._waiting = 0.0, list[dict[str, float]]()
        self._steps: Counter[str] = Counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the compressor, which begins its work here or at the start of the fit."""
        compressor = next(
            (callback for callback in trainer.callbacks if isinstance(callback, Compressor)),  # type: ignore[attr-defined]
            None,
        )
        self._began = time.monotonic()
        if compressor is not None:
            self._job = "fine-tuning" if trainer.max_epochs else "compression"
            compressor.state.note = self.note

    def note(self, figures: Mapping[str, SupportsFloat]) -> None:
        """Log a step of a compressor's work; the first ones wait until it is known to be long."""
        group = next(iter(figures)).partition("/")[0]
        self._steps[group] += 1
        step = {f"{group}/step": float(self._steps[group])}
        self._waiting.append(step | {name: float(value) for name, value in figures.items()})
        if self._run is not None or time.monotonic() - self._began > LONG_S:
            self._guarded(self._log_waiting)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the run, if the compression has not."""
        self._guarded(self._log_waiting)

    def _log_waiting(self) -> None:
        if self._run is None:
            self._open()
        for step in self._waiting:
            self._logged(step)
        self._waiting.clear()

    def _open(self) -> None:
        arguments = _described(self.question, self._job) | {"group": self.suite}
        self._run = self._opened.enter_context(open_run(self.results, self.mode, system=True, **arguments))
        self._run.define_metric("epoch")
        for name in ("train/*", "val/*", "learning_rate"):
            self._run.define_metric(name, step_metric="epoch")
        for group in GROUPS:
            self._run.define_metric(f"{group}/step")
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch before, whose means are complete by now."""
        if trainer.current_epoch:
            self._guarded(lambda: self._epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last epoch."""
        self._guarded(lambda: self._epoch(trainer))

    def _epoch(self, trainer: Trainer) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._logged({"epoch": trainer.current_epoch, "learning_rate": rate, **metrics})

    def _logged(self, step: dict[str, float]) -> None:
        if self._run is not None:
            self._run.log(step)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Finish the run."""
        if self._run is not None:
            self._guarded(self._log_waiting)
        self._run = None
        self._waiting.clear()
        self._guarded(self._opened.close)

    on_exception = teardown

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do what W&B may refuse; whatever it raises must not cost the work, and it is not asked again."""
        if self._broken:
            return
        try:
            step()
        except Exception as error:
            self._run, self._broken = None, True
            said = " ".join(str(error).split())
            _log.warning(
                "the %s of %s is not in Weights & Biases: %s: %s. It goes on; its record will be logged, or go "
                "without: --no-wandb",
                self._job,
                self.question.label,
                type(error).__name__,
                said,
            )


def live_run(question: Question, suite: str, results: Path) -> list[Callback]:
    """The callbacks that log one of a question's fits."""
    return [LiveRun(question, suite, results)]


def _described(question: Question, job: str) -> dict[str, Any]:
    """Id, name, job type, tags and configuration of the run of some work."""
    dense = {name: question.model_dump(mode="json")[name] for name in ("data", "model", "training", "seed")}
    trained_dense = job == "dense training"
    config = dense if trained_dense else question.model_dump(mode="json")
    network = f"{question.data.label} {question.model.label} seed {question.seed}"
    return {
        "id": f"live-{digest(config)}",
        "name": f"{job}: {network if trained_dense else question.label}",
        "job_type": job,
        "config": config,
        "tags": tags_of(question, dense=trained_dense),
    }
