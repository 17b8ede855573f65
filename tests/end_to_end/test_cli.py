"""The command line's manners: quick answers, suggestions, exit statuses."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from click.testing import CliRunner

from benchmark.cli import main
from benchmark.commands import checkup as checks
from benchmark.commands.checkup import build_match, checkup, folder
from tests.end_to_end.conftest import REPOSITORY

HEAVY = {
    "torch",
    "lightning",
    "spikingjelly",
    "tonic",
    "torchvision",
    "wandb",
    "matplotlib",
    "numpy",
    "sklearn",
    "pydantic",
}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["list", "--json"], ["run", "--help"], ["compress", "--help"], ["leaderboard", "--help"]],
)
def test_help_and_list_import_nothing_heavy(words):
    code = (
        "import sys; from click.testing import CliRunner; from benchmark.cli import main; "
        f"done = CliRunner().invoke(main, {words!r}); assert done.exit_code == 0, done.output; "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["compress", "--checkpoint", "x.ckpt", "--method", "sbcc"],
        ["profile", "--checkpoint", "x.ckpt", "--energy", "seneka"],
        ["leaderboard", "--energy", "seneka"],
        ["data", "verify", "nmnst"],
        ["run", "smok"],
        ["plan", "smok"],
    ],
    ids=" ".join,
)
def test_a_misspelt_name_is_answered_before_anything_heavy_is_imported(words):
    code = (
        "import sys; from click.testing import CliRunner; from benchmark.cli import main; "
        f"done = CliRunner().invoke(main, {words!r}); assert done.exit_code == 2, done.output; "
        "assert 'did you mean' in done.output, done.output; "
        f"print(sorted({HEAVY - {'pydantic'}!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_list_names_everything_that_is_registered():
    from benchmark.catalog import DATA, MODELS
    from compressors.registry import COMPRESSORS

    listing = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    assert set(listing["compressors"]) == set(COMPRESSORS)
    assert set(listing["data"]) == set(DATA)
    assert set(listing["models"]) == set(MODELS)
    assert {"smoke", "nmnist"} <= set(listing["suites"])
    assert all(summary for entries in listing.values() for summary in entries.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "smok"], "unknown suite 'smok': did you mean 'smoke'?"),
        (["leaderboard", "--energy", "seneka"], "unknown energy profile 'seneka': did you mean 'seneca'?"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbcc"], "unknown compressor 'sbcc': did you mean"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc"], "no checkpoint at x.ckpt"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc", "--density", "1.5"], "density is 1.5"),
        (["run", "smoke", "--data-root", "nmnist"], "is not key=value"),
    ],
)
def test_usage_errors_are_status_2_without_a_traceback(words, message):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_doctor_finds_this_installation_sound():
    bad = [finding for finding in checkup() if finding.state == "bad"]
    assert not bad


def test_doctor_speaks_of_a_broken_installation_instead_of_breaking(monkeypatch):
    monkeypatch.setattr(checks, "IMPORTS", ("json", "no_such_package"))

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", missing)
    findings = {finding.subject: finding for finding in checkup()}
    assert findings["torch"].state == "bad"
    assert "not installed" in findings["torch"].message
    assert findings["import json"].state == "ok"
    assert "No module named" in findings["import no_such_package"].message
    assert "not looked at" in findings["data sets"].message


@pytest.mark.parametrize(
    ("torch", "torchvision", "state"),
    [
        ("", "", "ok"),
        ("cpu", "cpu", "ok"),
        ("cpu", "", "bad"),
        ("", "cpu", "bad"),
        ("cu130", "", "ok"),
        ("cpu", "cu130", "bad"),
    ],
)
def test_doctor_knows_which_builds_fit(torch, torchvision, state):
    assert build_match(torch, torchvision).state == state


def test_doctor_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    finding = folder("cache", tmp_path / "file" / "below")
    assert finding.state == "bad"
    assert "SNNBENCH_CACHE" in finding.message
