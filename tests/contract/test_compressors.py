"""Every registered compressor goes through the checks of its contract: what is registered is tested."""

import pytest

from benchmark.contract.checks import Check, checks_of
from benchmark.contract.subject import Method
from compressors.registry import COMPRESSORS

CASES = [
    pytest.param(name, check, id=f"{check.name}-{name}")
    for name in sorted(COMPRESSORS)
    for check in checks_of(COMPRESSORS[name].load())
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_contract(name: str, check: Check):
    check.run(Method(COMPRESSORS[name].load()))
