"""Files that are written whole or not at all; a place that cannot be written is an error that says so.

How it is done is in :mod:`datamodules.files`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors import SafetensorError

from datamodules import files
from datamodules.files import checksum


class StoreError(OSError):
    """A folder that cannot be written to."""

    exit_status = 1


class OutputError(ValueError):
    """A name under which nothing can be written."""

    exit_status = 2


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes ``path``'s place when it is complete, and leaves nothing behind otherwise.

    Raises:
        StoreError: the folder is read-only, full, or not a folder.
    """
    try:
        with files.replacing(path) as partial:
            yield partial
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error


def require_writable(path: Path, *endings: str) -> None:
    """Find out before the work, rather than after it, that a file cannot be written. Nothing is written.

    Args:
        path: the file.
        endings: what its name may end in; without any, in everything.

    Raises:
        OutputError: the name ends otherwise, or is that of a folder.
        StoreError: the folder is read-only, full, or not a folder.
    """
    if endings and path.suffix not in endings:
        raise OutputError(f"cannot write {path}: let its name end in {' or '.join(endings)}, which says the format")
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> StoreError:
    reason = getattr(error, "strerror", None) or error
    remedy = "free space, or choose another folder (of results: --results, of the cache: SNNBENCH_CACHE)"
    return StoreError(f"cannot write {path}: {reason}; {remedy}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, text as UTF-8.

    Raises:
        StoreError: the folder is read-only, full, or not a folder.
    """
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files, text as UTF-8, of which none takes its place before all of them are complete.

    Raises:
        StoreError: a folder is read-only, full, or not a folder; nothing was replaced.
    """
    encoded = {path: content.encode() if isinstance(content, str) else content for path, content in contents.items()}
    with ExitStack() as stack:
        for path, content in encoded.items():
            stack.enter_context(replacing(path)).write_bytes(content)


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    return checksum(path, "sha256")
