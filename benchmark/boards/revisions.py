"""Records as an earlier revision of their repository had them."""

import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmark.records import RecordStore


class RevisionError(ValueError):
    """A revision that there is not, or results that are in no repository; says which."""

    exit_status = 2


@contextmanager
def records_at(results: Path, revision: str) -> Iterator[RecordStore]:
    """The records that a results folder had at a revision, for as long as this lasts; the folder stays as it is.

    Args:
        results: a results folder within a git repository.
        revision: a commit, tag or branch, or anything else that git takes for one.

    Raises:
        RevisionError: there is no such revision, or the folder is in no repository.
    """
    if not results.is_dir():
        raise RevisionError(f"there is no folder {results}: say with --results where the records are")
    commit = _git(results, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        inside = _git(results, "rev-parse", "--show-toplevel")
        where = f"the repository {inside}" if inside else f"{results}, which is in no git repository"
        raise RevisionError(f"no revision {revision!r} in {where}: give a commit, tag or branch, as git log has them")
    with TemporaryDirectory(prefix="snnbench-at-") as folder:
        _unpack(results, commit, Path(folder))
        yield RecordStore(Path(folder))


def _unpack(results: Path, commit: str, folder: Path) -> None:
    """Put a revision's records into a folder; there may be none."""
    if not _git(results, "ls-tree", commit, "records"):
        return
    packed = folder / "records.tar"
    subprocess.run(
        ["git", "-C", str(results), "archive", "--format=tar", f"--output={packed}", commit, "records"], check=True
    )
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")


def _git(folder: Path, *words: str) -> str | None:
    """What git says in a folder; None where it refuses."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise RevisionError(f"git cannot be run ({error.strerror}): without it there are no revisions") from error
    return done.stdout.strip() if done.returncode == 0 else None
