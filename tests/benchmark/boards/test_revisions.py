"""The leaderboard as it was: records of an earlier revision."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmark.boards.revisions import RevisionError, records_at
from benchmark.cli import main
from benchmark.records import RecordStore
from tests.benchmark.factory import make_record


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder in a repository: first nothing, then a record, then its method's next version."""
    folder = tmp_path / "repository" / "results"
    folder.mkdir(parents=True)
    (folder / "note").touch()
    git(folder.parent, "init", "-q", "-b", "main")
    commits = [[], [make_record(), make_record("sbc", 0.1, accuracy=0.5)], [make_record("sbc", 0.1, version=2)]]
    for tag, records in zip(("empty", "first", "second"), commits, strict=True):
        for record in records:
            RecordStore(folder).save(record)
        git(folder, "add", "-A", ".")
        git(folder, "commit", "-qm", tag)
        git(folder, "tag", tag)
    return folder


def call(results: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["leaderboard", "--results", str(results), *words])


@pytest.mark.parametrize(
    ("revision", "records"), [("empty", 0), ("first", 2), ("HEAD~1", 2), ("second", 3), ("main", 3)]
)
def test_records_are_those_of_the_revision(results: Path, revision: str, records: int) -> None:
    before = sorted(results.rglob("*"))
    with records_at(results, revision) as store:
        assert len(list(store)) == records
        folder = store.results
    assert not folder.exists()
    assert sorted(results.rglob("*")) == before


def test_the_leaderboard_is_that_of_the_revision_and_nothing_is_written(results: Path) -> None:
    then = json.loads(call(results, "--at", "first", "--json").output)
    now = json.loads(call(results, "--json", "--no-write").output)
    accuracies = [
        [row["measured"]["accuracy"]["mean"] for row in board["tables"][0]["rows"] if row["method"] == "sbc"]
        for board in (then, now)
    ]
    assert accuracies == [[0.5], [0.9]]
    assert (then["tables"][0]["earlier"], len(now["tables"][0]["earlier"])) == ([], 1)
    assert not (results / "leaderboard.md").exists()


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", "-h", "first:results", ""])
def test_a_revision_that_there_is_not_is_named(results: Path, revision: str) -> None:
    with pytest.raises(RevisionError, match="no revision"), records_at(results, revision):
        pass
    if revision:
        done = call(results, f"--at={revision}")
        assert done.exit_code == 2
        assert done.output.startswith("error: no revision ")
        assert len(done.output.splitlines()) == 1


def test_a_folder_in_no_repository_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RevisionError, match=r"no git repository|no folder"), records_at(place, "HEAD"):
            pass
