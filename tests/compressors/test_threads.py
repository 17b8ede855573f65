"""Compiled loops where their code can be kept, and where it cannot."""

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
    assert isinstance(loop._cache, caching.NullCache) == (not places)
