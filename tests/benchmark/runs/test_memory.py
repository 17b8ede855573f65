"""What the process's own memory does."""

import os
import platform
import resource
import subprocess
import sys

import pytest
import torch

from benchmark.runs import memory

PEAKS = """
import torch
from benchmark.runs import memory

memory.keep_freed()
told = memory.forget_peak()
before = memory.peak_bytes()
held = [torch.zeros(2**20) for _ in range(75)]  # 315 MB
held.clear()
highest = memory.peak_bytes()
memory.forget_peak()
print(int(told), highest - before, memory.peak_bytes() - before)
"""


def faults(megabytes: int, times: int) -> int:
    """Pages that the system had to bring in while a tensor came and went."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(megabytes * 2**18).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    assert memory.keep_freed()
    faults(16, 10)
    pages = 16 * 2**20 // resource.getpagesize()
    assert faults(16, 20) < pages


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not tell")
def test_a_new_peak_begins_at_what_is_in_use():
    # in a process of its own: one that has run other tests has free memory in its heap, which tensors take first
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    told, highest, after = map(int, done.stdout.split())
    assert told
    assert highest > 280e6
    assert after < 50e6
