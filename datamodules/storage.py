"""Where data and caches live, and how a folder is written so that it is either whole or absent."""

import logging
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import platformdirs
from filelock import FileLock

from datamodules.errors import CacheUnwritable, DataMissing

logger = logging.getLogger(__name__)


def data_folder(set_name: str) -> Path:
    """Default folder of a set: ``$SNNBENCH_DATA/<set>`` if that is set, else the user's data folder."""
    base = os.environ.get("SNNBENCH_DATA") or platformdirs.user_data_dir("snnbench")
    return Path(base).expanduser() / set_name


def cache_folder() -> Path:
    """Folder of what can be computed again: ``$SNNBENCH_CACHE`` if set, else the user's cache folder."""
    return Path(os.environ.get("SNNBENCH_CACHE") or platformdirs.user_cache_dir("snnbench")).expanduser()


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, having it written by ``build(temporary folder)`` first if it does not exist.

    The folder appears under its name only when it is complete. A second process that wants the same folder
    waits for the first; what a killed build left behind is removed by the next.

    Raises:
        CacheUnwritable: the disk is full, or the place read-only.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.is_dir():
                _build(folder, build)
    except DataMissing:  # of what the folder is built from
        raise
    except OSError as error:
        raise CacheUnwritable(_unwritable(folder, error)) from error
    return folder


def unwritable(error: OSError) -> None:
    """Say, once for a reason, that what was computed is not kept: the work goes on without it."""
    _say_once(_unwritable(cache_folder(), error))


def _unwritable(folder: Path, error: OSError) -> str:
    remedy = f"free space, or set SNNBENCH_CACHE to a folder that can be written (now {cache_folder()})"
    return f"cannot write {folder}: {error.strerror or error}; {remedy}"


@cache
def _say_once(message: str) -> None:
    logger.warning("%s; going on without the cache", message)


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        build(unfinished)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
