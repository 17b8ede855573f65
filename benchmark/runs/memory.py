"""Memory of this process: what becomes of what is freed, and the peak from one point in time to another."""

import ctypes
import platform
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
LARGEST_KEPT = 2**25  # bytes: glibc accepts no larger block here


def keep_freed() -> bool:
    """Let the allocator keep the memory that tensors give back; False where it is not glibc's.

    By default much of it goes back to the system at once, and the next step of a training has to fault it in again,
    page by page: a quarter of the processor time of small networks.
    """
    libc = _glibc()
    return libc is not None and bool(
        libc.mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    )


def forget_peak() -> bool:
    """Begin a new peak at what is in use now; False where the system cannot do that."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)  # what was kept is not in use
    try:
        CLEAR.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is GNU's."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def peak_bytes() -> int:
    """Largest resident set since :func:`forget_peak` returned True."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
