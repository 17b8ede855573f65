"""A budget that is searched, from the command line: the winner, its path, its command, and what judged it."""

import json
import shlex

import nir
import numpy as np
import pytest
import torch
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from benchmark.commands.compress import _command_of, compress
from benchmark.networks.weights import checkpoints
from benchmark.questions.suite import Named
from benchmark.single_network.trials import Candidate
from compressors.budget import Budget
from datamodules.base import BenchmarkDataModule
from tests.benchmark.tracking.wandb_files import read, run_files
from tests.end_to_end.conftest import records

pytestmark = pytest.mark.slow


@pytest.fixture
def dense(snnbench, tiny, tmp_path, cache):
    """A dense checkpoint that snnbench wrote."""
    tiny.write_text(tiny.read_text().replace("[identity, random, magnitude, obc]", "[identity]"))
    snnbench("run", tiny, "--no-wandb")
    (record,) = records(tmp_path / "results").values()
    return cache / "checkpoints" / f"{record['dense']['id']}.safetensors"


@pytest.fixture
def searched(snnbench, dense, tmp_path):
    """Searches for a small network, and gives its summary; the test part's loaders are counted."""

    def call(*words, output="small.safetensors"):
        fixed = ("--checkpoint", dense, "--calibration-samples", "20", "--held-out", "200", "--output", output)
        done = snnbench("compress", *fixed, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def test_a_search_ends_with_one_test_and_a_command_that_repeats_it(searched, snnbench, tmp_path, monkeypatch):
    tests, loader = [], BenchmarkDataModule.test_dataloader
    monkeypatch.setattr(BenchmarkDataModule, "test_dataloader", lambda self: tests.append(self) or loader(self))
    summary = searched("--method", "magnitude", "--method", "rtn", "--max-drop", "4", "-o", "symmetric=false")
    assert len(tests) == 2  # the dense network's and the winner's, whatever was tried
    found = summary["search"]
    best = found["path"][found["best"]]
    ok = [step for step in found["path"] if step["verdict"] == "ok"]
    assert best["stored_bits"] == min(step["stored_bits"] for step in ok) == summary["compressed"]["stored_bits"]
    assert best["change"]["change"] >= -0.04
    assert found["samples"] == {"unseen": 200, "seen": 0}
    assert {step["method"]["name"] for step in found["path"]} == {"magnitude", "rtn"}
    test = found["test"]
    assert test["samples"] == 397
    assert test["change"] == pytest.approx(summary["compressed"]["accuracy"] - summary["dense"]["accuracy"])
    assert test["low"] <= test["change"] <= test["high"]
    assert json.loads((tmp_path / "small.json").read_text())["search"] == found
    assert (tmp_path / "small.search.png").read_bytes()[:4] == b"\x89PNG"

    network = checkpoints.load(tmp_path / "small.safetensors").state
    (tmp_path / "small.safetensors").unlink()
    words = shlex.split(found["command"])
    assert words[0] == "snnbench"
    done = snnbench(*words[1:])
    assert done.returncode == 0, done.stderr
    repeated = checkpoints.load(tmp_path / "small.safetensors").state
    assert all(torch.equal(values, repeated[name]) for name, values in network.items())
    assert "search" not in json.loads((tmp_path / "small.json").read_text())


def test_a_search_takes_up_what_was_tried(searched):
    first = searched("--method", "magnitude", "--bits", "4", "--max-drop", "3", output="one.safetensors")["search"]
    again = searched("--method", "magnitude", "--bits", "4", "--max-drop", "3", output="two.safetensors")["search"]
    assert not any(step["reused"] for step in first["path"])
    assert all(step["reused"] for step in again["path"])
    assert [step["change"] for step in first["path"]] == [step["change"] for step in again["path"]]
    assert again["seconds"] == 0


def test_limits_are_kept_within(searched):
    limits = ("--max-memory-bits", "2KiB", "--max-synops", "8e3", "--fit", "loihi1")
    summary = searched("--method", "magnitude", "--density", "0.1", *limits)
    assert summary["compressed"]["stored_bits"] <= 8 * 2048
    path = summary["search"]["path"]
    assert path[summary["search"]["best"]]["synops"] <= 8000
    assert "over loihi1 weight_bits" in path[0]["verdict"]
    kept = [step for step in path if step["verdict"] == "ok"]
    assert path[summary["search"]["best"]]["accuracy"] == max(step["accuracy"] for step in kept)


def test_a_search_in_whole_numbers_hands_everything_over(searched, snnbench, tmp_path):
    """What is judged, tested and written are the whole numbers, in both formats; and the command repeats them."""
    whole = ("--fixed-point", "--potential-bits", "14", "--output", "small.nir")
    wish = ("--max-memory-bits", "3KiB", "--fit", "loihi1", "--max-drop", "5")
    summary = searched("--method", "magnitude", *wish, *whole)
    path, best = summary["search"]["path"], summary["search"]["best"]
    bits = path[best].get("bits", 8)
    assert summary["fixed_point"]["weight_bits"] == bits
    assert path[best]["stored_bits"] == summary["compressed"]["stored_bits"] <= 8 * 3 * 1024
    assert not any("weight_bits" in step["verdict"] for step in path)  # which floats would break
    told = nir.read(tmp_path / "small.nir").nodes
    codes = [node.metadata["weight_codes"] for node in told.values() if "weight_codes" in (node.metadata or {})]
    assert sum(map(np.count_nonzero, codes)) == sum(layer["kept"] for layer in summary["compression"]["layers"])
    assert summary["also"] == {"small.nir": (tmp_path / "small.nir").stat().st_size}
    (fit,) = summary["profile"]["chips"]
    assert (fit["chip"], fit["fits"]) == ("loihi1", None)  # some of its limits nobody knows
    assert summary["profile"]["accuracy"] == summary["compressed"]["accuracy"]

    before = (tmp_path / "small.nir").read_bytes()
    done = snnbench(*shlex.split(summary["search"]["command"])[1:], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["compressed"]["accuracy"] == summary["compressed"]["accuracy"]
    assert len((tmp_path / "small.nir").read_bytes()) == len(before)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--method", "magnitude", "--minimise", "synops"), 2, "--minimise is of a search"),
        (("--method", "magnitude", "--held-out", "50"), 2, "--held-out is of a search"),
        (("--method", "magnitude", "--density", "0.5", "--energy", "seneca"), 2, "--energy is of a search"),
        (("--method", "magnitude", "--fit", "loihi1", "--minimise", "synops"), 2, "--minimise is said of networks"),
        (("--method", "magnitude", "--method", "rtn", "--bits", "4"), 2, "several methods are searched"),
        (("--method", "rtn", "--method", "rtn", "--max-drop", "1"), 2, "given twice"),
        (("--method", "magnitude", "--max-drop", "1", "--synops", "0.3"), 2, "--synops is a budget"),
        (("--method", "magnitude", "--max-drop", "1", "--devices", "2"), 2, "a search works on one device"),
        (("--method", "magnitude", "--max-drop", "1", "--fixed-point", "--weight-bits", "4"), 2, "weights is searched"),
        (("--method", "magnitude", "--density", "0.5", "--output", "a.nir", "--output", "a.nir"), 2, "a.nir twice"),
        (("--method", "magnitude", "--fit", "lohi1"), 2, "unknown chip 'lohi1': did you mean 'loihi1'?"),
        (("--method", "magnitude", "--max-memory-bits", "64 KiX"), 2, "'64 KiX' is no size"),
        (("--method", "rtn", "--max-drop", "1", "--density", "0.5"), 2, "there is nothing to search for 'rtn'"),
        (("--method", "magnitude", "--fit", "xylo"), 1, "compression cannot make the network fit: xylo inputs"),
        (("--method", "magnitude", "--max-memory-bits", "8", "--bits", "3"), 1, "nothing of 1 tried keeps within"),
    ],
)
def test_a_search_that_cannot_be_is_refused(words, status, message, snnbench, dense):
    done = snnbench("compress", "--checkpoint", dense, *words)
    assert done.returncode == status
    assert message in " ".join(done.stderr.split())


def test_sensitivity_names_layers(snnbench, dense, tmp_path):
    words = ("--checkpoint", dense, "--calibration-samples", "20", "--held-out", "100", "--method", "magnitude")
    done = snnbench("sensitivity", *words, "--density", "0.02", "--max-drop", "0", "--picture", "heat.png", "--json")
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert account["budgets"] == [{"density": 0.02}]
    assert (tmp_path / "heat.png").read_bytes()[:4] == b"\x89PNG"
    shown = snnbench("sensitivity", *words, "--density", "0.02", "--max-drop", "0")
    assert all(layer["name"] in shown.stdout for layer in account["layers"])
    refused = snnbench("sensitivity", *words, "--density", "1.5")
    assert refused.returncode == 2
    assert "density is 1.5" in refused.stderr


def test_options_are_swept_for_the_accuracy_at_a_memory(snnbench, dense, tmp_path, monkeypatch):
    """What ``wandb agent`` makes of the sweep's command, with the client's own way of filling it in."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    fixed = ("--checkpoint", dense, "--calibration-samples", "20", "--held-out", "100", "--bits", "4")
    words = ("--method", "obc", "--max-memory-bits", "1KiB", "-o", "solver=fast", *fixed)
    done = snnbench("wandb", "tune", *words, "--vary", "damping=[0.01,1000.0]")
    assert done.returncode == 0, done.stderr
    sweep = yaml.safe_load(done.stdout)
    assert sweep["metric"] == {"name": "accuracy at memory", "goal": "maximize"}
    assert (sweep["method"], sweep["parameters"]) == ("grid", {"damping": {"values": [0.01, 1000.0]}})
    assert sweep["command"][0] == "${env}"
    found = {}
    for damping in sweep["parameters"]["damping"]["values"]:
        (filled,) = create_sweep_command_args({"args": {"damping": {"value": damping}}})["args_json"]
        command = [filled if word == "${args_json}" else word for word in sweep["command"][1:]]
        monkeypatch.setenv("WANDB_RUN_ID", f"trial-{damping:g}")
        wandb.teardown()  # which reads its settings once a process; an agent starts a new one
        done = snnbench(*command[1:])
        assert done.returncode == 0, done.stderr
        (file,) = (file for file in run_files(dense.parent) if file.name == f"run-trial-{damping:g}.wandb")
        told = read(file)
        assert told["config"]["damping"] == damping
        assert told["summary"]["stored_bits"] <= 8 * 1024
        found[damping] = told["summary"]["accuracy at memory"]
        assert f"accuracy {found[damping]:.4f} on held-out samples" in done.stdout
    wandb.teardown()
    assert len(found) == 2


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ((), "nothing is varied"),
        (("--vary", "dampling=[1,2]"), "sbc has no option 'dampling'"),
        (("--vary", "damping=3"), "give a list of values"),
    ],
)
def test_a_sweep_over_nothing_is_refused(vary, message, snnbench, tmp_path):
    network = tmp_path / "some.safetensors"
    network.write_bytes(b"")
    done = snnbench("wandb", "tune", "--checkpoint", network, "--max-memory-bits", "1KiB", *vary)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_range_is_searched_by_what_was_seen(snnbench, tmp_path):
    network = tmp_path / "some.safetensors"
    network.write_bytes(b"")
    vary = ("--vary", "damping={min: 0.001, max: 1, distribution: log_uniform_values}")
    done = snnbench("wandb", "tune", "--checkpoint", network, "--max-memory-bits", "1KiB", *vary)
    sweep = yaml.safe_load(done.stdout)
    assert sweep["method"] == "bayes"
    assert sweep["parameters"]["damping"] == {"min": 0.001, "max": 1, "distribution": "log_uniform_values"}


def test_the_command_says_the_budget_to_the_last_digit():
    asked = ["--checkpoint", "a.ckpt", "--method", "sbc", "--max-drop", "1", "--output", "b.nir"]
    with compress.make_context("compress", asked):
        command = _command_of(Candidate(Named(name="sbc"), Budget(0.123456789, 4)))
    again = compress.make_context("compress", shlex.split(command)[2:]).params
    assert (again["density"], again["bits"], again["max_drop"]) == (0.123456789, 4, None)
