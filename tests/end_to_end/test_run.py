"""A suite from the command line: records, resumption, sharing, failures, exit statuses."""

import json
import os
import signal
import subprocess
import sys
import time

import nir
import pytest
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.nir.writing import write_nir
from benchmark.records import RecordStore, answers_of
from tests.end_to_end.conftest import REPOSITORY, RUNS, records

pytestmark = pytest.mark.slow


def test_a_suite_leaves_a_record_a_run_and_does_nothing_twice(snnbench, tiny, tmp_path):
    first = snnbench("run", tiny, "--json", "--no-wandb")
    assert first.returncode == 0, first.stderr
    outcome = json.loads(first.stdout)
    assert len(outcome["done"]) == RUNS
    assert not outcome["failed"]
    kept = records(tmp_path / "results")
    assert sorted(kept) == sorted(outcome["done"])
    for record in kept.values():
        assert record["status"] == "done"
        assert 0 <= record["metrics"]["accuracy"] <= 1
        assert record["data"]["fingerprint"]
        assert record["environment"]["packages"]["torch"]
        assert len({record["dense"]["sha256"] for record in kept.values()}) == 1
        density = record["question"]["density"]
        assert record["compression"]["density"] == pytest.approx(density, abs=0.01)
        right = answers_of(record["correct"], record["cost"]["samples"]).bit_count()
        assert right == round(record["metrics"]["accuracy"] * record["cost"]["samples"])
    assert f"{RUNS}/{RUNS}" in first.stderr

    again = snnbench("run", tiny, "--json", "--no-wandb")
    assert sorted(json.loads(again.stdout)["found"]) == sorted(kept)
    assert records(tmp_path / "results") == kept


def test_costs_and_accuracy_of_the_dense_network_are_those_of_a_plain_count(snnbench, tiny, tmp_path, cache):
    """What the record says of the first layer is recomputed here from the events and the weights alone."""
    snnbench("run", tiny, "--no-wandb")
    kept = next(r for r in records(tmp_path / "results").values() if r["question"]["compressor"]["name"] == "identity")

    import torch

    from benchmark.networks.weights.checkpoints import load
    from datamodules.digits_dvs import DigitsDVS

    path = next((cache / "checkpoints").glob(f"{kept['dense']['id']}.safetensors"))
    weight = load(path).state["1.weight"]
    data = DigitsDVS(cache / "digits_dvs-1", timesteps=3, batch_size=500)
    data.setup()
    events = sum(int((torch.as_tensor(x) != 0).sum()) for x, _ in data.test_dataloader())
    first = kept["cost"]["layers"][0]
    assert first["ac"] + first["mac"] == events * weight.shape[0]


def test_killed_in_the_middle_it_goes_on_where_it_stopped(snnbench, tiny, tmp_path, environment):
    words = [sys.executable, "-m", "benchmark.cli", "run", str(tiny), "--no-wandb"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "results").glob("records/*/*/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = records(tmp_path / "results")  # none of them is torn
    assert 2 <= len(before) < RUNS
    outcome = json.loads(snnbench("run", tiny, "--json", "--no-wandb").stdout)
    assert sorted(outcome["found"]) == sorted(before)
    assert len(outcome["done"]) == RUNS - len(before)
    after = records(tmp_path / "results")
    assert {name: after[name] for name in before} == before


def test_two_processes_share_a_suite(tiny, tmp_path, environment):
    words = [sys.executable, "-m", "benchmark.cli", "run", str(tiny), "--json", "--no-wandb"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    variables = environment | {"PYTHONPATH": str(REPOSITORY)}
    both = [subprocess.Popen(words, cwd=tmp_path, env=variables, **pipes) for _ in range(2)]
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    first, second = (json.loads(out) for out, _ in answers)
    done = first["done"] + second["done"]
    assert len(done) == len(set(done)) == RUNS, "every run was made once"
    assert len(first["done"] + first["found"]) == len(second["done"] + second["found"]) == RUNS
    assert sorted(records(tmp_path / "results")) == sorted(done)


PLUGIN = '''
from compressors.methods.magnitude import Magnitude

class Failing(Magnitude):
    """A compressor that fails on purpose."""

    def prune(self, layer, keep, statistics):
        if self.budget.density < 0.3:
            raise RuntimeError("no such luck")
        return super().prune(layer, keep, statistics)
'''


def test_a_failing_run_is_a_record_and_the_others_go_on(snnbench_process, tiny, tmp_path):
    """The failing compressor comes from another package, by entry point."""
    (tmp_path / "failing.py").write_text(PLUGIN)
    meta = tmp_path / "failing-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[snnbench.compressors]\nfailing = failing:Failing\n")
    tiny.write_text(tiny.read_text().replace("[identity, random, magnitude, obc]", "[failing, identity]"))
    done = snnbench_process("run", tiny, "--json", "--no-wandb", paths=[tmp_path])
    assert done.returncode == 1, done.stderr
    outcome = json.loads(done.stdout)
    assert (len(outcome["done"]), len(outcome["failed"])) == (2, 1)
    failed = records(tmp_path / "results")[outcome["failed"][0]]
    assert failed["error"] == "RuntimeError: no such luck"
    assert failed["environment"]["packages"]["failing"] == "1.0"
    assert "in prune" in failed["traceback"]
    assert "no such luck" in done.stderr
    listing = snnbench_process("list", "--json", paths=[tmp_path])
    assert "failing" in json.loads(listing.stdout)["compressors"]


def test_missing_data_is_status_3_and_says_what_goes_where(snnbench, tmp_path):
    done = snnbench("run", "nmnist", "--data-root", f"nmnist={tmp_path / 'nowhere'}")
    assert done.returncode == 3
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Train" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_results_folder_that_cannot_be_written_is_found_out_before_the_work(snnbench, tiny, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "records").write_text("a file, not a folder")
    done = snnbench("run", tiny, "--no-wandb")
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "--results" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("magnitude", "magnitud"), "unknown compressor 'magnitud': did you mean 'magnitude'?"),
        (("name: mlp", "name: mpl"), "unknown model 'mpl': did you mean 'mlp'?"),
        (("digits_dvs", "digits"), "unknown data set 'digits': did you mean 'digits_dvs'?"),
        (("hidden: 8", "hiden: 8"), "the model 'mlp' has no option 'hiden': did you mean 'hidden'?"),
        (("timesteps: 3", "timesteps: 3, bining: time"), "has no option 'bining': did you mean 'binning'?"),
        (("obc]", "{name: obc, damping: -1}]"), "damping is -1"),
        (("obc]", "{name: obc, allocation: lmap}]"), "allocation is 'lmap': did you mean 'lamp'?"),
        (("epochs: 1", "epoch: 1"), "unknown key 'epoch': did you mean 'epochs'?"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)
def test_mistakes_in_a_suite_are_status_2_with_the_remedy(tiny, tmp_path, change, message, monkeypatch):
    from click.testing import CliRunner

    from benchmark.cli import main

    tiny.write_text(tiny.read_text().replace(*change))
    done = CliRunner().invoke(main, ["run", str(tiny), "--results", str(tmp_path / "results")])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "results").exists()


def test_the_records_of_a_nir_network_say_how_its_neurons_are_reset(snnbench, tiny, tmp_path):
    net = nn.Sequential(layer.Flatten(), layer.Linear(2312, 10, bias=False), neuron.LIFNode(v_threshold=0.2))
    functional.set_step_mode(net, "m")
    write_nir(tmp_path / "small.nir", net, (2, 34, 34))
    graph = nir.read(tmp_path / "small.nir")
    graph.nodes["2"].metadata = {}
    nir.write(tmp_path / "open.nir", graph)
    nets = ["{name: nir, checkpoint: small.nir}", "{name: nir, checkpoint: open.nir, reset: subtract}"]
    tiny.write_text(
        tiny.read_text()
        .replace("{name: mlp, hidden: 8}", ", ".join(nets))
        .replace("[identity, random, magnitude, obc]", "[magnitude]")
        .replace("[0.5, 0.2]", "[0.5]")
    )
    done = snnbench("run", tiny, "--no-wandb")
    assert done.returncode == 0, done.stderr
    written = [record["dense"]["reset"] for record in records(tmp_path / "results").values()]
    assert sorted(written) == ["subtract (as asked for)", "value (as the file's metadata say)"]
    assert sorted(record.dense.reset for record in RecordStore(tmp_path / "results")) == sorted(written)


def test_a_suite_of_a_trained_network_trains_nothing(snnbench, tiny, tmp_path, cache, monkeypatch):
    """The dense network of a first suite is the checkpoint of a second: the same figures, under other ids."""
    snnbench("run", tiny, "--no-wandb")
    first = records(tmp_path / "results")
    dense_id = next(iter(first.values()))["dense"]["id"]
    (cache / "checkpoints" / f"{dense_id}.safetensors").rename(tmp_path / "trained.safetensors")
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    given = tmp_path / "given.yaml"
    given.write_text(
        tiny.read_text()
        .replace("hidden: 8}", "hidden: 8, checkpoint: $SOMEWHERE/trained.safetensors}")
        .replace("name: tiny", "name: given")
    )
    done = snnbench("run", given, "--no-wandb", "--results", "given")
    assert done.returncode == 0, done.stderr
    second = records(tmp_path / "given")
    assert not first.keys() & second.keys()

    def figures(kept):
        return sorted((r["question"]["compressor"]["name"], r["question"]["density"], r["metrics"]["accuracy"])
                      for r in kept.values())  # fmt: skip

    assert figures(first) == figures(second)
    assert all(record["dense"]["epochs"] == 1 for record in second.values())

    monkeypatch.setenv("SOMEWHERE", str(tmp_path / "elsewhere"))
    missing = snnbench("run", given, "--no-wandb", "--results", "given")
    assert missing.returncode == 2
    assert "elsewhere/trained.safetensors" in missing.stderr
