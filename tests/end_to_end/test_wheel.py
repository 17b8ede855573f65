"""The built wheel is whole: what it lacks, an installation lacks."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmark.distribution import COMMAND, installed
from tests.end_to_end.conftest import REPOSITORY

PACKAGES = ("benchmark", "compressors", "datamodules", "hardware")
ABOUT = ("pyproject.toml", "README.md", "LICENSE")

LOOK = """
import json
from importlib.resources import files
from benchmark.boards.page import render
from benchmark.boards.standings import standings
from benchmark.catalog import suites
from benchmark.distribution import installed
from hardware.catalog import energy_profiles
from hardware.chips import chips
found = {
    "network": (files("benchmark") / "smoke" / "dense.safetensors").is_file(),
    "bounds": (files("benchmark") / "smoke" / "bounds.json").is_file(),
    "demo": "demo" in suites(), "page": len(render(standings([]))) > 10**6, "chips": len(chips()),
    "profiles": len(energy_profiles()),
}
print(json.dumps([installed().metadata["Name"], str(files("benchmark")), found]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git knows, as a clone has it."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is not installed: pip install setuptools")
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no checkout: only git tells which files belong to the project")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (
            name.partition("/")[0] in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
            and (REPOSITORY / name).exists()
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, target], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    known = {name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()}
    assert len(known) > 200
    assert known - packed == set()
    assert {name.partition("/")[0] for name in packed} == {
        *PACKAGES,
        f"{'-'.join(wheel.name.split('-')[:2])}.dist-info",
    }


def test_the_installed_wheel_knows_itself_and_finds_its_files(wheel, tmp_path):
    """In a folder of its own, without the checkout on Python's path."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    name, file, found = json.loads(done.stdout)
    assert name == "snnbench-compression"
    assert file.startswith(str(tmp_path))
    assert all(found.values()), found


def test_the_command_is_found_whatever_its_distribution_is_called():
    assert installed().version
    assert [script.name for script in installed().entry_points if script.group == "console_scripts"] == [COMMAND]
