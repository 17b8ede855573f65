"""The commands around the leaderboard, as a user calls them."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from benchmark.catalog import suite_path
from benchmark.cli import main
from benchmark.questions.build import questions_of
from benchmark.questions.suite import load_suite
from benchmark.records import RecordStore
from tests.benchmark.factory import make_record, make_suite_records
from tests.benchmark.tracking.wandb_files import read, run_files


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.delenv("WANDB_DIR", raising=False)
    store = RecordStore(tmp_path)
    for record in make_suite_records(seeds=(0, 1)):
        store.save(record)
    return tmp_path


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_leaderboard_writes_all_its_files_and_prints_json(results: Path) -> None:
    done = call("leaderboard", "--results", str(results), "--json", "--energy", "loihi1_davies")
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    assert content["energy_profile"] == "loihi1_davies"
    assert len(content["tables"][0]["rows"]) == 21
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard.csv"):
        assert (results / name).stat().st_size > 1000


def test_another_energy_profile_gives_other_joules_and_nothing_else(results: Path) -> None:
    rows = []
    for profile in ("loihi1_davies", "horowitz_sram_45nm"):
        done = call("leaderboard", "--results", str(results), "--json", "--no-write", "--energy", profile)
        rows.append([row["measured"] for row in json.loads(done.output)["tables"][0]["rows"]])
    assert not (results / "leaderboard.md").exists()
    for one, other in zip(*rows, strict=True):
        assert one["energy_j"]["mean"] != other["energy_j"]["mean"]
        assert {k: v for k, v in one.items() if k != "energy_j"} == {k: v for k, v in other.items() if k != "energy_j"}


def test_an_unknown_energy_profile_is_a_mistake_in_the_call(results: Path) -> None:
    done = call("leaderboard", "--results", str(results), "--energy", "nope")
    assert done.exit_code == 2
    assert "horowitz_sram_45nm" in done.output


def test_compare_two_runs(results: Path) -> None:
    a, b = make_record("obc", 0.1), make_record("sbc", 0.1)
    done = call("compare", a.id, b.id, "--results", str(results), "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    assert content["config"] == {"question.compressor.name": ["obc", "sbc"]}
    assert content["significance"]["seeds"] == [0, 1]
    assert "layer conv1" in call("compare", a.id, b.id, "--results", str(results)).output


def test_comparing_what_is_not_there_is_a_mistake_in_the_call(results: Path) -> None:
    done = call("compare", "zzz", "yyy", "--results", str(results))
    assert done.exit_code == 2
    assert "no run 'zzz' among 42 records" in done.output


def test_sync_logs_every_stored_record_and_the_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    records = [make_record(), make_record("sbc", 0.1)]
    for record in records:
        RecordStore(tmp_path).save(record)
    done = call("wandb", "sync", "--results", str(tmp_path))
    assert (done.exit_code, done.output) == (0, "2 records logged, 0 not\n")
    found = {read(path)["run"].run_id for path in run_files(tmp_path)}
    assert found == {*(record.id for record in records), "leaderboard"}


def test_sweep_is_a_file_that_wandb_takes() -> None:
    done = call("wandb", "sweep", "smoke")
    assert done.exit_code == 0, done.output
    content = yaml.safe_load(done.output)
    assert content["command"][1:4] == ["snnbench", "run", "smoke"]
    assert len(content["parameters"]["only"]["values"]) == len(questions_of(load_suite(suite_path("smoke"))))


def test_a_run_that_the_suite_does_not_have_is_a_mistake_in_the_call(tmp_path: Path) -> None:
    done = call("run", "smoke", "--only", "no-such-run", "--results", str(tmp_path), "--no-wandb")
    assert done.exit_code == 2
    assert "make the sweep anew" in done.output


def test_a_dashboard_without_a_key_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    done = call("wandb", "dashboard", "--results", str(tmp_path))
    assert done.exit_code == 1
    assert "WANDB_API_KEY" in done.output
