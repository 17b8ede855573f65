"""What the process's own memory does."""

import resource

import pytest
import torch

from benchmark.runs import memory


def faults(megabytes: int, times: int) -> int:
    """Pages that the system had to bring in while a tensor came and went."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(megabytes * 2**18).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_used_again():
    if not memory.keep_freed():
        pytest.skip("the C library is not glibc")
    faults(16, 10)
    pages = 16 * 2**20 // resource.getpagesize()
    assert faults(16, 20) < pages


def test_a_new_peak_begins_at_what_is_in_use():
    memory.keep_freed()
    if not memory.forget_peak():
        pytest.skip("the system does not tell")
    before = memory.peak_bytes()
    held = [torch.zeros(2**20) for _ in range(75)]  # 315 MB
    held.clear()
    assert memory.peak_bytes() > before + 280e6
    memory.forget_peak()
    assert memory.peak_bytes() < before + 50e6
