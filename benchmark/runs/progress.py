"""What a suite shows while it runs: a line for every run that ended, and bars for the whole and the current step."""

from collections.abc import Iterable
from operator import length_hint
from typing import TypeVar

from lightning.pytorch import Callback
from rich.console import Console

from benchmark.questions.suite import Question
from benchmark.records import RunRecord
from benchmark.runs.bars import TrainingBar
from benchmark.runs.executors.local import Ending
from benchmark.wording import count, never_active, percent, rounded, seconds
from compressors.progress import ShownProgress

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
        self.progress = ShownProgress(console)
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
        self._print(line)
        silent = _never_active(record)
        if silent:
            self._print(f"{'':{2 * width + 8}}  {_escaped(silent)}")

    def _print(self, line: str) -> None:
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[Item], description: str) -> Iterable[Item]:
        """A bar for a step of the current run."""
        task = self.progress.add_task(description, total=length_hint(items) or None)
        try:
            for item in items:
                yield item
                self.progress.advance(task)
        finally:
            self.progress.remove_task(task)

    def training(self) -> list[Callback]:
        """Callbacks that show the training of a dense network."""
        return [TrainingBar(self.progress)]


def _answer(record: RunRecord) -> str:
    answer, spent = record.answer, sum(record.seconds.get(part, 0) for part in ("fit", "test"))
    return (
        f"accuracy [bold]{percent(answer.metrics.accuracy):>6} %[/]  density {rounded(answer.compression.density):>6}  "
        f"{count(answer.cost.synops_per_sample):>6} SynOps  {seconds(spent):>8}"
    )


def _never_active(record: RunRecord) -> str:
    layers = record.compression.layers if record.compression is not None else ()
    return never_active({layer.name: layer.dead_inputs for layer in layers})


def _escaped(text: str) -> str:
    """Text in which rich sees no markup."""
    return text.replace("[", r"\[")
