"""Several processes on one suite: the same records, a lost worker, an end by Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmark.questions.suite import load_suite
from benchmark.records import RecordStore
from benchmark.runs.executors.grouping import shared_work
from benchmark.runs.executors.local import LocalExecutor
from benchmark.runs.executors.processes import Place, ProcessExecutor, places
from benchmark.runs.job import Means, run_suite
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import silent
from tests.benchmark.factory import make_suite_records
from tests.benchmark.tracking.wandb_files import read, run_files
from tests.end_to_end.conftest import REPOSITORY, RUNS, NoDisplay, hear_interrupts, records, tiny_questions

ALIKE = ("id", "question", "metrics", "cost", "dense", "data")


def answers(results):
    return {run_id: {key: record[key] for key in ALIKE} for run_id, record in records(results).items()}


def test_threads_and_gpus_are_shared_out():
    assert places(2, 8, []) == [Place(4), Place(4)]
    assert places(3, 2, ["0", "3"]) == [Place(1, "0"), Place(1, "3"), Place(1, "0")]


def test_densities_of_one_elimination_stay_together():
    questions = [record.question for record in make_suite_records(seeds=(0, 1))]
    groups = shared_work(questions)
    assert [question for group in groups for question in group] == questions
    assert [len(group) for group in groups] == [1, 5, 5, 5, 5] * 2
    assert all(len({(q.compressor.name, q.seed) for q in group}) == 1 for group in groups)


@pytest.mark.slow
def test_two_jobs_give_the_records_of_one_process(tiny, tmp_path, cache):
    questions = tiny_questions(tiny)
    setting, one, two = Setting(cache, track=silent), RecordStore(tmp_path / "one"), RecordStore(tmp_path / "two")
    data = OpenedData(setting)
    torch.set_num_threads(1)
    LocalExecutor(one, setting, data, NoDisplay())("tiny", questions)
    outcome = ProcessExecutor(two, setting, data, NoDisplay(), places(2, 2, []))("tiny", questions)
    assert len(set(outcome.done)) == len(outcome.done) == RUNS
    assert answers(tmp_path / "two") == answers(tmp_path / "one")


@pytest.mark.slow
def test_workers_log_a_training_while_it_happens(tiny, tmp_path, cache, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_DATA_DIR": str(tmp_path / "staging")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "own"))
    tiny.write_text(tiny.read_text().replace("[identity, random, magnitude, obc]", "[identity]"))
    run_suite(load_suite(tiny), tmp_path, {}, Means(jobs=2, threads=2), use_wandb=True)
    found = [read(file) for file in run_files(tmp_path)]
    assert sorted(run["run"].job_type for run in found) == ["dense", "dense training"]
    (training,) = (run for run in found if run["run"].job_type == "dense training")
    assert training["exit_code"] == 0
    assert training["summary"]["epoch"] == 1


HUNGRY = '''
import os, signal

from compressors.methods.magnitude import Magnitude


class Hungry(Magnitude):
    """Takes so much memory at density 0.5 that the system kills its process."""

    def prune(self, layer, keep, statistics):
        if self.budget.density == 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prune(layer, keep, statistics)
'''


@pytest.mark.slow
def test_a_killed_worker_costs_its_run_and_no_other(tiny, tmp_path, cache, monkeypatch):
    (tmp_path / "hungry.py").write_text(HUNGRY)
    monkeypatch.syspath_prepend(tmp_path)
    tiny.write_text(tiny.read_text().replace("[identity, random, magnitude, obc]", "[hungry:Hungry, identity]"))
    setting, store = Setting(cache), RecordStore(tmp_path / "results")
    outcome = ProcessExecutor(store, setting, OpenedData(setting), NoDisplay(), places(1, 1, []))(
        "tiny", tiny_questions(tiny)
    )
    assert (len(outcome.done), len(outcome.failed)) == (2, 1)
    kept = records(tmp_path / "results")
    assert len(kept) == 3
    lost = kept[outcome.failed[0]]
    assert "was killed (SIGKILL): most often the system was out of memory; use fewer --jobs" in lost["error"]
    assert lost["question"]["density"] == 0.5


def gone(group: int, within_s: float = 20) -> bool:
    """Whether no process of a group is left."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_parent_that_is_interrupted_leaves_no_process_and_nothing_torn(tiny, tmp_path, environment):
    words = [sys.executable, "-m", "benchmark.cli", "run", str(tiny), "--no-wandb", "--jobs", "2"]
    variables = environment | {"PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    deadline = time.monotonic() + 200
    while not records(tmp_path / "results") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(parent.pid, signal.SIGINT)  # as Ctrl-C does: to the workers as well
    _, text = parent.communicate(timeout=60)
    assert parent.returncode == 130, text
    assert "the same command goes on where this one stopped" in text
    assert "Traceback" not in text
    assert gone(parent.pid), "multiprocessing's own helper may outlive its parent for a moment, but nothing for long"
    assert records(tmp_path / "results")
    assert not list(tmp_path.glob("results/**/*.tmp"))


ABSORBED = '''
import ctypes, os
from pathlib import Path

from compressors.methods.magnitude import Magnitude


class Absorbed(Magnitude):
    """Is in compiled code that holds the interpreter, as an elimination is, for longer than anybody waits."""

    def prune(self, layer, keep, statistics):
        Path("workers", str(os.getpid())).touch()
        ctypes.PyDLL(None).sleep(600)
'''


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tiny, tmp_path, environment):
    """One is in compiled code, the other has nothing left to do or is at a run: both end at once."""
    (tmp_path / "absorbed.py").write_text(ABSORBED)
    (tmp_path / "workers").mkdir()
    tiny.write_text(tiny.read_text().replace("[identity, random, magnitude, obc]", "[absorbed:Absorbed, identity]"))
    words = [sys.executable, "-m", "benchmark.cli", "run", str(tiny), "--no-wandb", "--jobs", "2"]
    variables = environment | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    parent = subprocess.Popen(words, cwd=tmp_path, env=variables, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while not list((tmp_path / "workers").iterdir()):
            assert time.monotonic() < deadline, "no worker has begun to prune"
            assert parent.poll() is None, "it ended by itself"
            time.sleep(0.1)
    finally:
        parent.kill()
    assert parent.wait() == -signal.SIGKILL
    assert gone(parent.pid, within_s=10)
