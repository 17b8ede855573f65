"""Runs in several processes of this machine. A process that dies costs the run it was at, and nothing else."""

import faulthandler
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from benchmark.questions.suite import Question
from benchmark.records import RecordStore, RunRecord
from benchmark.runs.children import WorkerError, deaf_to_interrupts, end_with_parent, how_it_ended, stop
from benchmark.runs.executors.grouping import shared_work
from benchmark.runs.executors.local import Ending, Executor, LocalExecutor, Outcome
from benchmark.runs.opening import OpenedData, OpenedRun, Setting
from benchmark.runs.run import silent, unanswered


@dataclass(frozen=True)
class Place:
    """What one worker process may use: so many threads, and one GPU (as CUDA_VISIBLE_DEVICES names it) or none."""

    threads: int
    gpu: str | None = None


def places(jobs: int, threads: int, gpus: Sequence[str]) -> list[Place]:
    """Share ``threads`` out to ``jobs`` workers, at least one each, and deal the GPUs out one by one."""
    share = max(1, threads // jobs)
    return [Place(share, gpus[number % len(gpus)] if gpus else None) for number in range(jobs)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


@dataclass(frozen=True)
class ProcessExecutor(Executor):
    """Answers questions in worker processes, each of which is a :class:`LocalExecutor` on the same results folder.

    The records and their locks are all the state there is. A worker that is killed (by the system, for want of
    memory) leaves a failed record of the run it was at; another takes its place. Progress within a run is not
    shown, but logged where that is asked for.

    Args:
        places: what each of the workers may use.
    """

    places: Sequence[Place]

    def _answer_all(self, suite: str, questions: Sequence[Question], outcome: Outcome) -> None:
        waiting = deque([list(map(self.data.run, group)) for group in shared_work(questions)])
        workers = [self._start(suite, place) for place in self.places[: len(waiting)]]
        try:
            _hand_out(waiting, workers)
            while busy := [worker for worker in workers if worker.todo]:
                ready = wait([worker.connection for worker in busy])
                for worker in busy:
                    if worker.connection in ready and not self._hear(worker, outcome):
                        workers[workers.index(worker)] = self._start(suite, worker.place)
                        waiting.appendleft(self._bury(worker, suite, outcome))
                _hand_out(waiting, workers)
        finally:
            for worker in workers:
                worker.stop()

    def _start(self, suite: str, place: Place) -> "_Worker":
        """A new worker; its interpreter is a fresh one, because a forked CUDA or thread pool does not work."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        setting = Setting(self.setting.cache, self.setting.data_roots, silent, live=self.setting.live)
        process = context.Process(target=_work, args=(theirs, place, suite, self.store.results, setting))
        with deaf_to_interrupts():
            process.start()
        theirs.close()  # so that the worker's end is the only one, and its death is heard
        return _Worker(place, process, ours)

    def _hear(self, worker: "_Worker", outcome: Outcome) -> bool:
        """Take in one message of a worker; False if it is dead."""
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return False
        match message:
            case Exception() as error:
                raise error
            case Question() as question:
                worker.current = next(run for run in worker.todo if run.question == question)
                self.display.started(question)
            case question, record, ending:
                worker.current = None
                worker.todo = [run for run in worker.todo if run.question != question]
                self._finish(question, record, ending, outcome)
        return True

    def _bury(self, worker: "_Worker", suite: str, outcome: Outcome) -> list[OpenedRun]:
        """Keep a record of the run that a dead worker was at, and give back what else it was to do."""
        worker.stop()
        how = how_it_ended(worker.process.exitcode or 0, "use fewer --jobs")
        if worker.current is None:
            raise WorkerError(f"a worker process {how} before it began a run; without --jobs the reason will show")
        record = unanswered(worker.current, suite)
        record = record.model_copy(update={"error": f"WorkerError: the worker process {how}"})
        self.store.save(record)
        self._finish(worker.current.question, record, "failed", outcome)
        return [run for run in worker.todo if run != worker.current]


class _Worker:
    """The parent's side of a worker: its process, and what it has been given to do and has not yet done."""

    def __init__(self, place: Place, process: SpawnProcess, connection: Connection) -> None:
        self.place, self.process, self.connection = place, process, connection
        self.todo: list[OpenedRun] = []
        self.current: OpenedRun | None = None

    def give(self, runs: list[OpenedRun]) -> None:
        """Hand over some runs."""
        self.todo = list(runs)
        with suppress(BrokenPipeError):  # it is dead, and will be heard to be
            self.connection.send(runs)

    def stop(self) -> None:
        """End the process."""
        stop([self.process])
        self.connection.close()


def _hand_out(waiting: deque[list[OpenedRun]], workers: Sequence[_Worker]) -> None:
    """Give idle workers what is waiting."""
    for worker in workers:
        while not worker.todo and waiting:
            worker.give(waiting.popleft())


class _Reporter:
    """The display of a worker: it tells the parent."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def started(self, question: Question) -> None:
        """A run begins."""
        self.connection.send(question)

    def finished(self, question: Question, record: RunRecord, ending: Ending) -> None:
        """A run has its record."""
        self.connection.send((question, record, ending))


def _work(connection: Connection, place: Place, suite: str, results: Path, setting: Setting) -> None:
    """A worker's life: answer lists of opened runs until told to stop, or until nobody is there to be told."""
    end_with_parent()
    faulthandler.enable()  # a crash in compiled code would say nothing
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds, so that nothing half-written is left behind
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    torch.set_num_threads(place.threads)
    executor = LocalExecutor(RecordStore(results), setting, OpenedData(setting), _Reporter(connection))
    with threadpool_limits(place.threads), suppress(EOFError, BrokenPipeError):
        while True:
            runs = connection.recv()
            try:
                executor.answer(suite, runs, Outcome())
            except BrokenPipeError:
                raise
            except Exception as error:  # the parent's to deal with, as if it had happened there
                error.add_note(traceback.format_exc())
                connection.send(error)
