"""A suite on a Ray cluster of this machine's two workers, one of which is killed in the middle."""

import os

import pytest

from benchmark.records import RecordStore
from benchmark.runs.executors.local import LocalExecutor
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import silent
from tests.end_to_end.conftest import REPOSITORY, NoDisplay, records, tiny_questions

pytest.importorskip("ray", reason="Ray is not installed: pip install 'snnbench[ray]'")

MORTAL = '''
import os, signal
from pathlib import Path

from compressors.methods.magnitude import Magnitude


class Mortal(Magnitude):
    """Its process is killed at density 0.2, once."""

    def prune(self, layer, keep, statistics):
        died = Path(os.environ["DYING_FILE"])
        if self.budget.density == 0.2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prune(layer, keep, statistics)
'''


@pytest.fixture
def mortal(tiny, tmp_path, cache, monkeypatch):
    """The questions of a suite with a compressor that dies."""
    (tmp_path / "mortal.py").write_text(MORTAL)
    tiny.write_text(tiny.read_text().replace("[identity, random, magnitude, obc]", "[mortal:Mortal, identity]"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    monkeypatch.setenv("SNNBENCH_CACHE", str(cache))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tiny_questions(tiny)


@pytest.mark.slow
def test_a_lost_worker_is_retried_and_no_record_lost_or_doubled(mortal, tmp_path, cache, monkeypatch):
    from benchmark.runs.executors.cluster import RayExecutor

    monkeypatch.setenv("DYING_FILE", str(tmp_path / "died"))
    setting, store = Setting(cache, track=silent), RecordStore(tmp_path / "results")
    kept = []
    outcome = RayExecutor(store, setting, OpenedData(setting), NoDisplay(), 1, after=kept.append)("tiny", mortal)
    assert (tmp_path / "died").exists(), "a worker was killed"
    assert len(outcome.done) == len(set(outcome.done)) == len(kept) == 3
    assert outcome.failed == outcome.found == []
    assert sorted(records(tmp_path / "results")) == sorted(outcome.done)

    again = LocalExecutor(store, setting, OpenedData(setting), NoDisplay())("tiny", mortal)
    assert sorted(again.found) == sorted(outcome.done), "they are the records of any executor"
