"""Files that are written whole or not at all, and their hashes."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class StoreError(OSError):
    """A results folder that cannot be written to."""

    exit_status = 1


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) by way of a temporary one beside it, flushed to disk before it takes the name.

    Raises:
        StoreError: the folder is read-only, full, or not a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}; free space or choose another folder with --results"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes ``path``'s place when it is complete, and leaves nothing behind otherwise.

    Raises:
        StoreError: the folder is read-only or full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
            partial = Path(folder, path.name)
            yield partial
            os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"cannot write {path}: {error}; free space or choose another folder") from error


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
