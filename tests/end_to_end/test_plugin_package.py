"""The compressor of CONTRIBUTING.md, installed as the package of somebody else."""

import os
import re
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.test_documents import blocks

pytestmark = pytest.mark.slow

PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-package"
version = "1.0"

"""


@pytest.fixture
def environment_with_package(tmp_path) -> dict[str, str]:
    """Variables of an environment in which the guide's text is installed: module and entry point, word for word."""
    (code,), (entry_point,) = blocks("CONTRIBUTING.md", "python"), blocks("CONTRIBUTING.md", "toml")
    assert len(code.splitlines()) < 60
    source, site = tmp_path / "source", tmp_path / "site"
    (source / "my_package").mkdir(parents=True)
    (source / "my_package" / "__init__.py").write_text("")
    (source / "my_package" / "fan_out.py").write_text(code)
    (source / "pyproject.toml").write_text(PROJECT + entry_point)
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*words, "--target", site, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(REPOSITORY)]), "OMP_NUM_THREADS": "1"}


def test_the_guides_compressor_passes_the_contract_as_an_installed_package(environment_with_package):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract", "-k", "fan-out"]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment_with_package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 15, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("name", ["fan-out", "my_package.fan_out:FanOutMagnitude"])
def test_the_guides_compressor_is_checked_without_a_checkout(name, environment_with_package, tmp_path):
    words = [sys.executable, "-m", "benchmark.cli", "check", name]
    done = subprocess.run(words, cwd=tmp_path, env=environment_with_package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed, total = re.search(r"(\d+) of (\d+) checks passed", done.stdout).groups()
    assert passed == total
    assert int(total) >= 20
