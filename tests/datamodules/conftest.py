import runpy
import sys

import pytest

from tests.conftest import REAL_DATA


def _real(name):
    found = REAL_DATA / name
    if not found.exists():
        pytest.skip(f"real data are not at {found}")
    return found


@pytest.fixture(scope="session")
def real_dvs128():
    return _real("dvs128_recordings")


@pytest.fixture(scope="session")
def real_mnist():
    return _real("mnist")


@pytest.fixture(scope="session")
def real_imagenet():
    return _real("imagenet")


@pytest.fixture(scope="session")
def real_cifar100(tmp_path_factory):
    """All of CIFAR-100 in its official layout."""
    script = _real("unpack_cifar100.py")
    root = tmp_path_factory.mktemp("cifar100")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), str(root)])
        runpy.run_path(str(script), run_name="__main__")
    return root
