"""Files as chance, a bad disk or somebody else makes them, and what every reader owes to each of them.

A test gives `fuzz` a reader, the reader's own error and a few small valid files. In `make test` a reader gets some
hundred mutations, the same ones each time. With ``FUZZ_SECONDS`` in the environment (`make fuzz`) it gets other ones
for that long.
"""

import faulthandler
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
PROGRESS_S = 30.0

EXAMPLES = 100
LIMIT_S = 5.0
"""CPU time that reading one small file may take."""

HANGS_AFTER_S = 120.0
"""Time after which the process is ended, with a traceback, as compiled code cannot be interrupted otherwise."""

LIMIT_BYTES = 1 << 30
"""Memory that reading one small file may ask the system for."""

LONGEST_BLOCK = 64
CHANGES_AT_ONCE = 4

NUMBERS = [
    *(value.to_bytes(width, order) for width in (4, 8) for order in ("little", "big") for value in (0, 1, 1_000_000)),
    *(((1 << 8 * width - 1) - 1).to_bytes(width, order) for width in (4, 8) for order in ("little", "big")),
]
"""Integers that declare lengths nobody checked."""

WORDS = [b"99999999999999999999", b"-1", b"0", b"1e999", b"null", b'"', b"{", b"[" * 2000, b"\xff\xfe", b"nan"]
"""What headers made of text do not expect."""


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The content of a file after one to four changes.

    Flipped bits, a cut, bytes that were inserted, a block that stands twice, zeros, 0xFF, an extreme integer, or an
    extreme word in place of digits.
    """
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=CHANGES_AT_ONCE)):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        data = draw(change(data, start))
    return data


def fuzz(read: Callable[[Path], Any], error: type[Exception], path: Path, *valid: bytes) -> None:
    """Assert that a reader gives a value or its own error for any bytes, in bounded time and memory.

    The error's message is one line with the file's name, and the error has an exit status.

    Args:
        read: the reader; it takes the file's path.
        error: the only error it may raise.
        path: where the mutated files are written, one after the other; the last one stays.
        valid: contents of small files, a few kB at most, that `read` can read.
    """
    for content in valid:
        path.write_bytes(content)
        read(path)
    files = 0

    def surprises_nobody(content: bytes) -> None:
        nonlocal files
        files += 1
        path.write_bytes(content)
        check_reader(read, error, path)

    if not FUZZ_SECONDS:
        _round(surprises_nobody, valid, EXAMPLES, None)
        return
    started = said = time.monotonic()
    while (now := time.monotonic()) - started < FUZZ_SECONDS:
        _round(surprises_nobody, valid, EXAMPLES, time.time_ns())
        if now - said > PROGRESS_S:
            said = now
            print(f"{path.name}: {files} files in {now - started:.0f} of {FUZZ_SECONDS:.0f} s", file=sys.stderr)
    print(f"{path.name}: {files} files, no finding", file=sys.stderr)


def check_reader(read: Callable[[Path], Any], error: type[Exception], path: Path) -> None:
    """Assert of one file what `fuzz` asserts of all."""
    started = time.process_time()
    refused = _refused(read, error, path)
    assert time.process_time() - started < LIMIT_S
    if refused is not None:
        message = str(refused)
        assert path.name in message, f"the message does not name the file: {message}"
        assert "\n" not in message, f"the message is more than a line: {message}"
        assert getattr(refused, "exit_status", None) in (1, 2, 3)


def _refused(read: Callable[[Path], Any], error: type[Exception], path: Path) -> Exception | None:
    try:
        with bounded():
            read(path)
    except error as refused:
        return refused
    return None


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, the process may ask for no more than `LIMIT_BYTES` on top of what it has, and is ended if it hangs."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT_BYTES, before[1]))
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


def _round(check: Callable[[bytes], None], valid: tuple[bytes, ...], examples: int, number: int | None) -> None:
    """Check mutations of the valid files: the same ones each time, or those of a number."""
    contents = st.sampled_from(valid).flatmap(mutated)
    run = settings(
        max_examples=examples,
        deadline=None,
        derandomize=number is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(contents)(check))
    (run if number is None else seed(number)(run))()


def _flip(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    byte = data[start : start + 1]
    return st.integers(1, 255).map(lambda bits: _overwrite(data, start, bytes(old ^ bits for old in byte)))


def _cut(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return st.just(data[:start])


def _insert(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=LONGEST_BLOCK).map(lambda new: data[:start] + new + data[start:])


def _repeat(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return _lengths.map(lambda length: data[: start + length] + data[start:])


def _remove(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return _lengths.map(lambda length: data[:start] + data[start + length :])


def _zero(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return _lengths.map(lambda length: _overwrite(data, start, bytes(length)))


def _fill(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return _lengths.map(lambda length: _overwrite(data, start, b"\xff" * length))


def _number(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    return st.sampled_from(NUMBERS).map(lambda number: _overwrite(data, start, number))


def _word(data: bytes, start: int) -> st.SearchStrategy[bytes]:
    digits = re.compile(rb"\d+").search(data, start)
    begin, end = digits.span() if digits else (start, start)
    return st.sampled_from(WORDS).map(lambda word: data[:begin] + word + data[end:])


def _overwrite(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


_lengths = st.integers(1, LONGEST_BLOCK)
CHANGES = [_flip, _cut, _insert, _repeat, _remove, _zero, _fill, _number, _word]
