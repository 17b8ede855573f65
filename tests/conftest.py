"""Fixtures shared by all tests: few threads, one cache for what is slow to make, tiny networks."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither use nor fill the user's caches."""
    os.environ["SNNBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["WANDB_MODE"] = "offline"
    os.environ.pop("SNNBENCH_DATA", None)


@pytest.fixture(scope="session")
def real_nmnist() -> Path:
    """The folder of real N-MNIST recordings."""
    folder = REAL_DATA / "nmnist"
    if not folder.is_dir():
        pytest.skip(f"real N-MNIST recordings are not at {folder}")
    return folder
