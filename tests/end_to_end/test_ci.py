"""What CI runs: a browser is installed where that can be, and the tests are run either way."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("bash", "dirname", "timeout")


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def machine(tmp_path):
    """A folder of commands that is all of PATH: `make` and `apt-get` say what they are called with."""
    for name in NEEDED:
        (tmp_path / name).symlink_to(shutil.which(name))
    command(tmp_path, "make", 'echo "make $@"')
    command(tmp_path, "id", "echo 0")
    browser = tmp_path / "chromium"
    install = f'echo "apt-get $@" >> {tmp_path}/asked; echo > {browser}; /bin/chmod +x {browser}'
    command(tmp_path, "apt-get", install)
    return tmp_path


def run(machine: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci/run"], env={**os.environ, "PATH": str(machine)}, capture_output=True, text=True)


def asked(machine: Path) -> list[str]:
    log = machine / "asked"
    return log.read_text().splitlines() if log.exists() else []


def test_a_missing_browser_is_installed_and_the_tests_run(machine):
    done = run(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "make test\n", "")
    assert asked(machine) == ["apt-get update", "apt-get install --yes --no-install-recommends chromium"]


@pytest.mark.parametrize("browser", ["chromium", "google-chrome"])
def test_a_browser_that_is_there_is_used(machine, browser):
    command(machine, browser, "")
    assert run(machine).stdout == "make test\n"
    assert asked(machine) == []


@pytest.mark.parametrize("lack", ["root", "network", "apt-get"])
def test_where_it_cannot_be_installed_a_line_says_so_and_the_tests_run(machine, lack):
    if lack == "apt-get":
        (machine / "apt-get").unlink()
    else:
        command(machine, *{"root": ("id", "echo 1000"), "network": ("apt-get", "echo no network >&2; exit 100")}[lack])
    done = run(machine)
    assert done.returncode == 0
    assert done.stderr == ""
    said, made = done.stdout.splitlines()
    assert said.endswith("the tests of the page are skipped.")
    assert made == "make test"


def test_the_exit_status_is_that_of_the_tests(machine):
    command(machine, "make", "exit 2")
    assert run(machine).returncode == 2


def test_the_workflow_runs_the_same():
    assert "- run: .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()
