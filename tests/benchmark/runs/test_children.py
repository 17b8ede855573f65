"""A process whose parent is killed, whatever it is at."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmark.runs.children import end_with_parent

REPOSITORY = Path(__file__).parents[3]
NAPS = {
    "plain": lambda: time.sleep(600),
    "compiled": lambda: ctypes.PyDLL(None).sleep(600),  # unlike CDLL, it does not let go of the interpreter
}


def child(nap: str) -> None:
    """Says its number and sleeps."""
    end_with_parent()
    os.write(1, f"{os.getpid()}\n".encode())
    NAPS[nap]()


def parent(nap: str) -> None:
    """Waits for its child."""
    process = get_context("spawn").Process(target=child, args=(nap,))
    process.start()
    process.join()


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has collected."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return shown != "" and not shown.startswith("Z")


@pytest.mark.parametrize(
    "nap",
    ["plain", pytest.param("compiled", marks=pytest.mark.skipif(sys.platform != "linux", reason="asks Linux"))],
)
def test_a_process_ends_with_its_parent(nap):
    program = f"from tests.benchmark.runs.test_children import parent; parent({nap!r})"
    words = [sys.executable, "-c", program]
    started = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    try:
        assert alive(pid)
        started.kill()
        started.wait()
        deadline = time.monotonic() + 10
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(pid)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
