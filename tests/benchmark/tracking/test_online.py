"""Weights & Biases online, against a local stand-in of its API: created, resumed, failed, refused, network gone."""

import json
import logging
from pathlib import Path

import pytest
import wandb
import yaml

from benchmark.boards.standings import standings
from benchmark.questions.build import questions_of
from benchmark.questions.suite import Suite
from benchmark.records import RecordStore
from benchmark.tracking import runs as wandb_board
from benchmark.tracking.board import log_board, sync
from benchmark.tracking.dashboard import DashboardError, create, workspace
from benchmark.tracking.runs import SuiteLog, log_run
from benchmark.tracking.sweep import SweepError, as_yaml, key, only, sweep
from tests.benchmark.factory import make_failed, make_record, make_suite_records
from tests.benchmark.tracking.wandb_files import read, run_files
from tests.benchmark.tracking.wandb_server import ENTITY, Backend


def stored_record(store: RecordStore, **changes: object) -> tuple:
    record = make_record("sbc", 0.1, **changes)  # type: ignore[arg-type]
    path = store.save(record)
    return record, path, path.read_bytes()


def test_a_run_is_created_with_its_numbers_artifacts_and_lineage(backend: Backend, tmp_path: Path) -> None:
    checkpoint = tmp_path / "dense.safetensors"
    checkpoint.write_bytes(b"weights")
    record = make_record("sbc", 0.1, seed=11, accuracy=0.87)
    assert log_run(record, tmp_path, checkpoint=checkpoint)
    assert list(backend.runs) == [record.id]
    run = backend.runs[record.id]
    assert (run["groupName"], run["jobType"], run["displayName"]) == ("nmnist", "post-training", record.question.label)
    assert json.loads(run["config"])["density"]["value"] == 0.1
    assert backend.summary[record.id]["accuracy"] == 0.87
    assert backend.summary[record.id]["synops_ac"] == 1000
    assert backend.exit_codes[record.id] == 0
    kept = json.loads(backend.stored[f"record-{record.id}/record.json"])
    assert kept == record.model_dump(mode="json")
    layers = json.loads(backend.stored[f"compression-{record.id}/compression.json"])["layers"]
    assert [layer["name"] for layer in layers] == ["conv1", "fc"]
    assert record.dense is not None
    network = f"network-{record.dense.sha256[:12]}"
    assert backend.used == [(record.id, network)]
    assert backend.stored[f"{network}/network.safetensors"] == b"weights"
    assert all(artifact["committed"] for artifact in backend.artifacts.values())


def test_the_dense_control_brings_the_checkpoint(backend: Backend, tmp_path: Path) -> None:
    checkpoint = tmp_path / "dense.safetensors"
    checkpoint.write_bytes(b"weights")
    record = make_record(seed=12)
    assert log_run(record, tmp_path, checkpoint=checkpoint)
    assert record.dense is not None
    assert backend.artifacts[f"network-{record.dense.sha256[:12]}"]["run"] == record.id
    assert backend.used == []


def test_logging_again_resumes_and_never_doubles(backend: Backend, tmp_path: Path) -> None:
    assert log_run(make_failed("sbc", 0.1, seed=13), tmp_path)
    record = make_record("sbc", 0.1, seed=13, accuracy=0.8)
    assert backend.exit_codes[record.id] == 1
    assert backend.summary[record.id]["error"] == "ValueError: broken"
    assert log_run(record, tmp_path)
    assert list(backend.runs) == [record.id]
    assert backend.exit_codes[record.id] == 0
    assert backend.summary[record.id]["status"] == "done"
    assert backend.summary[record.id]["accuracy"] == 0.8


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_is_a_warning_and_the_record_is_unharmed(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    record, path, content = stored_record(RecordStore(tmp_path), seed=20 + status)
    backend.refuses, backend.status = lambda operation: operation == "UpsertBucket", status
    with caplog.at_level(logging.WARNING, "benchmark"):
        assert not log_run(record, tmp_path)
    (message,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("benchmark")]
    assert record.id in message
    assert "snnbench wandb sync" in message
    assert path.read_bytes() == content
    assert wandb.run is None


@pytest.mark.slow
def test_network_gone_in_the_middle_then_offline_then_synced(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = RecordStore(tmp_path)
    kept = [stored_record(store, seed=seed) for seed in (30, 31, 32)]
    backend.refuses, backend.status = lambda operation: "file_stream" in backend.operations, 0
    log = SuiteLog(tmp_path, tmp_path / "checkpoints")
    with caplog.at_level(logging.WARNING, "benchmark"):
        for record, _, _ in kept:
            log(record)
    assert len([entry for entry in caplog.records if entry.name.startswith("benchmark")]) == 1
    offline = {read(path)["run"].run_id for path in run_files(tmp_path)}
    assert offline == {record.id for record, _, _ in kept[1:]}
    assert all(path.read_bytes() == content for _, path, content in kept)

    backend.refuses = lambda operation: False
    assert sync(store, tmp_path, tmp_path / "checkpoints") == (3, 0)
    assert set(backend.exit_codes) >= {record.id for record, _, _ in kept}
    assert all(backend.exit_codes[record.id] == 0 for record, _, _ in kept)


def test_the_leaderboard_is_a_versioned_table_with_charts(backend: Backend, tmp_path: Path) -> None:
    board = standings(make_suite_records(seeds=(0, 1)))
    assert log_board(board, tmp_path)
    artifact = backend.artifacts["leaderboard"]
    assert (artifact["committed"], artifact["version"]) == (True, 0)
    assert "latest" in artifact["aliases"]
    assert b"# Leaderboard" in backend.stored["leaderboard/leaderboard.md"]
    charts = json.loads(backend.runs["leaderboard"]["config"])["_wandb"]["value"]["visualize"]
    assert set(charts) == {"accuracy over synops", "accuracy over stored_bits"}
    table = backend.stored["run-leaderboard-leaderboard/leaderboard.table.json"]
    assert len(json.loads(table)["data"]) == 21

    assert log_board(standings(make_suite_records(seeds=(0,))), tmp_path)
    assert backend.artifacts["leaderboard"]["version"] == 1
    assert list(backend.runs) == ["leaderboard"]


def test_the_dashboard_is_made(backend: Backend) -> None:
    addresses = create(standings(make_suite_records(seeds=(0,))), None, "snnbench")
    assert all(ENTITY in address for address in addresses)
    made_workspace, made_report = backend.views
    assert (made_workspace["entityName"], made_workspace["projectName"]) == (ENTITY, "snnbench")
    panels = [panel for section in json.loads(made_workspace["spec"])["section"]["panelBankConfig"]["sections"]
              for panel in section["panels"]]  # fmt: skip
    scatters = [panel["config"] for panel in panels if panel["viewType"] == "Scatter Plot"]
    assert {(s["xAxis"], s["yAxis"]) for s in scatters} >= {
        ("summary:synops", "summary:accuracy"),
        ("summary:stored_bits", "summary:accuracy"),
    }
    assert "sbc" in made_report["spec"]
    assert "Leaderboard" in made_report["spec"]


def test_a_dashboard_that_cannot_be_made_says_why(backend: Backend) -> None:
    backend.refuses, backend.status = lambda operation: operation == "UpsertView2", 403
    with pytest.raises(DashboardError, match="WANDB_API_KEY"):
        create(standings([make_record()]), None, "snnbench")


def test_the_plots_of_the_dashboard_are_of_metrics_that_runs_log() -> None:
    logged = set(wandb_board._metrics(make_record("sbc", 0.1)))
    text = workspace("e", "p", standings([make_record("sbc", 0.1)]))._to_model().model_dump_json(by_alias=True)
    wanted = {part.split('"')[0] for part in text.split("summary:")[1:]}
    assert wanted
    assert wanted <= logged


# sweeps --------------------------------------------------------------------------------------------------------------

SUITE = Suite.model_validate(
    {
        "name": "tiny",
        "data": [{"name": "digits_dvs", "timesteps": 4}, {"name": "digits_dvs", "timesteps": 8}],
        "models": ["mlp", {"name": "conv", "width": 8, "compressors": ["identity", "sbc"]}],
        "compressors": ["identity", "sbc", {"name": "magnitude", "allocation": "lamp"}, "magnitude"],
        "densities": [0.5, 0.1],
        "bits": [4],
        "joint": [{"density": 0.5, "bits": 3}],
        "seeds": [0, 1],
    }
)


def test_a_sweep_has_one_point_per_run_and_each_is_found_again() -> None:
    questions = questions_of(SUITE)
    content = sweep(SUITE, "tiny.yaml", Path("results"), "p", questions)
    keys = content["parameters"]["only"]["values"]
    assert len(set(keys)) == len(keys) == len(questions)
    for wanted, question in zip(keys, questions, strict=True):
        (again,) = questions_of(only(SUITE, wanted, questions))
        assert again == question
        assert again.id("f", 1) == question.id("f", 1)
    assert content["method"] == "grid"
    assert content["command"][1:4] == ["snnbench", "run", "tiny.yaml"]
    assert content["command"][-1] == "${args}"  # which wandb's agent replaces by --only=<key>
    assert yaml.safe_load(as_yaml(content)) == content


def test_a_changed_suite_is_noticed() -> None:
    wanted = key(questions_of(SUITE)[0])
    changed = SUITE.model_copy(update={"calibration_samples": (7,)})
    with pytest.raises(SweepError, match="make the sweep anew"):
        only(changed, wanted, questions_of(changed))
