"""Dense, compressed, NIR: what one compression leaves is what the next one uses, by the content of the files alone."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from benchmark.files import sha256
from benchmark.tracking.lineage import log_compression
from benchmark.tracking.runs import log_run
from tests.benchmark.factory import make_record
from tests.benchmark.tracking.wandb_files import read, run_files
from tests.benchmark.tracking.wandb_server import Backend


def written(folder: Path, before: Path, name: str, content: bytes) -> dict[str, Any]:
    """The summary of a compression, with its three files."""
    after = folder / name
    after.write_bytes(content)
    summary = {
        "checkpoint": str(before), "sha256": sha256(before), "output": str(after), "method": "sbc",
        "data": {"name": "d"},
        "dense": {"accuracy": 0.9, "synops": 10.0}, "compressed": {"accuracy": 0.8, "synops": 4.0},
        "compression": {"layers": [{"name": "fc", "weights": 4, "kept": 2, "density": 0.5, "loss": None}]},
    }  # fmt: skip
    for suffix in (".json", ".map.json"):
        after.with_suffix(suffix).write_text(json.dumps(summary))
    return summary


def network(file: Path) -> str:
    return f"network-{sha256(file)[:12]}"


def test_the_line_goes_from_the_suite_s_dense_network_to_the_nir_file(backend: Backend, tmp_path: Path) -> None:
    dense = tmp_path / "dense.safetensors"
    dense.write_bytes(b"dense")
    record = make_record(seed=50)
    assert record.dense is not None
    record.dense = record.dense.model_copy(update={"sha256": sha256(dense)})
    assert log_run(record, tmp_path, checkpoint=dense)
    assert log_compression(written(tmp_path, dense, "small.safetensors", b"small"))
    small, nir = tmp_path / "small.safetensors", tmp_path / "small.nir"
    assert log_compression(written(tmp_path, small, "small.nir", b"graph"))

    (first, second) = [run for run in backend.runs if run.startswith("compress-")]
    assert backend.used == [(first, network(dense)), (second, network(small))]
    made = {name: artifact["run"] for name, artifact in backend.artifacts.items()}
    assert made[network(small)] == first
    assert made[network(nir)] == second
    assert backend.stored[f"{network(nir)}/network.nir"] == b"graph"
    account = network(small).replace("network", "compression")
    assert json.loads(backend.stored[f"{account}/compression.map.json"])["method"] == "sbc"
    assert backend.artifacts[network(dense)]["version"] == 0  # the same content is no other version
    assert backend.summary[first]["accuracy"] == 0.8
    assert backend.summary[first]["dense/accuracy"] == 0.9


def test_offline_the_network_that_it_came_from_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    dense = tmp_path / "dense.safetensors"
    dense.write_bytes(b"dense")
    assert log_compression(written(tmp_path, dense, "small.safetensors", b"small"), mode="offline")
    found = read(run_files(tmp_path)[-1])
    assert found["config"]["sha256"] == sha256(dense)
    assert network(tmp_path / "small.safetensors") in [artifact.name for artifact in found["artifacts"]]


def test_every_file_that_was_written_is_logged(backend: Backend, tmp_path: Path) -> None:
    dense, nir = tmp_path / "dense.safetensors", tmp_path / "small.nir"
    dense.write_bytes(b"dense")
    nir.write_bytes(b"graph")
    assert log_compression(written(tmp_path, dense, "small.safetensors", b"small") | {"also": {str(nir): 5}})
    assert {network(tmp_path / "small.safetensors"), network(nir)} <= backend.artifacts.keys()


def test_a_fault_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dense = tmp_path / "dense.safetensors"
    dense.write_bytes(b"dense")
    summary = written(tmp_path, dense, "small.safetensors", b"small")
    (tmp_path / "small.map.json").unlink()
    with caplog.at_level(logging.WARNING, "benchmark"):
        assert not log_compression(summary, mode="offline")
    assert "small.map.json" in caplog.text
