"""What Weights & Biases is told, read back from the files of offline runs."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import wandb

from benchmark.tracking.runs import log_run
from tests.benchmark.factory import make_failed, make_record
from tests.benchmark.tracking.wandb_files import read, run_files


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the caller's own set-up, and no staging of artifacts outside the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))


def test_a_record_is_a_run_with_its_id_group_config_metrics_layers_and_artifact(tmp_path: Path) -> None:
    record = make_record("sbc", 0.1, seed=3, accuracy=0.87, suite="tiny")
    log_run(record, tmp_path)
    (path,) = run_files(tmp_path)
    found = read(path)
    run = found["run"]
    assert (run.run_id, run.display_name, run.run_group, run.job_type, run.project) == (
        record.id, record.question.label, "tiny", "post-training", "snnbench",
    )  # fmt: skip
    assert found["config"]["compressor"] == {"name": "sbc"}
    assert found["config"]["density"] == 0.1
    assert found["config"]["data"]["fingerprint"] == record.data["fingerprint"]
    assert found["config"]["environment"]["packages"] == {"torch": "2.15.0"}
    summary, cost = found["summary"], record.answer.cost
    assert summary["accuracy"] == 0.87
    assert summary["synops_ac"] == sum(layer.ac for layer in cost.layers) / cost.samples
    assert summary["synops_mac"] == sum(layer.mac for layer in cost.layers) / cost.samples
    assert summary["stored_bits"] == sum(min(layer.memory_bits.values()) for layer in cost.layers)
    assert summary["density"] == record.answer.compression.density
    assert summary["seconds/compress"] == 2.5
    assert found["exit_code"] == 0

    table = json.loads((path.parent / "files" / summary["layers.path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["layer"] for row in rows] == ["conv1", "fc", "lif1", "total"]
    assert [row["density"] for row in rows[:2]] == [layer.nonzero / layer.weights for layer in cost.layers]
    assert sum(row["ac"] for row in rows[:2]) == rows[-1]["ac"] == summary["synops_ac"]

    (artifact,) = [a for a in found["artifacts"] if a.type == "record"]
    assert artifact.name == f"record-{record.id}"
    kept = Path(artifact.manifest.contents[0].local_path).read_text()
    assert json.loads(kept) == record.model_dump(mode="json")


def test_several_runs_in_one_process_leave_nothing_open(tmp_path: Path) -> None:
    before = dict(os.environ)
    records = [make_record("sbc", 0.1, seed) for seed in range(3)]
    for record in records:
        log_run(record, tmp_path)
    assert wandb.run is None
    changed = {name for name in before | os.environ if before.get(name) != os.environ.get(name)}
    assert changed <= {"WANDB_SERVICE"}  # wandb's own address of its background service, for child processes
    assert {read(path)["run"].run_id for path in run_files(tmp_path)} == {record.id for record in records}


def test_a_run_of_the_callers_own_stays_open_and_untouched(tmp_path: Path) -> None:
    mine = wandb.init(mode="offline", dir=tmp_path / "mine", id="mine", settings=wandb.Settings(silent=True))
    try:
        log_run(make_record("sbc", 0.1), tmp_path)
        assert wandb.run is mine
    finally:
        mine.finish()
    assert "accuracy" not in read(run_files(tmp_path / "mine")[0])["summary"]


def test_a_failed_run_is_logged_as_failed(tmp_path: Path) -> None:
    log_run(make_failed("sbc", 0.1, error="ValueError: broken"), tmp_path)
    found = read(run_files(tmp_path)[0])
    assert (found["summary"]["status"], found["summary"]["error"]) == ("failed", "ValueError: broken")
    assert found["exit_code"] == 1
    assert "layers.path" not in found["summary"]


def test_the_dense_network_has_a_job_type_of_its_own(tmp_path: Path) -> None:
    log_run(make_record(), tmp_path)
    assert read(run_files(tmp_path)[0])["run"].job_type == "dense"


def test_environment_variables_are_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log_run(make_record("sbc", 0.1), tmp_path)
    assert not run_files(tmp_path)
    assert read(run_files(tmp_path / "elsewhere")[0])["run"].project == "mine"

    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_run(make_record("sbc", 0.1, seed=1), tmp_path)
    assert len(run_files(tmp_path / "elsewhere")) == 1


@pytest.mark.parametrize(
    ("variables", "mode"),
    [({}, "offline"), ({"WANDB_API_KEY": "k"}, "online"), ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline")],
    ids=["no key", "key", "key, but offline asked for"],
)
def test_online_only_with_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: str
) -> None:
    asked = {}

    def init(**arguments: object) -> None:
        asked.update(arguments)
        raise wandb.Error("stop here")

    monkeypatch.setattr(wandb, "init", init)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    log_run(make_record("sbc", 0.1), tmp_path)
    assert asked["mode"] == mode


@pytest.mark.parametrize("where", ["wandb.init", "wandb.Table", "wandb.Artifact.new_file"])
def test_a_fault_is_one_warning_that_names_run_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("No space left\non device")

    record = make_record("sbc", 0.1)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "benchmark"):
        patch.setattr(where, broken)
        log_run(record, tmp_path)
    (message,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("benchmark")]
    assert record.id in message
    assert "No space left on device" in message
    assert "--no-wandb" in message
    assert wandb.run is None

    log_run(record, tmp_path)  # and the next one goes through
    assert read(run_files(tmp_path)[-1])["exit_code"] == 0


def test_a_record_whose_cost_makes_no_sense_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = make_record("sbc", 0.1)
    record.cost = replace(record.answer.cost, samples=0)
    with caplog.at_level(logging.WARNING, "benchmark"):
        log_run(record, tmp_path)
    assert "ZeroDivisionError" in caplog.text
    assert read(run_files(tmp_path)[0])["exit_code"] == 1
