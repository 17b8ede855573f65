"""Runs in this process, one after the other, sharing the work with other processes on the same results folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from filelock import FileLock, Timeout

from benchmark import build
from benchmark.records import RecordStore, RunRecord
from benchmark.run import Setting, open_data, run
from benchmark.suite import Question, Suite
from datamodules.base import BenchmarkDataModule

Ending = Literal["done", "failed", "found"]


class Display(Protocol):
    """What shows the progress of a suite."""

    def started(self, question: Question) -> None:
        """A run begins."""

    def finished(self, question: Question, record: RunRecord, ending: Ending) -> None:
        """A run has its record: made now, made now with an error, or found."""


@dataclass
class Outcome:
    """Run ids by how they ended."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def count(self, record: RunRecord, ending: Ending) -> None:
        """Take note of a run."""
        getattr(self, ending).append(record.id)


@dataclass(frozen=True)
class LocalExecutor:
    """Answers every question of a suite that has no finished record yet.

    Runs that another process is at are left to it and looked at again at the end: two processes on one suite share
    its work, and one that takes over from a killed one repeats nothing that was finished.

    Args:
        store: where the records go.
        setting: caches, data and progress.
        display: is told of every run.
        after: is given each new record once it is safely stored.
    """

    store: RecordStore
    setting: Setting
    display: Display
    after: Callable[[RunRecord], None] = lambda record: None

    def __call__(self, suite: Suite) -> Outcome:
        """Run a suite; see :func:`benchmark.build.check_suite`.

        Raises:
            StoreError: a record cannot be written.
            DataMissing: a data set is not there; nothing was run.
        """
        self.store.writable()
        questions = list(suite.questions(build.budgetless(suite)))
        opened = self._open(questions)
        outcome = Outcome()
        busy = []
        for question in questions:
            ending = self._answer(question, suite.name, opened[_data_key(question)], timeout=0)
            if ending is None:
                busy.append(question)
            else:
                outcome.count(*ending)
        for question in busy:
            ending = self._answer(question, suite.name, opened[_data_key(question)], timeout=-1)
            assert ending is not None, "without a time-out the lock was had"
            outcome.count(*ending)
        return outcome

    def _open(self, questions: Sequence[Question]) -> dict[str, BenchmarkDataModule]:
        """One data module for each data set and seed, so that a missing set is known before the first run."""
        first = {_data_key(question): question for question in reversed(questions)}
        return {key: open_data(question, self.setting) for key, question in first.items()}

    def _answer(
        self, question: Question, suite: str, data: BenchmarkDataModule, timeout: float
    ) -> tuple[RunRecord, Ending] | None:
        """The question's record and how it was come by; None while another process is at it."""
        run_id, _ = build.describe_question(question, data)
        try:
            with FileLock(self.store.lock_path(run_id), timeout=timeout):
                record = self.store.find(question, run_id)
                ending: Ending = "found"
                if record is None:
                    self.display.started(question)
                    record = run(question, suite, data, self.setting)
                    self.store.save(record)
                    ending = "done" if record.status == "done" else "failed"
        except Timeout:
            return None
        if ending != "found":
            self.after(record)
        self.display.finished(question, record, ending)
        return record, ending


def _data_key(question: Question) -> str:
    return f"{question.data.model_dump_json()} {question.seed}"
