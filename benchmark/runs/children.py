"""Processes that this one starts, and what becomes of them."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.context import SpawnProcess
from threading import Thread

GRACE_S = 10.0  # how long a process may take to leave nothing half-written behind when it is told to stop

PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that a process gets when its parent ends


class WorkerError(RuntimeError):
    """A worker process that cannot work at all."""

    exit_status = 1


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C from their first moment: it reaches all, and the parent decides."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop(processes: Sequence[SpawnProcess]) -> None:
    """End processes: asked to, they clean up after themselves; past their time of grace they are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE_S)
        process.kill()
        process.join()


def how_it_ended(exitcode: int, remedy: str) -> str:
    """The end of a process in words, with what to do about it if memory was short."""
    if exitcode == -signal.SIGKILL:
        return f"was killed (SIGKILL): most often the system was out of memory; {remedy}, then run again"
    if exitcode < 0:
        return f"was ended by the signal {signal.Signals(-exitcode).name}; run again in one process to see more"
    return f"ended with status {exitcode}; run again in one process to see more"


def end_with_parent() -> None:
    """From now on this process ends at once when its parent is gone, whatever it is at.

    Linux is asked to kill it: a thread cannot do so while compiled code (an elimination) holds the interpreter. The
    thread does it on other systems, and if the parent went before Linux was asked.

    Raises:
        RuntimeError: it is no child of another process of Python's.
    """
    parent = parent_process()
    if parent is None:
        raise RuntimeError("there is no parent to end with: call this in a process that multiprocessing has started")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
