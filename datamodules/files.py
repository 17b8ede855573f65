"""Files that are written whole or not at all, and what is in them."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes ``path``'s place when it is complete and on disk, and leaves nothing behind otherwise.

    It has ``path``'s name, in a folder of its own beside it. Missing folders are made.

    Raises:
        OSError: the folder is read-only, full, or not a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        partial = Path(folder, path.name)
        yield partial
        settle(partial, path)


def settle(partial: Path, path: Path) -> None:
    """Give a complete file its name, once its content is on disk: after a power failure there is no half of it.

    Raises:
        OSError: the folder is read-only or full.
    """
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def checksum(path: Path, algorithm: str) -> str:
    """Hash of a file's content, in hexadecimal digits; ``algorithm`` is a name of :mod:`hashlib`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
