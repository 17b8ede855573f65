"""Lightning callbacks that show on a bar how far a fit or a test is."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import Progress, TaskID

from benchmark.wording import percent
from compressors.base import Compressor
from compressors.progress import Track


class TrainingBar(Callback):
    """A bar over all batches of a fit, with its stage, epoch and validation accuracy."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        total = int(trainer.num_training_batches * (trainer.max_epochs or 1))
        done = int(trainer.num_training_batches * trainer.current_epoch)
        self.task = self.progress.add_task(_doing(trainer), total=total, completed=done)
        if done:
            left = f"{trainer.max_epochs} epochs, after {trainer.current_epoch} of them"
            self.progress.console.print(f"the training goes on that was cut off: {left}", highlight=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the epoch and, now that a compressor has begun it, its stage."""
        if self.task is not None and batch_idx == 0:
            self.progress.update(self.task, description=_doing(trainer))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """One batch further."""
        if self.task is not None:
            self.progress.advance(self.task)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show where the training stands."""
        if self.task is not None:
            self.progress.update(self.task, description=_doing(trainer))

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None

    on_exception = teardown


class EvaluationBar(Callback):
    """A bar over the batches of a test.

    Args:
        track: shows what passes through it.
    """

    def __init__(self, track: Track) -> None:
        self.track = track
        self._batches: Iterator[int] = iter(())

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._batches = iter(self.track(range(int(sum(trainer.num_test_batches))), "testing"))
        next(self._batches, None)

    def on_test_batch_end(self, *args: Any) -> None:
        """One batch further; the bar goes with the last one."""
        next(self._batches, None)

    def on_exception(self, *args: Any) -> None:
        """Take the bar away."""
        self._batches = iter(())


def _doing(trainer: Trainer) -> str:
    """What a fit is at: a compressor's stage, if there is one, the epoch, and the last epoch's loss and accuracy."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    compressor = next((callback for callback in callbacks if isinstance(callback, Compressor)), None)
    name = "training the dense network"
    if compressor is not None:
        anew = compressor.from_scratch or "none" in compressor.budgets  # of a dense network nothing is fine-tuned
        told = filter(None, [type(compressor).__name__, compressor.stage])
        name = f"{'training' if anew else 'fine-tuning'} {', '.join(told)}"
    metrics = trainer.callback_metrics
    loss, accuracy = metrics.get("train/loss"), metrics.get("val/accuracy")
    known = "" if loss is None else f", loss {float(loss):.3g}"
    known += "" if accuracy is None else f", validation accuracy {percent(float(accuracy))} %"
    return f"{name}, epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{known}"
