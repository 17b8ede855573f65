"""Runs on a Ray cluster. Workers give their records back as they come; only this process writes to the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmark.files import write_atomically
from benchmark.questions.suite import Question
from benchmark.records import RunRecord
from benchmark.runs.dense import dense_network, dense_path
from benchmark.runs.executors.grouping import shared_work
from benchmark.runs.executors.local import Executor, Outcome
from benchmark.runs.opening import OpenedData, OpenedRun, Setting
from benchmark.runs.run import answer, silent, unanswered
from datamodules.storage import cache_folder

RETRIES = 3  # of a worker that is lost; an error of a compressor is a record and not tried again


class ClusterError(RuntimeError):
    """Ray is not installed, or its cluster cannot be reached."""

    exit_status = 1


@dataclass(frozen=True)
class RayExecutor(Executor):
    """Answers questions on a Ray cluster, as many at a time as it has room for.

    Every dense network is trained once, on one worker, and sent to the others, whose caches need not be shared: all
    runs of a table start from the same bits. Data sets are expected on every machine, in the folders that the setting
    or ``$SNNBENCH_DATA`` names. A task whose worker is lost is repeated on another, ``RETRIES`` times.

    Args:
        threads: of each run, and the CPUs that it books; a GPU is booked as well where the cluster has any.
        address: of the cluster; None for ``$RAY_ADDRESS``, else one on this machine for as long as this lasts.
    """

    threads: int
    address: str | None = None

    def _answer_all(self, suite: str, questions: Sequence[Question], outcome: Outcome) -> None:
        groups = [list(map(self.data.run, group)) for group in shared_work(questions)]
        missing = [[run for run in group if not self._found(run, outcome)] for group in groups]
        todo = list(filter(None, missing))
        if todo:
            ray = connect(self.address)
            try:
                self._stream(ray, suite, todo, outcome)
            finally:
                ray.shutdown()  # with its driver gone, the cluster ends the tasks that are left

    def _found(self, run: OpenedRun, outcome: Outcome) -> bool:
        record = self.store.find(run.question, run.id)
        if record is None:
            return False
        self._finish(run.question, record, "found", outcome)
        return True

    def _stream(self, ray: Any, suite: str, groups: Sequence[list[OpenedRun]], outcome: Outcome) -> None:
        """Send all work off and take the records in as they come."""
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        booked = {"num_cpus": self.threads, "num_gpus": gpus, "max_retries": RETRIES}
        train = ray.remote(**booked)(_train)
        answers = ray.remote(**booked, num_returns="streaming")(_answers)
        networks: dict[str, Any] = {}
        streams = {}
        for group in groups:
            dense_id = group[0].dense_id
            if dense_id not in networks:
                networks[dense_id] = train.remote(group[0], self.threads, self.setting.data_roots)
            stream = answers.remote(group, suite, networks[dense_id], self.threads, self.setting.data_roots)
            streams[stream] = list(group)
        while streams:
            (stream,), _ = ray.wait(list(streams), num_returns=1)
            if not self._take(ray, stream, streams[stream], suite, outcome):
                del streams[stream]

    def _take(self, ray: Any, stream: Any, expected: list[OpenedRun], suite: str, outcome: Outcome) -> bool:
        """Keep the next record of a stream, or failed ones for all that a lost stream owes; False at its end."""
        try:
            record = ray.get(next(stream))
        except StopIteration:
            return False
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            for run in expected:
                lost = unanswered(run, suite)
                self._keep(lost.model_copy(update={"error": f"{type(error).__name__}: {reason}"}), outcome)
            return False
        expected[:] = [run for run in expected if run.id != record.id]
        self._keep(record, outcome)
        return True

    def _keep(self, record: RunRecord, outcome: Outcome) -> None:
        self.store.save(record)
        self._finish(record.question, record, record.status, outcome)


def connect(address: str | None) -> Any:
    """Ray, connected to a cluster.

    Raises:
        ClusterError: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ClusterError("Ray is not installed: pip install 'snnbench[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from error
    return ray


def _train(run: OpenedRun, threads: int, data_roots: dict[str, Path]) -> bytes:
    """On a worker: the file of a run's dense network, trained there unless its cache has it."""
    setting = _setting(threads, data_roots)
    data = OpenedData(setting)
    _check_same_data(run, data)
    with threadpool_limits(threads):
        dense_network(run, data, setting.cache, [])
    return dense_path(setting.cache, run.dense_id).read_bytes()


def _answers(
    runs: list[OpenedRun], suite: str, network: bytes, threads: int, data_roots: dict[str, Path]
) -> Iterator[RunRecord]:
    """On a worker: the records of some runs with one dense network, each as soon as it is there."""
    setting = _setting(threads, data_roots)
    data = OpenedData(setting)
    with threadpool_limits(threads):
        for run in runs:
            _check_same_data(run, data)
            path = dense_path(setting.cache, run.dense_id)
            if not path.is_file() or path.read_bytes() != network:
                write_atomically(path, network)
            yield answer(run, suite, data, setting)


def _check_same_data(run: OpenedRun, data: OpenedData) -> None:
    """A run is opened where the suite was started; its worker may be another machine, with files of its own.

    Raises:
        ClusterError: the data there are others.
    """
    name, root = run.question.data.name, data.of(run.question).root
    here, there = (str(description["fingerprint"])[:12] for description in (data.describe(run.question), run.data))
    if here != there:
        raise ClusterError(
            f"{name} in {root} of this worker is not what the suite was started with (fingerprint {here} instead of "
            f"{there}): copy the data there"
        )


def _setting(threads: int, data_roots: dict[str, Path]) -> Setting:
    torch.set_num_threads(threads)
    return Setting(cache_folder(), data_roots, track=silent)
