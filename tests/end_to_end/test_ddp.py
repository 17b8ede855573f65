"""Two processes on one run: the record of one process, errors and deaths as in one process, nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from benchmark.runs.children import WorkerError
from benchmark.runs.distributed import DeviceError, DeviceGroup, Devices
from compressors.budget import BudgetError
from tests.end_to_end.conftest import REPOSITORY, hear_interrupts, records
from tests.end_to_end.test_jobs import gone

PAIR = Devices("cpu", 2)
TINY = """\
name: tiny
data: [{name: digits_dvs, timesteps: 3}]
models: [{name: conv, width: 4, hidden: 16}]
compressors: [identity, random, obc, sbc]
densities: [0.3]
calibration_samples: 100
training: {epochs: 6, batch_size: 24, learning_rate: 0.003}
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def answer(record: dict) -> dict:
    """What a record says of the network, without how long it took and how often layers were called for it."""
    layers = [{key: value for key, value in layer.items() if key != "calls"} for layer in record["cost"]["layers"]]
    return {
        "question": record["question"],
        "data": record["data"],
        "dense": record["dense"],
        "accuracy": record["metrics"]["accuracy"],
        "cost": record["cost"] | {"layers": layers},
        "masks": [layer["kept"] for layer in record["compression"]["layers"]],
    }


@pytest.mark.slow
def test_two_processes_give_the_record_of_one(snnbench, suite, tmp_path, cache):
    """The dense network is trained by two processes in the first suite and found by the second."""
    done = snnbench("run", suite, "--no-wandb", "--results", "two", "--devices", "2")
    assert done.returncode == 0, [record["error"] for record in records(tmp_path / "two").values()]
    trained = {path: path.stat().st_mtime_ns for path in (cache / "checkpoints").glob("*.safetensors")}
    done = snnbench("run", suite, "--no-wandb", "--results", "one")
    assert done.returncode == 0, done.stderr
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert {path: path.stat().st_mtime_ns for path in (cache / "checkpoints").glob("*.safetensors")} == trained
    assert len(one) == 4
    assert {run_id: answer(record) for run_id, record in two.items()} == {
        run_id: answer(record) for run_id, record in one.items()
    }
    for run_id, record in one.items():
        assert two[run_id]["metrics"]["loss"] == pytest.approx(record["metrics"]["loss"], rel=1e-5)
        assert record["environment"]["devices"] == 1
        used = {key: two[run_id]["environment"][key] for key in ("accelerator", "devices", "strategy", "device")}
        assert used == {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "device": "cpu"}
    assert max(record["metrics"]["accuracy"] for record in two.values()) > 0.2, (
        "the network has learned something"
    )  # chance is 0.1; the rest is the order of sums


@pytest.mark.slow
def test_compress_gives_the_network_that_one_process_gives(snnbench, suite, tmp_path, cache):
    snnbench("run", suite, "--no-wandb")
    dense = next(iter(records(tmp_path / "results").values()))["dense"]
    words = ("--checkpoint", cache / "checkpoints" / f"{dense['id']}.safetensors", "--method", "sbc", "--density", 0.1)
    summaries = {}
    for devices in (1, 2):
        done = snnbench("compress", *words, "--output", f"{devices}.safetensors", "--devices", devices, "--json")
        assert done.returncode == 0, done.stderr
        summaries[devices] = json.loads(done.stdout)
    one, two = (load_file(tmp_path / f"{devices}.safetensors") for devices in (1, 2))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert torch.equal(weight == 0, two[name] == 0), f"the mask of {name}"
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-6)
    for figure in ("accuracy", "synops", "stored_bits"):
        assert summaries[1]["compressed"][figure] == summaries[2]["compressed"][figure]


@pytest.fixture(scope="module")
def group():
    with DeviceGroup(PAIR) as pair:
        yield pair


def doubled(layer: nn.Linear) -> nn.Linear:
    """Changes the weight in place."""
    with torch.no_grad():
        layer.weight.mul_(2)
    return layer


def rank_times(number: int) -> tuple[int, int]:
    """This rank, and the sum over ranks."""
    total = torch.tensor(number * (dist.get_rank() + 1))
    dist.all_reduce(total)
    return dist.get_rank(), int(total)


def failing_in_rank_1() -> None:
    """Rank 0 waits for a rank that has an error."""
    if dist.get_rank() == 1:
        raise BudgetError("too much")
    dist.barrier()


def dying_in_rank_1() -> None:
    """Rank 0 waits for a rank that the system kills."""
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def breaking_once(how: str, happened: Path) -> int:
    """Rank 0 misses rank 1: it is killed by the system, or closes its connections."""
    if dist.get_rank() == 1 and not happened.exists():
        happened.touch()
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        dist.destroy_process_group()
        return 1
    dist.barrier()
    return dist.get_world_size()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [("killed", "the process of rank 1 was killed"), ("closed", "rank 0 lost the others: .*gloo")],
)
def test_a_group_that_breaks_is_started_anew_once(group, tmp_path, caplog, how, why):
    assert group.call(breaking_once, how, tmp_path / "happened") == 2
    (warned,) = [record.getMessage() for record in caplog.records if record.name == "benchmark.runs.distributed"]
    assert re.search(f"{why}.*; a new group of processes tries once more", warned, re.DOTALL)


@pytest.mark.slow
def test_a_group_calls_together_and_outlives_no_error(group):
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    result = group.call(doubled, layer)
    assert torch.equal(result.weight, 2 * before), "each rank has memory of its own"
    assert torch.equal(layer.weight, before)
    assert group.call(rank_times, 7) == (0, 21)
    kept = [member.process for member in group._members]

    with pytest.raises(BudgetError, match="too much") as raised:
        group.call(failing_in_rank_1)
    assert "in failing_in_rank_1" in "".join(raised.value.__notes__)
    assert not any(process.is_alive() for process in kept)

    # a new group is started by the next call
    with pytest.raises(WorkerError, match=r"rank 1 was killed \(SIGKILL\).*use fewer --devices, then run again"):
        group.call(dying_in_rank_1)


def test_what_cannot_be_sent_is_refused():
    with (
        pytest.raises(DeviceError, match="cannot be sent to the processes"),
        DeviceGroup(PAIR) as pair,
    ):
        pair.call(doubled, lambda: None)


def test_one_device_is_a_plain_call():
    layer = nn.Linear(3, 2)
    assert DeviceGroup().call(doubled, layer) is layer


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are two GPUs")
def test_devices_that_are_not_there_are_refused(snnbench, suite, tmp_path):
    done = snnbench("run", suite, "--accelerator", "gpu", "--devices", 2)
    assert done.returncode == 2
    assert "2 GPUs are asked for, and " in done.stderr
    assert "--accelerator cpu" in done.stderr
    assert not (tmp_path / "results").exists()


def test_devices_and_jobs_do_not_go_together(snnbench, suite):
    done = snnbench("run", suite, "--jobs", 2, "--devices", 2, "--accelerator", "cpu")
    assert done.returncode == 2
    assert "leave out --jobs" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_parent(suite, tmp_path, environment, how):
    """Ctrl-C reaches all of them, a kill the parent alone; either in the middle of the training."""
    words = [sys.executable, "-m", "benchmark.cli", "run", str(suite), "--no-wandb", "--devices", "2"]
    own = {"PYTHONPATH": str(REPOSITORY), "SNNBENCH_CACHE": str(tmp_path / "cache")}
    suite.write_text(TINY.replace("epochs: 6", "epochs: 1000, patience: 1000"))
    parent = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment | own,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    try:
        deadline = time.monotonic() + 600
        while not list(tmp_path.glob("cache/checkpoints/*.training")):
            assert time.monotonic() < deadline, "no epoch of the training has ended"
            assert parent.poll() is None, "it ended by itself"
            time.sleep(0.1)
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)
        else:
            parent.kill()
        _, text = parent.communicate(timeout=120)
    finally:
        parent.kill()
    assert parent.returncode == (130 if how == signal.SIGINT else -how), text
    assert gone(parent.pid)
    assert not records(tmp_path / "results")
    assert not list(tmp_path.glob("cache/checkpoints/*.safetensors"))
