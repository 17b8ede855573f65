"""A network of one's own from the command line: compressed, profiled, refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmark.networks.weights import checkpoints
from hardware import CostReport
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


def test_compress_then_profile(snnbench, dense, tmp_path):
    output = tmp_path / "small.safetensors"
    words = ("--checkpoint", dense, "--method", "sbc", "--density", "0.2", "--calibration-samples", "20")
    done = snnbench("compress", *words, "--output", output, "--json", "--wandb")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    logged = read(run_files(tmp_path)[-1])
    assert logged["summary"]["accuracy"] == summary["compressed"]["accuracy"]
    assert [artifact.type for artifact in logged["artifacts"]].count("network") == 1
    assert json.loads(output.with_suffix(".json").read_text()) == summary
    assert summary["compression"]["density"] == pytest.approx(0.2, abs=0.01)
    assert summary["compressed"]["synops"] < summary["dense"]["synops"]
    kept = sum(int(w.count_nonzero()) for w in checkpoints.load(output).state.values())
    assert kept == sum(layer["kept"] for layer in summary["compression"]["layers"])

    picture, table = tmp_path / "bars.png", tmp_path / "table.csv"
    done = snnbench("profile", "--checkpoint", output, "--json", "--picture", picture, "--csv", table)
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)
    assert profile["accuracy"] == pytest.approx(summary["compressed"]["accuracy"])
    assert profile["rows"][-1]["layer"] == "total"
    assert picture.stat().st_size > 1000
    assert len(table.read_text().splitlines()) == len(profile["rows"]) + 1


def test_the_file_is_as_small_as_its_record_and_is_taken_back_by_every_command(snnbench, dense, tmp_path):
    packed, plain = tmp_path / "packed.safetensors", tmp_path / "plain.safetensors"
    words = ("compress", "--checkpoint", dense, "--method", "rtn", "--bits", "4", "--output")
    done = snnbench(*words, packed)
    assert done.returncode == 0, done.stderr
    assert "bytes = weights 9," in done.stdout  # 2312 x 8 and 8 x 10 weights of 4 bits
    summary = json.loads(packed.with_suffix(".json").read_text())
    size = summary["bytes"]
    assert size["file"] == packed.stat().st_size == sum(size.values()) - size["file"]
    stored = summary["compressed"]["stored_bits"]
    assert 0 <= 8 * sum(size[part] for part in ("weights", "index", "scales", "others")) - stored < 8 * 8

    assert snnbench(*words, plain, "--plain").returncode == 0
    floats, read = load_file(plain), checkpoints.load(packed).state
    assert floats.keys() == read.keys()
    assert all(torch.equal(floats[name], read[name]) for name in floats)
    assert json.loads(plain.with_suffix(".json").read_text())["bytes"] == {"file": plain.stat().st_size}

    done = snnbench("profile", "--checkpoint", packed, "--json")
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)
    assert CostReport.from_dict(profile["report"]).stored_bits == stored
    assert profile["accuracy"] == pytest.approx(summary["compressed"]["accuracy"])
    total = profile["rows"][-1]
    assert total["ac"] == pytest.approx(summary["compressed"]["synops_ac"])

    refused = snnbench(*words, tmp_path / "small.nir", "--plain")
    assert refused.returncode == 2
    assert "--plain is said of .safetensors" in refused.stderr


def test_a_suite_takes_a_packed_checkpoint(snnbench, dense, tiny, tmp_path):
    packed = tmp_path / "packed.safetensors"
    done = snnbench("compress", "--checkpoint", dense, "--method", "rtn", "--bits", "4", "--output", packed, "--json")
    assert done.returncode == 0, done.stderr
    accuracy = json.loads(done.stdout)["compressed"]["accuracy"]
    tiny.write_text(tiny.read_text().replace("hidden: 8}", f"hidden: 8, checkpoint: {packed}}}"))
    done = snnbench("run", tiny, "--no-wandb", "--results", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "again").values()
    assert record["metrics"]["accuracy"] == pytest.approx(accuracy)


def test_the_data_are_fingerprinted_and_the_checkpoint_is_read_once(snnbench, dense, tmp_path, monkeypatch):
    from benchmark.networks.weights import checkpoints
    from datamodules.base import BenchmarkDataModule

    calls = []
    fingerprint, read = BenchmarkDataModule.fingerprint, checkpoints._load_safetensors
    monkeypatch.setattr(BenchmarkDataModule, "fingerprint", lambda self: calls.append("data") or fingerprint(self))
    monkeypatch.setattr(checkpoints, "_load_safetensors", lambda path: calls.append(path) or read(path))
    words = ("--method", "magnitude", "--density", "0.5", "--output", tmp_path / "small.safetensors")
    assert snnbench("compress", "--checkpoint", dense, *words).returncode == 0
    written = [call for call in calls if "small.safetensors" in str(call)]  # read back before it takes its name
    assert len(written) == 1
    assert sorted(map(str, calls)) == sorted(["data", str(dense), *map(str, written)])


@pytest.mark.parametrize(
    "words",
    [("rtn", "--bits", "4"), ("qpsnn", "--bits", "3", "--density", "0.5", "-o", "quantize_ends=true")],
    ids=["rtn", "qpsnn"],
)
def test_a_network_of_few_bits_is_profiled_as_it_was_measured(words, snnbench, dense, tmp_path):
    output = tmp_path / "small.safetensors"
    words = ("--checkpoint", dense, "--calibration-samples", "20", "--method", *words)
    done = snnbench("compress", *words, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["compressed"]["weight_bits"] < summary["dense"]["weight_bits"] / 7
    profile = json.loads(snnbench("profile", "--checkpoint", output, "--json").stdout)
    report = CostReport.from_dict(profile["report"])
    assert report.stored_bits == summary["compressed"]["stored_bits"]
    assert report.weight_bits == summary["compressed"]["weight_bits"]

    again = tmp_path / "again.safetensors"  # pruned once more, the weights stay on their grids
    more = ("--checkpoint", output, "--method", "magnitude", "--density", "0.5", "--calibration-samples", "20")
    done = snnbench("compress", *more, "--output", again, "--json")
    assert done.returncode == 0, done.stderr
    profile = json.loads(snnbench("profile", "--checkpoint", again, "--json").stdout)
    assert CostReport.from_dict(profile["report"]).stored_bits == json.loads(done.stdout)["compressed"]["stored_bits"]


def test_a_limit_on_memory_changes_nothing_but_that(snnbench, dense, tmp_path):
    words = (
        "compress",
        "--checkpoint",
        dense,
        "--density",
        "0.2",
        "--calibration-samples",
        "20",
        "--plain",
        "--output",
    )
    for name, limit in (("one", ()), ("several", ("--max-memory", "1e-6"))):
        done = snnbench(*words, tmp_path / f"{name}.safetensors", "--method", "sbc", *limit)
        assert done.returncode == 0, done.stderr
    one, several = (checkpoints.load(tmp_path / f"{name}.safetensors").state for name in ("one", "several"))
    assert all(torch.equal(one[name], several[name]) for name in one)
    refused = snnbench(*words, tmp_path / "x.safetensors", "--method", "random", "--max-memory", "1")
    assert refused.returncode == 2
    assert "the compressor 'random' has no option 'max_memory'" in refused.stderr


def test_other_peoples_checkpoints_need_a_name_and_must_fit(snnbench, dense, tmp_path):
    foreign = tmp_path / "foreign.ckpt"
    state = {f"network.{name}": value for name, value in load_file(dense).items()}
    torch.save({"state_dict": state}, foreign)
    words = ("compress", "--checkpoint", foreign, "--method", "magnitude", "--density", "0.5")
    unnamed = snnbench(*words)
    assert unnamed.returncode == 2
    assert "does not say which model it belongs to: give --model" in unnamed.stderr

    data = ("--data", "digits_dvs", "--data-option", "timesteps=3")
    fits = snnbench(*words, "--model", "mlp", "--model-option", "hidden=8", *data, "--json")
    assert fits.returncode == 0, fits.stderr
    assert (tmp_path / "foreign-magnitude-0.5.safetensors").exists()

    other = snnbench(*words, "--model", "mlp", "--model-option", "hidden=9", *data)
    assert other.returncode == 2
    assert "foreign.ckpt does not fit the network: 1.weight is [8, 2312] instead of [9, 2312]" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    "words", [("qpsnn", "--bits", "4"), ("spatiotemporal", "-o", "timesteps=[3, 2]")], ids=["qpsnn", "spatiotemporal"]
)
def test_a_narrowed_network_is_profiled_as_it_was_measured(words, snnbench, dense, tmp_path):
    output = tmp_path / "narrow.safetensors"
    words = ("--checkpoint", dense, "--density", "0.4", "--calibration-samples", "20", "--method", *words)
    done = snnbench("compress", *words, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert checkpoints.load(output).state["1.weight"].shape == (3, 2312)  # of 8 neurons
    done = snnbench("profile", "--checkpoint", output, "--json")
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)
    assert profile["accuracy"] == pytest.approx(summary["compressed"]["accuracy"])
    assert profile["rows"][-1]["ac"] == pytest.approx(summary["compressed"]["synops_ac"])
