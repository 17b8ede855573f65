"""Files that are written whole or not at all, which of them there are, and what is in them."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from datamodules.errors import DataCorrupt

ABANDONED_S = 24 * 3600
"""Age at which an unfinished file is one that nobody will finish."""


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


def sweep(folder: Path, *patterns: str) -> None:
    """Remove what killed processes left in a folder: what matches a pattern and has not been touched for a day.

    A lock that somebody holds stays, however old its file is.
    """
    abandoned = time.time() - ABANDONED_S
    for left in [path for pattern in patterns for path in folder.glob(pattern)]:
        if left.lstat().st_mtime > abandoned:
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        elif left.suffix == ".lock":
            _remove_lock(left)
        else:
            left.unlink(missing_ok=True)


def _remove_lock(path: Path) -> None:
    try:
        with FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
    except Timeout:
        return


def checksum(path: Path, algorithm: str) -> str:
    """Hash of a file's content, in hexadecimal digits; ``algorithm`` is a name of :mod:`hashlib`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def files_in(folder: Path, endings: Collection[str]) -> list[Path]:
    """Files of a folder with one of the endings (in lower case, such as ".bin"), in order, without hidden ones.

    Raises:
        DataCorrupt: one that has such a name is no file, as a folder or a link to nowhere.
    """
    return _as_files(entry for entry in _entries(folder) if Path(entry.name).suffix.lower() in endings)


def file_in(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, or None where nothing has the name.

    Raises:
        DataCorrupt: what has the name is no file, as a folder or a link to nowhere.
    """
    return next(iter(_as_files(entry for entry in _entries(folder) if entry.name == name)), None)


def folders_in(folder: Path) -> list[Path]:
    """Folders of a folder, in order, without hidden ones.

    Raises:
        DataCorrupt: a link leads to nowhere.
    """
    for entry in (entries := _entries(folder)):
        if not entry.is_file() and not entry.is_dir():
            raise DataCorrupt(f"{entry.path}: is {_nature(entry)}, where a folder was expected; remove or replace it")
    return [Path(entry.path) for entry in entries if entry.is_dir()]


def _as_files(entries: Iterable[os.DirEntry[str]]) -> list[Path]:
    """The paths of entries that have to be files."""
    paths = []
    for entry in entries:
        if not entry.is_file():
            raise DataCorrupt(f"{entry.path}: is {_nature(entry)}, where a file was expected; remove or replace it")
        paths.append(Path(entry.path))
    return paths


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, in order of the names; nothing where there is no folder."""
    if not folder.is_dir():
        if folder.is_symlink():
            raise DataCorrupt(f"{folder}: is a link that leads to no folder; remove or replace it")
        if folder.exists():
            raise DataCorrupt(f"{folder}: is no folder, where one was expected; remove or replace it")
        return []
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _nature(entry: os.DirEntry[str]) -> str:
    if entry.is_dir():
        return "a folder"
    return "a link to nowhere" if entry.is_symlink() else "no file"
