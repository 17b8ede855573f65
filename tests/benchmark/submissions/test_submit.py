"""The way of a record into the tables: the command, the files of a pull request, and its review."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from benchmark.boards.columns import COLUMNS
from benchmark.boards.page.content import content
from benchmark.boards.standings import standings
from benchmark.cli import main
from benchmark.records import RecordStore, Submission, read_record
from benchmark.submissions import again
from benchmark.submissions.changes import changes
from datamodules.errors import CalibrationTooLarge
from tests.benchmark.factory import make_record, make_suite_records
from tests.benchmark.submissions.test_checks import LATER, record, stored, submitted, twice
from tests.end_to_end.pages import parse

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def call(*words: Any) -> Result:
    return CliRunner().invoke(main, ["submit", *map(str, words)])


def test_a_pull_request_has_the_records_in_their_places_and_a_text(tmp_path: Path) -> None:
    RecordStore(Path("results")).save(make_record(seed=0))
    one = record()
    done = call(*twice(tmp_path, one), "--by", "me", "--hardware", "a laptop")
    assert done.exit_code == 0, done.output
    (path,) = Path("submission").rglob("*.json")
    assert path == Path("submission/results/records/nmnist/conv") / f"{one.id}.json"
    written = read_record(path)
    assert written.submission == Submission(by="me", hardware="a laptop", repeated=LATER)
    assert written.model_copy(update={"submission": None}).model_dump() == one.model_dump()
    text = Path("submission/pull-request.md").read_text()
    assert "# 1 of 1 records pass" in text
    assert "- submitted by: me" in text
    assert "| new | N-MNIST" in text
    reviewed = call(path, "--review", "--results", "submission/results")
    assert reviewed.exit_code == 0, reviewed.output


def test_nothing_is_written_where_a_check_fails(tmp_path: Path) -> None:
    done = call(stored(tmp_path, record()), "--by", "me", "--json")
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert not found["passed"]
    assert [check["name"] for check in found["records"][0]["checks"] if check["passed"] is False] == ["two runs"]
    assert not Path("submission").exists()


def test_it_has_to_be_said_whose_records_they_are(tmp_path: Path) -> None:
    done = call(stored(tmp_path, record()))
    assert done.exit_code == 2
    assert "--by" in done.output


@pytest.mark.parametrize(
    "said",
    [
        ("--by", "x" * 101),
        ("--by", "a\nb"),
        ("--by", "me", "--hardware", "\x1b[2J"),
        ("--by", "me", "--code", "\u202e"),
    ],
)
def test_what_cannot_stand_in_a_record_is_told_before_the_work(tmp_path: Path, said: tuple[str, ...]) -> None:
    done = call(*twice(tmp_path, record()), *said)
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {said[-2]}: ")
    assert len(done.output.splitlines()) == 1
    assert not Path("submission").exists()


def test_texts_of_records_are_no_markup_in_the_report(tmp_path: Path) -> None:
    one = make_record({"name": "x", "note": "<img>|"}, 0.1)
    done = call(*twice(tmp_path, one), "--by", "<script>|")
    assert "<img" not in done.output
    assert "<script" not in done.output


# what would change ---------------------------------------------------------------------------------------------------


def test_changes_are_rows_that_come_change_and_go() -> None:
    before = make_suite_records(seeds=(0, 1))
    assert changes(standings(before), standings(before)) == ["Nothing changes."]
    best = make_record("obc", 0.03, 2, accuracy=0.99)
    lines = changes(standings(before), standings([*before, best]))
    (changed,) = [line for line in lines if line.startswith("| changed") and "| obc |" in line]
    assert "| 0.03 |" in changed
    new = make_record({"name": "obc", "variant": "paper"}, 0.03, 0, accuracy=0.99)
    assert sum(line.startswith("| new |") for line in changes(standings(before), standings([*before, new]))) == 1
    fewer = [each for each in before if each.question.compressor.name != "random"]
    assert sum(line.startswith("| gone |") for line in changes(standings(before), standings(fewer))) == 5
    other = make_record("sbc", 0.1, 0, checkpoint="another")
    assert any("not in a table" in line for line in changes(standings(before[1:]), standings([*before[1:], other])))


def test_a_report_is_marked_in_every_table_and_its_origin_stands_on_its_page() -> None:
    own, theirs = make_record("sbc", 0.1), submitted("theirs")
    board = standings([own, theirs])
    names = {row.method: COLUMNS["method"](row) for row in board.tables[0].rows}
    assert names == {"sbc": "sbc", "theirs": "theirs (r)"}
    runs = content(board)["runs"]
    assert "reported by its author" in runs[theirs.id]["facts"]["to be made again"]
    assert "submitted by" not in runs[own.id]["facts"]


# run again -----------------------------------------------------------------------------------------------------------


def test_only_cheap_rows_that_anybody_can_make_are_asked_again() -> None:
    dear = record(seed=1).model_copy(update={"seconds": {"fit": 10_000.0}})
    assert again.cheap([submitted("theirs"), dear, record(seed=2)]) == [record(seed=2)]


def test_where_none_can_be_asked_again_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNNBENCH_DATA", str(tmp_path / "nothing"))
    found = again.run_again([record(), submitted("theirs")], 0)
    assert found.passed is None
    assert "none of 2" in found.found


@pytest.mark.parametrize(
    ("accuracy", "fate", "passed"),
    [(0.9, {}, True), (0.89, {}, False), (0.9, {"id": "0" * 12}, False), (0.9, {"status": "failed"}, False)],
)
def test_a_row_asked_again_agrees_with_a_true_one_and_with_no_other(
    monkeypatch: pytest.MonkeyPatch, accuracy: float, fate: dict[str, Any], passed: bool
) -> None:
    one = record()
    came_out = record(accuracy=accuracy).model_copy(update={"created": LATER, **fate})
    opened = SimpleNamespace(run=lambda question: SimpleNamespace(id=came_out.id, question=question))
    monkeypatch.setattr(again, "OpenedData", lambda setting: opened)
    monkeypatch.setattr(again, "answer", lambda run, suite, data, setting: came_out)
    found = again.run_again([one], 0)
    assert found.passed is passed, found.found
    assert one.id in found.found


def test_a_question_that_cannot_be_asked_here_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(one: Any) -> Any:
        raise CalibrationTooLarge("ask for fewer")

    monkeypatch.setattr(again, "_compared", too_many)
    found = again.run_again([record()], 0)
    assert found.passed is False
    assert found.found.endswith("ask for fewer")


def test_chance_decides_which_row_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "_compared", lambda one: again.Check("run again", True, one.id))
    rows = [record(seed=seed) for seed in range(8)]
    chosen = [again.run_again(rows, seed).found for seed in range(20)]
    assert chosen == [again.run_again(rows, seed).found for seed in range(20)]
    assert len({*chosen}) > 3


# the workflow --------------------------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_the_workflow_checks_what_a_pull_request_brings_by_the_bases_code(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / ".ci").mkdir(parents=True)
    (repository / ".ci" / "review").write_bytes((ROOT / ".ci" / "review").read_bytes())
    (repository / ".ci" / "review").chmod(0o755)
    program = tmp_path / "snnbench"
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    store = RecordStore(repository / "results")
    store.save(record(seed=1))
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "base")
    git(repository, "checkout", "-qb", "theirs")
    brought = store.save(record(seed=2)).relative_to(repository)
    (repository / ".ci" / "review").write_text("echo hostile")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "theirs")
    git(repository, "checkout", "-q", "main")

    def review(revision: str) -> str:
        environment = {**os.environ, "SNNBENCH": str(program)}
        done = subprocess.run(
            [repository / ".ci" / "review", revision, "7"], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert review("main") == "It brings no records.\n"
    words = review("theirs").split()
    assert words == ["submit", "--review", "--rerun", "7", "--", str(brought)]
    assert "hostile" not in (repository / ".ci" / "review").read_text()
    (tmp_path / brought).parent.mkdir(parents=True)
    (tmp_path / brought).touch()
    parse("snnbench " + " ".join(words))


def test_the_workflow_runs_the_script_and_posts_its_report() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/records.yml").read_text())
    assert workflow[True]["pull_request"]["paths"] == ["results/records/**"]
    steps = workflow["jobs"]["review"]["steps"]
    assert steps[0]["with"]["ref"] == "${{ github.base_ref }}"
    runs = [step.get("run", "") for step in steps]
    assert any(run.startswith(".ci/review FETCH_HEAD") for run in runs)
    assert any("gh pr comment" in run for run in runs)
    assert os.access(ROOT / ".ci" / "review", os.X_OK)
