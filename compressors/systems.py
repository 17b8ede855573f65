"""Many symmetric positive definite systems on the CPU, each of another size: one thread and one LAPACK call a system.

A batch of a tensor library has one size, to which smaller systems are padded, and its threads wait for each other in
every single system. All arrays are NumPy views of the solver's tensors.
"""

# mypy: disallow-untyped-defs=False
from typing import Any

import numpy as np
from llvmlite.binding import add_symbol
from numba import njit, prange, types
from numba.extending import get_cython_function_address
from threadpoolctl import ThreadpoolController

SYMBOL = "snnbench_lapack_dposv"
add_symbol(SYMBOL, get_cython_function_address("scipy.linalg.cython_lapack", "dposv"))
_void: Any = types.void
_dposv: Any = types.ExternalFunction(SYMBOL, _void(*[types.voidptr] * 8))  # by name: so compiled code can be kept
_libraries = ThreadpoolController()


def solve_kept(hessian, mask, target, solution):
    """Solve ``H_KK w_K = t_K`` for each row, K where its mask is True, in float64; off the mask nothing is written.

    Args:
        hessian: ``[groups, d, d]``, of which the upper triangles are read; rows of a group follow each other.
        mask: bool ``[rows, d]``.
        target: ``[rows, d]``.
        solution: ``[rows, d]``, written.

    Returns:
        Whether each row's system was positive definite: bool ``[rows]``.
    """
    with _libraries.limit(limits=1, user_api="blas"):
        return _solve_kept(hessian, mask, target, solution)


@njit(parallel=True, cache=True, error_model="numpy")
def _solve_kept(hessian, mask, target, solution):
    rows = len(mask)
    solved = np.empty(rows, dtype=np.bool_)
    for row in prange(rows):
        kept = np.flatnonzero(mask[row])
        system = np.empty((len(kept), len(kept)), dtype=np.float64)
        right = np.empty(len(kept), dtype=np.float64)
        _gather(hessian[row * len(hessian) // rows], target[row], kept, system, right)
        solved[row] = len(kept) == 0 or _solve(system, right)
        for i in range(len(kept)):
            solution[row, kept[i]] = right[i]
    return solved


@njit(error_model="numpy")
def _gather(hessian, target, kept, system, right):
    """The system of the columns ``kept``: its upper triangle, which is LAPACK's lower one, and its right side."""
    for i in range(len(kept)):
        curvature = hessian[kept[i]]
        right[i] = target[kept[i]]
        for j in range(i, len(kept)):
            system[i, j] = curvature[kept[j]]


@njit(error_model="numpy")
def _solve(system, right):
    """Solve in place by Cholesky's factorisation; False where there is none."""
    lower = np.array([ord("L")], np.uint8)
    size, one, info = np.array([len(right)], np.int32), np.array([1], np.int32), np.array([0], np.int32)
    _dposv(lower.ctypes, size.ctypes, one.ctypes, system.ctypes, size.ctypes, right.ctypes, size.ctypes, info.ctypes)
    return info[0] == 0
