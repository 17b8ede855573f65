"""A tiny suite, and the command line in processes of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def snnbench(environment, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command in an empty folder."""

    def call(*words: object, **extra: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "benchmark.cli", *map(str, words)],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(REPOSITORY)} | extra,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


@pytest.fixture
def tiny(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def records(folder: Path) -> dict[str, dict]:
    """Run id -> content of every record below a results folder; torn ones fail the test that asks."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("records/*/*/*.json")}
