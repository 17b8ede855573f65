"""Files from the network: resumed where they broke off, checked, unpacked."""

import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from datamodules.errors import DataCorrupt, DataMissing
from datamodules.files import checksum, settle

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30


@dataclass(frozen=True)
class Download:
    """A file that somebody publishes.

    Args:
        url: where it is.
        filename: its name in the folder that it is fetched into, or its path in there.
        md5: of its content, as published.
        holds: archives inside it that are unpacked in their place.
    """

    url: str
    filename: str
    md5: str
    holds: tuple[str, ...] = ()


def fetch_and_unpack(archive: Download, root: Path) -> None:
    """Fetch an archive into `root` unless it is there, check it and unpack it.

    Raises:
        DataMissing: it cannot be fetched; what has arrived so far is kept, and the next call goes on from there.
        DataCorrupt: what arrived is not what was published, and was removed; or it cannot be unpacked.
    """
    _unpack(fetch(archive, root), archive.holds)


def fetch(download: Download, root: Path) -> Path:
    """Fetch a file into `root` unless it is there, and check it.

    Raises:
        DataMissing: it cannot be fetched; what has arrived so far is kept, and the next call goes on from there.
        DataCorrupt: what arrived, or was there, is not what was published, and was removed.
    """
    target = root / download.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        _check(target, download)
        return target
    unfinished = target.with_name(target.name + ".part")
    _append(download.url, unfinished)
    _check(unfinished, download)
    settle(unfinished, target)
    return target


def _unpack(archive: Path, inner: tuple[str, ...]) -> None:
    """Put what the archive holds beside it, whole: a half would pass for a set used in part.

    What is there already stays.
    """
    from torchvision.datasets.utils import extract_archive  # torch comes with it, which names and places do not need

    unfinished = archive.with_name(archive.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        extract_archive(str(archive), str(unfinished))
        for name in inner:
            extract_archive(str(unfinished / name), str(unfinished), remove_finished=True)
        _move_missing(unfinished, archive.parent)
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataCorrupt(f"{archive} cannot be unpacked into {archive.parent}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_missing(source: Path, target: Path) -> None:
    """Move into a folder what it has not, and likewise into the folders that both have."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not place.exists():
            entry.rename(place)
        elif entry.is_dir() and place.is_dir():
            _move_missing(entry, place)


def _append(url: str, target: Path) -> None:
    """Append to `target` what is missing of it.

    Raises:
        DataMissing: the address does not answer, or the connection closed early; what has arrived is kept.
    """
    have = target.stat().st_size if target.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "snnbench", "Range": f"bytes={have}-"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            resumed = response.status == HTTPStatus.PARTIAL_CONTENT
            length = int(response.headers.get("Content-Length") or 0)
            chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
            _write(chunks, target, have if resumed else 0, length)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise DataMissing(f"{url} answers {error.code} {error.reason}") from error
        # the file was whole already: its checksum says whether it is right
    except OSError as error:
        raise DataMissing(f"{url} cannot be fetched: {error}") from error


def _write(chunks: Iterable[bytes], target: Path, have: int, length: int) -> None:
    columns = (TextColumn(target.stem), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with target.open("ab" if have else "wb") as file, Progress(*columns) as progress:
        task = progress.add_task("", total=have + length or None, completed=have)
        for chunk in chunks:
            file.write(chunk)
            progress.advance(task, len(chunk))
    if length and target.stat().st_size < have + length:
        raise DataMissing(f"{target}: the connection closed early; run the command again, and it goes on")


def _check(path: Path, download: Download) -> None:
    md5 = checksum(path, "md5")
    if md5 != download.md5:
        path.unlink()
        raise DataCorrupt(
            f"{path.name} from {download.url} has md5 {md5} instead of {download.md5}; it was removed, fetch it again"
        )
