"""What importing the solvers does not do, and how many threads their kernels take."""

import os
import subprocess
import sys

import numba

from compressors.threads import threads


def python(code: str, **environment: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_importing_the_solvers_loads_no_compiler():
    python("import compressors.second_order.solvers, sys; assert 'compressors.second_order.kernels' not in sys.modules")


def test_importing_the_kernels_neither_loads_lapack_nor_searches_the_libraries():
    python(
        "import sys, threadpoolctl\n"
        "def refuse(self): raise AssertionError('searched')\n"
        "threadpoolctl.ThreadpoolController.__init__ = refuse\n"
        "before = 'scipy.linalg.cython_lapack' in sys.modules\n"
        "import compressors.second_order.kernels\n"
        "assert ('scipy.linalg.cython_lapack' in sys.modules) == before"
    )


def test_the_threads_at_import_do_not_limit_those_of_later(tmp_path):
    python(
        "import numba\n"
        "numba.set_num_threads(1)\n"
        "import compressors.second_order.kernels\n"
        "from compressors.threads import threads\n"
        "with threads(2):\n"
        "    assert numba.get_num_threads() == 2\n"
        "assert numba.get_num_threads() == 1",
        NUMBA_NUM_THREADS="2",
    )


def test_more_threads_than_there_can_be_are_as_many_as_there_can_be():
    before = numba.get_num_threads()
    with threads(10**6):
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    assert numba.get_num_threads() == before
