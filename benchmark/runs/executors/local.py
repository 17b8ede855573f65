"""Runs in this process, one after the other, sharing the work with other processes on the same results folder."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from filelock import FileLock, Timeout

from benchmark.questions.suite import Question
from benchmark.records import RecordStore, RunRecord
from benchmark.runs.opening import OpenedData, OpenedRun, Setting
from benchmark.runs.run import answer

Ending = Literal["done", "failed", "found"]


class Display(Protocol):
    """What shows the progress of a suite."""

    def started(self, question: Question) -> None:
        """A run begins."""

    def finished(self, question: Question, record: RunRecord, ending: Ending) -> None:
        """A run has its record: made now, made now with an error, or found."""


class Executor(Protocol):
    """What answers the questions of a suite, wherever it does so."""

    def __call__(self, suite: str, questions: Sequence[Question]) -> "Outcome":
        """Answer every question that has no finished record yet, for the suite of that name."""


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
    """Answers questions in this process.

    Runs that another process is at are left to it and looked at again at the end: two processes on one suite share
    its work, and one that takes over from a killed one repeats nothing that was finished.

    Args:
        store: where the records go.
        setting: caches, data and progress.
        data: the opened data sets.
        display: is told of every run.
        after: is given each new record once it is safely stored.
    """

    store: RecordStore
    setting: Setting
    data: OpenedData
    display: Display
    after: Callable[[RunRecord], None] = lambda record: None

    def __call__(self, suite: str, questions: Sequence[Question]) -> Outcome:
        """Answer every question that has no finished record yet.

        Raises:
            StoreError: a record cannot be written.
            RecordError: a question's record is there and cannot be read.
            DataMissing: a data set is not there; nothing was run.
        """
        self.data.check(questions)
        return self.answer(suite, map(self.data.run, questions))

    def answer(self, suite: str, runs: Iterable[OpenedRun]) -> Outcome:
        """Answer those of some opened runs that have no finished record yet.

        Raises:
            StoreError, RecordError, DataMissing: as above.
        """
        self.store.writable()
        outcome, busy = Outcome(), []
        for run in runs:
            try:
                outcome.count(*self._answer(run, suite, timeout=0))
            except Timeout:
                busy.append(run)
        for run in busy:
            outcome.count(*self._answer(run, suite, timeout=-1))
        return outcome

    def _answer(self, run: OpenedRun, suite: str, timeout: float) -> tuple[RunRecord, Ending]:
        """A run's record and how it was come by.

        Args:
            run: what to answer.
            suite: its suite's name.
            timeout: seconds to wait for another process that is at it; below zero: for ever.

        Raises:
            Timeout: another process is at it still.
        """
        with FileLock(self.store.lock_path(run.id), timeout=timeout):
            record = self.store.find(run.question, run.id)
            ending: Ending = "found"
            if record is None:
                self.display.started(run.question)
                record = answer(run, suite, self.data, self.setting)
                self.store.save(record)
                ending = record.status
        if ending != "found":
            self.after(record)
        self.display.finished(run.question, record, ending)
        return record, ending
