"""Compiled loops where their code can be kept, and where it cannot."""

import os
import subprocess
import sys

import numba
import pytest
from numba.core import caching

from compressors.threads import parallel_loop


def total(count):
    result = 0
    for i in numba.prange(count):
        result += i
    return result


@pytest.mark.parametrize("places", [caching.CompileResultCacheImpl._locator_classes, []], ids=["kept", "read-only"])
def test_a_loop_is_compiled_whether_or_not_its_code_can_be_kept(places, monkeypatch):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", places)
    loop = parallel_loop(total)
    assert loop(10) == 45
    assert isinstance(loop.compiled._cache, caching.NullCache) == (not places)


FIRST_LOOP = """
import numba
import torch
from compressors.threads import parallel_loop, threads

@parallel_loop
def fill(values):
    for i in numba.prange(len(values)):
        values[i] = 1

torch.set_num_threads({own})
values = torch.zeros(1000).numpy()
{call}
print(torch.get_num_threads(), int(values.sum()))
"""


@pytest.mark.parametrize(
    ("own", "call"),
    [(1, "fill(values)"), (1, "with threads(1): fill(values)"), (2, "with threads(1): fill(values)")],
)
def test_the_first_compiled_loop_leaves_torch_as_many_threads_as_it_had(own, call, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    program = tmp_path / "first_loop.py"  # a file: numba keeps no code of what has none
    program.write_text(FIRST_LOOP.format(own=own, call=call))
    words = [sys.executable, program]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(own), "1000"]
