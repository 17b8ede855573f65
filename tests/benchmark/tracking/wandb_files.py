"""Reads back what wandb wrote offline: a ``.wandb`` file is a log of protobuf records in LevelDB's block format."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, FILE_HEADER, PIECE_HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def logged(path: Path) -> Iterator[Any]:
    """The protobuf records of a file, in order."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    offset, parts = FILE_HEADER, b""
    while offset + PIECE_HEADER <= len(content):
        room = BLOCK - offset % BLOCK
        if room < PIECE_HEADER:  # too small for another piece: padding
            offset += room
            continue
        length, kind = struct.unpack_from("<HB", content, offset + 4)
        if offset + PIECE_HEADER + length > len(content):  # still being written
            return
        piece = content[offset + PIECE_HEADER : offset + PIECE_HEADER + length]
        offset += PIECE_HEADER + length
        parts = piece if kind in (FULL, FIRST) else parts + piece
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def run_files(results: Path) -> list[Path]:
    """The files of all offline runs, oldest first."""
    return sorted(results.glob("wandb/offline-run-*/run-*.wandb"))


def read(path: Path, patience_s: float = 10) -> dict[str, Any]:
    """The run (id, name, group, ...), its config, its summary, its artifacts and its exit code.

    wandb's background service may write the end of the file a moment after ``finish()``: it is waited for.
    """
    deadline = time.monotonic() + patience_s
    while (found := _read(path))["exit_code"] is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"config": {}, "summary": {}, "artifacts": [], "exit_code": None}
    for record in logged(path):
        match record.WhichOneof("record_type"):
            case "run":
                found["run"] = record.run
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "summary":
                found["summary"] |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
            case "history":
                found["summary"] |= {_key(item): json.loads(item.value_json) for item in record.history.item}
            case "artifact":
                found["artifacts"].append(record.artifact)
            case "exit":
                found["exit_code"] = record.exit.exit_code
    return found


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
