"""Runs in this process, one after the other, sharing the work with other processes on the same results folder."""

from abc import ABC, abstractmethod
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
class Executor(ABC):
    """Answers the questions of a suite; where the runs are done is each executor's own.

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
    after: Callable[[RunRecord], object] = field(default=lambda record: None, kw_only=True)

    def __call__(self, suite: str, questions: Sequence[Question]) -> Outcome:
        """Answer every question that has no finished record yet, for the suite of that name.

        Raises:
            StoreError: a record cannot be written.
            RecordError: a question's record is there and cannot be read.
            DataMissing: a data set is not there; nothing was run.
            WorkerError: a worker process ended before it began a run.
            ClusterError: no Ray, or no cluster at the address.
        """
        self.data.check(questions)
        outcome = Outcome()
        self._answer_all(suite, questions, outcome)
        return outcome

    @abstractmethod
    def _answer_all(self, suite: str, questions: Sequence[Question], outcome: Outcome) -> None:
        """Do the runs and keep their records; :meth:`_finish` is called for each."""

    def _finish(self, question: Question, record: RunRecord, ending: Ending, outcome: Outcome) -> None:
        """Count a run whose record is in the store, and tell of it."""
        outcome.count(record, ending)
        if ending != "found":
            self.after(record)
        self.display.finished(question, record, ending)


class LocalExecutor(Executor):
    """Answers questions in this process.

    Runs that another process is at are left to it and looked at again at the end: two processes on one suite share
    its work, and one that takes over from a killed one repeats nothing that was finished.
    """

    def _answer_all(self, suite: str, questions: Sequence[Question], outcome: Outcome) -> None:
        self.answer(suite, map(self.data.run, questions), outcome)

    def answer(self, suite: str, runs: Iterable[OpenedRun], outcome: Outcome) -> None:
        """Answer those of some opened runs that have no finished record yet.

        Raises:
            StoreError: a record cannot be written.
            RecordError: a question's record is there and cannot be read.
        """
        busy = []
        for run in runs:
            try:
                self._answer(run, suite, outcome, timeout=0)
            except Timeout:
                busy.append(run)
        for run in busy:
            self._answer(run, suite, outcome, timeout=-1)

    def _answer(self, run: OpenedRun, suite: str, outcome: Outcome, timeout: float) -> None:
        """Find or make a run's record.

        Raises:
            Timeout: another process was at it for so many seconds (-1: no end).
        """
        with FileLock(self.store.lock_path(run.id), timeout=timeout):
            record, ending = self._record(run, suite)
        self._finish(run.question, record, ending, outcome)

    def _record(self, run: OpenedRun, suite: str) -> tuple[RunRecord, Ending]:
        """A run's record and how it was come by."""
        record = self.store.find(run.question, run.id)
        if record is not None:
            return record, "found"
        self.display.started(run.question)
        record = answer(run, suite, self.data, self.setting)
        self.store.save(record)
        return record, record.status
