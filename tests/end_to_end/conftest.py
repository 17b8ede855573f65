"""A tiny suite, and the command line in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmark.cli import main

REPOSITORY = Path(__file__).parents[2]

TINY = """\
name: tiny
data: [{name: digits_dvs, timesteps: 3}]
models: [{name: mlp, hidden: 8}]
compressors: [identity, random, magnitude, obc]
densities: [0.5, 0.2]
calibration_samples: 20
training: {epochs: 1, batch_size: 64}
"""
RUNS = 1 + 3 * 2


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """One cache for the tests of this folder: the simulated recordings are written once."""
    return tmp_path_factory.mktemp("end-to-end-cache")


@pytest.fixture
def environment(cache) -> dict[str, str]:
    return os.environ | {"SNNBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def hear_interrupts() -> None:
    """In a new process, before its program: Ctrl-C means what it does in a terminal.

    A shell starts what it runs in the background deaf to it, and these tests may be run there.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def snnbench(environment, tmp_path, monkeypatch) -> Callable[..., Done]:
    """Runs the command in this process, in an empty folder: the heavy imports are paid for once."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def call(*words: object) -> Done:
        result = CliRunner().invoke(main, list(map(str, words)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def snnbench_process(environment, tmp_path) -> Callable[..., Done]:
    """Runs the command in a process of its own, with ``paths`` to import from."""

    def call(*words: object, paths: Sequence[Path] = ()) -> Done:
        imports = os.pathsep.join(map(str, (REPOSITORY, *paths)))
        done = subprocess.run(
            [sys.executable, "-m", "benchmark.cli", *map(str, words)],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": imports},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def tiny(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def records(folder: Path) -> dict[str, dict]:
    """Run id -> content of every record below a results folder; torn ones fail the test that asks."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("records/*/*/*.json")}


def tiny_questions(path: Path) -> list:
    """The runs of a suite file."""
    from benchmark.questions import build
    from benchmark.questions.suite import load_suite

    suite = load_suite(path)
    return build.questions_of(suite)


class NoDisplay:
    """Shows nothing of a suite's progress."""

    def started(self, question) -> None:
        """Nothing to show."""

    def finished(self, question, record, ending) -> None:
        """Nothing to show."""
