"""A run is opened once: its data are described and fingerprinted, and its checkpoint read and hashed, one time."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints
from benchmark.records import RecordStore
from benchmark.runs.dense import dense_network
from benchmark.runs.executors.local import LocalExecutor
from benchmark.runs.executors.processes import ProcessExecutor, places
from benchmark.runs.job import Means, run_suite
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import silent
from tests.end_to_end.conftest import NoDisplay, tiny_questions

pytestmark = pytest.mark.slow

COUNTING = '''
"""A data set and a compressor whose module writes down, in whatever process, what is opened there."""

import os
from pathlib import Path

from benchmark.networks.weights import checkpoints
from compressors.methods.magnitude import Magnitude
from datamodules.digits_dvs import DigitsDVS


def note(what, path=""):
    with open(os.environ["COUNTS"], "a") as file:
        file.write(f"{what} {Path(path).name}".strip() + "\\n")


def noted(what, function):
    def call(path):
        note(what, path)
        return function(path)

    return call


class Counted(DigitsDVS):
    def fingerprint(self):
        note("fingerprint")
        return super().fingerprint()

    def describe(self):
        note("describe")
        return super().describe()


class Plain(Magnitude):
    """A run's compressor is looked up before its network, so everything is counted."""


checkpoints._load_safetensors = noted("load", checkpoints._load_safetensors)
checkpoints.sha256 = noted("hash", checkpoints.sha256)
'''


@pytest.fixture
def counts(tmp_path, monkeypatch, cache):
    """Counts, over all processes, of what was opened since the last call."""
    notes = tmp_path / "counts"
    (tmp_path / "counting_data.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting_data", raising=False)  # each test has it count anew
    monkeypatch.setenv("COUNTS", str(notes))
    monkeypatch.setenv("SNNBENCH_CACHE", str(cache))
    for name in ("_load_safetensors", "sha256"):  # put back afterwards
        monkeypatch.setattr(checkpoints, name, getattr(checkpoints, name))
    torch.set_num_threads(1)

    def call() -> Counter[str]:
        lines = notes.read_text().splitlines() if notes.exists() else []
        notes.write_text("")
        return Counter(lines)

    return call


@pytest.fixture
def trained(tiny, tmp_path, counts) -> Path:
    """The tiny suite on the counted data, with the dense network of its own first run as a checkpoint to give."""
    text = tiny.read_text().replace("digits_dvs", '"counting_data:Counted"')
    tiny.write_text(text.replace("[identity, random, magnitude, obc]", '["counting_data:Plain"]'))
    setting = Setting(tmp_path / "first", track=silent)
    first, *_ = tiny_questions(tiny)
    data = OpenedData(setting)
    run = data.run(first)
    dense_network(run, data, setting.cache)
    path = tmp_path / "given.safetensors"
    (tmp_path / "first" / "checkpoints" / f"{run.dense_id}.safetensors").rename(path)
    return path


def with_checkpoint(tiny: Path, checkpoint: Path) -> Path:
    tiny.write_text(tiny.read_text().replace("hidden: 8}", f"hidden: 8, checkpoint: {checkpoint}}}"))
    return tiny


def test_a_suite_of_a_trained_network_opens_everything_once(tiny, trained, tmp_path, counts):
    setting, store = Setting(tmp_path / "own", track=silent), RecordStore(tmp_path / "results")
    data, questions = OpenedData(setting), tiny_questions(tiny)
    counts()
    outcome = LocalExecutor(store, setting, data, NoDisplay())("tiny", questions)
    assert len(outcome.done) == 2
    dense = next(iter(store)).answer.dense
    kept = f"{dense.id}.safetensors"
    # The first run has the network from its training, the other one loads and hashes what was kept.
    assert counts() == {"describe": 1, "fingerprint": 1, f"load {kept}": 1, f"hash {kept}": 2}
    assert len(LocalExecutor(store, setting, data, NoDisplay())("tiny", questions).found) == 2
    assert counts() == {}


def test_a_suite_with_a_checkpoint_opens_everything_once(tiny, trained, tmp_path, counts):
    setting, store = Setting(tmp_path / "own", track=silent), RecordStore(tmp_path / "results")
    questions = tiny_questions(with_checkpoint(tiny, trained))
    counts()
    outcome = LocalExecutor(store, setting, OpenedData(setting), NoDisplay())("tiny", questions[:1])
    assert len(outcome.done) == 1
    kept = f"{next(iter(store)).answer.dense.id}.safetensors"
    assert counts() == {
        "describe": 1,
        "fingerprint": 1,
        "load given.safetensors": 1,
        "hash given.safetensors": 1,
        f"hash {kept}": 1,  # of the file just written, for the record
    }


def test_the_check_before_a_suite_and_its_runs_share_what_they_read(tiny, trained, tmp_path, counts, monkeypatch):
    from benchmark.questions.suite import load_suite

    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "own"))
    suite = load_suite(with_checkpoint(tiny, trained))
    counts()
    outcome = run_suite(suite, tmp_path / "results", {}, Means(), use_wandb=False)
    assert len(outcome.done) == 2
    found = counts()
    assert {what: times for what, times in found.items() if "given" in what or " " not in what} == {
        "describe": 1,
        "fingerprint": 1,
        "load given.safetensors": 1,
        "hash given.safetensors": 1,
    }


def test_workers_are_sent_what_was_opened(tiny, trained, tmp_path, counts):
    setting, store = Setting(tmp_path / "own", track=silent), RecordStore(tmp_path / "results")
    questions = tiny_questions(with_checkpoint(tiny, trained))
    counts()
    outcome = ProcessExecutor(store, setting, OpenedData(setting), NoDisplay(), places(1, 1, []))("tiny", questions)
    assert len(outcome.done) == 2
    found = counts()
    assert (found["describe"], found["fingerprint"]) == (1, 1)
    # Once here, and once in the worker, which keeps the network in the cache.
    assert (found["load given.safetensors"], found["hash given.safetensors"]) == (2, 2)


def test_a_checkpoint_that_changes_under_way_is_an_error(tiny, trained, tmp_path, counts):
    setting = Setting(tmp_path / "own", track=silent)
    data = OpenedData(setting)
    run = data.run(tiny_questions(with_checkpoint(tiny, trained))[0])
    with pytest.raises(CheckpointError, match=r"given\.safetensors has changed since the suite began"):
        dense_network(replace(run, weights_sha256="0" * 64), data, setting.cache)
    assert not list(tmp_path.glob("own/checkpoints/*.safetensors"))


def test_another_machines_data_are_refused(tiny, trained, tmp_path, counts):
    from benchmark.runs.executors.cluster import ClusterError, _check_same_data

    data = OpenedData(Setting(tmp_path / "own", track=silent))
    run = data.run(tiny_questions(tiny)[0])
    _check_same_data(run, data)
    with pytest.raises(ClusterError, match=r"not what the suite was started with .* copy the data there"):
        _check_same_data(replace(run, data={**run.data, "fingerprint": "f" * 64}), data)
