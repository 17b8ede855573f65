"""What goes wrong around a suite: nothing finished is lost, nothing torn is read, the message names the remedy."""

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark.files import StoreError
from benchmark.networks.weights import checkpoints
from benchmark.records import RecordError, RecordStore, read_record
from benchmark.runs.executors.local import LocalExecutor, Outcome
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import silent
from datamodules.errors import DataCorrupt
from tests.end_to_end.conftest import REPOSITORY, RUNS, TINY, NoDisplay, records, tiny_questions

pytestmark = pytest.mark.slow


@pytest.fixture
def own_cache(cache, tiny, tmp_path, monkeypatch) -> Path:
    """A cache that a test may spoil; the simulated recordings, which take longest, are those of all tests."""
    own = tmp_path / "cache"
    own.mkdir()
    monkeypatch.setenv("SNNBENCH_CACHE", str(cache))
    OpenedData(Setting(cache)).check(tiny_questions(tiny))
    for folder in cache.glob("digits_dvs*"):
        if folder.is_dir():
            (own / folder.name).symlink_to(folder)
    monkeypatch.setenv("SNNBENCH_CACHE", str(own))
    return own


@pytest.fixture
def answer(own_cache, tiny, tmp_path):
    """Runs the tiny suite in this process, or only the runs of some compressors."""
    setting = Setting(own_cache, track=silent)

    def call(*compressors: str) -> Outcome:
        questions = [q for q in tiny_questions(tiny) if not compressors or q.compressor.name in compressors]
        store = RecordStore(tmp_path / "results")
        return LocalExecutor(store, setting, OpenedData(setting), NoDisplay())("tiny", questions)

    return call


def test_clock_jumps_neither_repeat_nor_spoil_a_run(answer, tmp_path, monkeypatch):
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 2e9 * (next(jumps) % 2))  # from 1970 to 2033 and back
    first = answer("identity", "magnitude")
    assert len(first.done) == 3
    monkeypatch.undo()
    os.environ["SNNBENCH_CACHE"] = str(tmp_path / "cache")
    kept = records(tmp_path / "results")
    assert all(seconds >= 0 for record in kept.values() for seconds in record["seconds"].values())
    for number, path in enumerate(sorted(tmp_path.glob("results/records/*/*/*.json"))):
        os.utime(path, (4e9 * (number % 2),) * 2)  # of the past and of the future
    for path in tmp_path.glob("cache/checkpoints/*"):
        os.utime(path, (4e9, 4e9))
    again = answer("identity", "magnitude")
    assert sorted(again.found) == sorted(first.done)
    assert records(tmp_path / "results") == kept


def spoilt(path: Path) -> bytes:
    """Cut a file in half; returns what it held."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def failures(outcome: Outcome, results: Path) -> list[str]:
    return [records(results)[run_id]["error"] for run_id in outcome.failed]


def test_a_torn_dense_network_is_named_and_made_again_once_deleted(answer, own_cache, tmp_path):
    before = answer("identity")
    kept = records(tmp_path / "results")
    (network,) = own_cache.glob("checkpoints/*.safetensors")
    whole = spoilt(network)
    outcome = answer("identity", "magnitude")
    assert outcome.found == before.done
    assert len(outcome.failed) == 2
    for error in failures(outcome, tmp_path / "results"):
        assert re.search(rf"CheckpointError: .*delete {network}, and the network is trained again", error)
    network.unlink()
    assert len(answer("magnitude").done) == 2
    assert network.read_bytes()[-1000:] == whole[-1000:], "trained again to the same weights"
    after = records(tmp_path / "results")
    assert {run_id: after[run_id] for run_id in kept} == kept


def test_a_torn_elimination_is_named_and_made_again_once_deleted(answer, own_cache, tmp_path):
    answer("identity")
    assert len(answer("obc").done) == 2
    kept = records(tmp_path / "results")
    for record in tmp_path.glob("results/records/*/*/*.json"):
        if json.loads(record.read_text())["question"]["compressor"]["name"] == "obc":
            record.unlink()
    eliminations = sorted(own_cache.glob("eliminations/*.safetensors"))
    for path in eliminations:
        spoilt(path)
    outcome = answer("obc", "identity")
    assert len(outcome.found) == 1
    assert len(outcome.failed) == 2
    assert all("eliminations" in e and "delete it and run again" in e
               for e in failures(outcome, tmp_path / "results"))  # fmt: skip
    for path in eliminations:
        path.unlink()
    assert len(answer("obc").done) == 2
    same = {"metrics", "cost"}
    again = records(tmp_path / "results")
    assert {i: {k: again[i][k] for k in same} for i in kept} == {i: {k: kept[i][k] for k in same} for i in kept}


def test_a_run_killed_while_it_trains_goes_on_to_the_bits_of_an_undisturbed_one(own_cache, tiny, tmp_path, environment):
    tiny.write_text(
        TINY.replace("epochs: 1,", "epochs: 6, patience: 6,").replace("identity, random, magnitude, obc", "identity")
    )

    def run() -> subprocess.Popen:
        own = environment | {"SNNBENCH_CACHE": str(own_cache), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "benchmark.cli", "run", str(tiny), "--results", str(tmp_path / "results")]
        return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = run()
    while not [*own_cache.glob("checkpoints/*.training")]:
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.communicate()
    assert [*own_cache.glob("checkpoints/*.training")]
    assert not [*own_cache.glob("checkpoints/*.safetensors")]
    told, _ = run().communicate()
    assert re.search("the training goes on that was cut off: 6 epochs, after [1-9]+ of them", told)
    (network,) = own_cache.glob("checkpoints/*.safetensors")
    resumed = checkpoints.load(network)
    network.unlink()
    shutil.rmtree(tmp_path / "results")
    run().communicate()
    assert checkpoints.load(network).tensors_sha256 == resumed.tensors_sha256
    assert resumed.description["epochs"] == 6


@pytest.mark.parametrize("part", ["cells", "counts", "offsets"])
def test_a_torn_event_cache_is_named_and_made_again_once_deleted(answer, own_cache, tmp_path, part):
    before = answer("identity")
    (file,) = own_cache.glob(f"events/*/*/{part}")
    spoilt(file)
    with pytest.raises(DataCorrupt, match=rf"not whole .*: delete {file.parent}, and it is made again"):
        answer("identity", "magnitude")
    assert sorted(records(tmp_path / "results")) == before.done
    for path in file.parent.iterdir():
        path.unlink()
    file.parent.rmdir()
    assert len(answer("magnitude").done) == 2


def test_a_record_of_a_newer_schema_is_left_alone(answer, tmp_path):
    (run_id,) = answer("identity").done
    (path,) = tmp_path.glob(f"results/records/*/*/{run_id}.json")
    newer = json.dumps(json.loads(path.read_text()) | {"schema_version": 99, "surprise": 1})
    path.write_text(newer)
    with pytest.raises(RecordError, match=rf"{run_id}.json: schema 99 is newer .*update snnbench"):
        answer("identity", "magnitude")
    assert path.read_text() == newer


def test_a_disk_that_fills_up_loses_nothing_that_was_finished(answer, tmp_path, monkeypatch):
    answer("identity")  # what is written once for all runs is there: the dense network, the data's fingerprint
    sync, room = os.fsync, iter(range(3))

    def fill_up(handle: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; free space, or .*--results"):
        answer()
    monkeypatch.setattr(os, "fsync", sync)
    kept = records(tmp_path / "results")
    assert 1 < len(kept) < RUNS, "some were written before the disk was full"
    assert not list(tmp_path.glob("results/**/*.tmp"))
    outcome = answer()
    assert sorted(outcome.found) == sorted(kept)
    assert len(outcome.done) == RUNS - len(kept)
    after = records(tmp_path / "results")
    assert {run_id: after[run_id] for run_id in kept} == kept


def test_read_only_results_are_read(answer, tmp_path):
    """Whoever may only read a results folder can still read its records."""
    (run_id,) = answer("identity").done
    (path,) = tmp_path.glob(f"results/records/*/*/{run_id}.json")
    path.parent.chmod(0o555)
    try:
        assert read_record(path).id == run_id
        assert [record.id for record in RecordStore(tmp_path / "results")] == [run_id]
    finally:
        path.parent.chmod(0o755)


class Malicious:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("form", ["torch", "pickle", "inside a state dict"])
def test_a_malicious_checkpoint_executes_nothing(tmp_path, suffix, form):
    target, path = tmp_path / "executed", tmp_path / f"network{suffix}"
    bomb = Malicious(target)
    if form == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb if form == "torch" else {"state_dict": {"weight": torch.zeros(1), "extra": bomb}}, path)
    with pytest.raises(checkpoints.CheckpointError, match="is not a checkpoint that can be read safely"):
        checkpoints.load(path)
    assert not target.exists()
    if suffix != ".safetensors" and form != "pickle":
        torch.load(path, weights_only=False)
        assert target.exists(), "the bomb is a real one"
