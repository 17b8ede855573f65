"""A process beside this one that decodes what could take it down; started on first use, kept for the next file."""

import json
import os
import signal
import subprocess
import sys
from functools import cache
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataCorrupt

SCRIPT = Path(__file__).with_name("decoders.py")


def decode(decoder: str, path: Path, kind: str) -> list[NDArray[Any]]:
    """What a decoder of :mod:`datamodules.decoders` makes of a file, without any danger to this process.

    Args:
        decoder: its name.
        path: the file.
        kind: what the file should be, in words: ``"AEDAT 4"``.

    Raises:
        DataCorrupt: the decoder refuses the file, is ended by it, or asks for too much time or memory.
    """
    if not path.is_file():
        raise DataCorrupt(f"{path}: cannot be read: it is {'no file' if path.exists() else 'not there'}")
    beside = _of_process(os.getpid())  # a forked process starts one of its own
    try:
        problem, arrays = beside.ask(decoder, path)
    except BaseException as error:
        _of_process.cache_clear()  # what it still has to say answers no later question
        status = beside.end()
        if not isinstance(error, (OSError, ValueError)):
            raise
        raise DataCorrupt(f"{path}: cannot be read as {kind}: it ends the decoder ({_ending(status)})") from error
    if problem is not None:
        raise DataCorrupt(f"{path}: cannot be read as {kind}: {problem}")
    return arrays


class _Decoders:
    """The running script, and one question at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        command = [sys.executable, "-P", str(SCRIPT)]  # -P: this folder's modules are not for it to import
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def ask(self, decoder: str, path: Path) -> tuple[str | None, list[NDArray[Any]]]:
        """What is wrong with the file, or None; its arrays.

        Raises:
            OSError, ValueError: there is no answer, or half of one.
        """
        with self._lock:
            questions, answers = self._process.stdin, self._process.stdout
            assert questions is not None
            assert answers is not None
            questions.write(json.dumps([decoder, str(path.absolute())]).encode() + b"\n")
            questions.flush()
            answer = json.loads(answers.readline())
            arrays = [_array(answers, np.dtype(dtype), shape) for dtype, shape in answer["arrays"]]
            return answer["problem"], arrays

    def end(self) -> int:
        """End it, if it has not ended by itself, and return its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.stdin.close()
            return self._process.wait(1)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            return self._process.wait()


@cache
def _of_process(owner: int) -> _Decoders:
    """The one of a process, by its id."""
    return _Decoders()


def _array(answers: Any, dtype: np.dtype, shape: list[int]) -> NDArray[Any]:
    content = bytearray(dtype.itemsize * prod(shape))
    if answers.readinto(content) != len(content):
        raise ValueError("half an answer")
    return np.frombuffer(content, dtype).reshape(shape)


def _ending(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "which took longer than a whole file would"
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
