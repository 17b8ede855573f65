"""Where data and caches live, and how a folder is written so that it is either whole or absent."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock


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
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            _build(folder, build)
    return folder


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
