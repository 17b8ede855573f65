"""What a suite shows while it runs: a line for every run that ended, and bars for the whole and the current step."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmark.executors.local import Ending
from benchmark.records import RunRecord
from benchmark.suite import Question
from compressors.base import Compressor
from hardware import CostReport

Item = TypeVar("Item")
MARKS = {"done": "[green]done  [/]", "failed": "[red]failed[/]", "found": "[dim]found [/]"}


class SuiteProgress:
    """Shows a suite's runs on a console; use it as a context manager.

    Args:
        name: of the suite.
        runs: how many there are.
        console: where to show them.
    """

    def __init__(self, name: str, runs: int, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self.whole = self.progress.add_task(name, total=runs)
        self.runs, self.ended = runs, 0

    def __enter__(self) -> "SuiteProgress":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, question: Question) -> None:
        """Show which run is on."""
        self.progress.update(self.whole, description=question.label)

    def finished(self, question: Question, record: RunRecord, ending: Ending) -> None:
        """Print the run's line."""
        self.ended += 1
        self.progress.advance(self.whole)
        width = len(str(self.runs))
        answer = _answer(record) if record.status == "done" else f"[red]{_escaped(record.error or '')}[/]"
        line = f"{MARKS[ending]} {self.ended:>{width}}/{self.runs}  {_escaped(question.label):<58} {answer}"
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def track(self, sequence: Sequence[Item], description: str) -> Iterable[Item]:
        """A bar for a step of the current run."""
        task = self.progress.add_task(description, total=len(sequence))
        try:
            for item in sequence:
                yield item
                self.progress.advance(task)
        finally:
            self.progress.remove_task(task)

    def training(self) -> list[Callback]:
        """Callbacks that show the training of a dense network."""
        return [_TrainingBar(self.progress)]


class _TrainingBar(Callback):
    """A bar over all batches of a fit, with its stage, epoch and validation accuracy."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        total = int(trainer.num_training_batches * (trainer.max_epochs or 1))
        done = int(trainer.num_training_batches * trainer.current_epoch)
        self.task = self.progress.add_task(_doing(trainer), total=total, completed=done)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the epoch and, now that a compressor has begun it, its stage."""
        if self.task is not None and batch_idx == 0:
            self.progress.update(self.task, description=_doing(trainer))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """One batch further."""
        assert self.task is not None
        self.progress.advance(self.task)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show where the training stands."""
        if self.task is not None:
            self.progress.update(self.task, description=_doing(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar away, after an error too."""
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


def _doing(trainer: Trainer) -> str:
    """What a fit is at: a compressor's stage, if there is one, the epoch, and the last validation accuracy."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    compressor = next((callback for callback in callbacks if isinstance(callback, Compressor)), None)
    name = "training the dense network"
    if compressor is not None:
        name = f"fine-tuning {type(compressor).__name__}, {compressor.stage}"
    accuracy = trainer.callback_metrics.get("val/accuracy")
    known = "" if accuracy is None else f", validation accuracy {float(accuracy):.1%}"
    return f"{name}, epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{known}"


def _answer(record: RunRecord) -> str:
    synops = CostReport.from_dict(record.cost).synops_per_sample
    return (
        f"accuracy [bold]{record.metrics['accuracy']:6.1%}[/]  density {record.compression['density']:6.1%}  "
        f"{synops / 1e3:9,.1f} k SynOps  {sum(record.seconds.get(part, 0) for part in ('fit', 'test')):5.1f} s"
    )


def _escaped(text: str) -> str:
    """Text in which rich sees no markup."""
    return text.replace("[", r"\[")
