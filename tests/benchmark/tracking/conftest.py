"""A stand-in of Weights & Biases, for tests of what is told online."""

import os
from collections.abc import Iterator

import pytest
import wandb

from benchmark.tracking import runs as wandb_board
from tests.benchmark.tracking.wandb_server import Backend, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The stand-in, to which all that wandb does in this module goes; wandb reads its settings once and keeps them."""
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
            patch.delenv(name)
        patch.setenv("WANDB_BASE_URL", server.backend.url)
        patch.setenv("WANDB_API_KEY", "0" * 40)
        for folder in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{folder}_DIR", str(tmp_path_factory.mktemp(folder.lower())))
        wandb.teardown()
        yield server
        wandb.teardown()
    server.stop()


@pytest.fixture
def backend(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """What the stand-in was told in this test; nothing may be asked for that it does not know."""
    vars(server.backend).update(vars(Backend(url=server.backend.url)))
    monkeypatch.setattr(wandb_board, "PATIENCE_S", 5.0)
    yield server.backend
    assert server.backend.unknown == []
