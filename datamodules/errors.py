"""What can be wrong with the files of a data set."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataMissing(FileNotFoundError):
    """The files of a set are not where they are expected; the message says what, where, and how to get them."""

    exit_status = 3


class DataCorrupt(ValueError):
    """A file is there but cannot be used: truncated, unreadable, empty or impossible; the message names it."""

    exit_status = 1


class CalibrationTooLarge(ValueError):
    """More calibration samples are asked for than the training part has."""

    exit_status = 2


class CacheUnwritable(OSError):
    """What is made once and kept cannot be written; the message names the folder, the reason and the remedy."""

    exit_status = 1


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Inside, whatever a decoder stumbles over in a file is DataCorrupt, with the file's name.

    Decoders raise what the bytes lead them to: zlib.error, struct.error, TokenError, RuntimeError and many more. So
    put inside what depends on nothing but the file's content.

    Args:
        path: the file.
        kind: what the file should be, in words: ``"a NumPy file"``.
    """
    try:
        yield
    except DataCorrupt:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataCorrupt(f"{path}: cannot be read as {kind}: {reason}") from error
