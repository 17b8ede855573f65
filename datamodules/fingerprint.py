"""The fingerprint of a set of files: what is in them, not where or when they were written."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datamodules.files import checksum, replacing
from datamodules.storage import cache_folder, unwritable

FINGERPRINT = re.compile(rb"[0-9a-f]{64}")


def fingerprint_files(root: Path, paths: Sequence[str]) -> str:
    """SHA-256 over the sorted list of (relative path, size, SHA-256 of the content).

    The result is remembered in the cache folder for files whose sizes and modification times have not changed,
    so that a second call reads no content; where that folder cannot be written, nothing is remembered.

    Args:
        root: folder of the set.
        paths: files of the set, relative to `root`, with forward slashes.
    """
    listing = sorted((path, *_size_and_time(root / path)) for path in paths)
    memo = cache_folder() / "fingerprints" / _digest([str(root.resolve()), listing])
    if memo.is_file() and FINGERPRINT.fullmatch(known := memo.read_bytes()):
        return known.decode()
    contents = hash_files(root, [path for path, _, _ in listing])
    fingerprint = _digest([[path, size, contents[path]] for path, size, _ in listing])
    try:
        with replacing(memo) as partial:
            partial.write_text(fingerprint)
    except OSError as error:
        unwritable(error)
    return fingerprint


def hash_files(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the content of each file, in parallel: hashing releases the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(_sha256, [root / path for path in paths]), strict=True))


def combine(*facts: object) -> str:
    """One SHA-256 for several JSON-able facts."""
    return _digest(facts)


def _sha256(path: Path) -> str:
    return checksum(path, "sha256")


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
