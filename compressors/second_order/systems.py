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

_libraries = ThreadpoolController()


def _lapack(name: str, arguments: int) -> Any:
    """A LAPACK function for compiled code, which knows it by name and so can be kept."""
    add_symbol(f"snnbench_{name}", get_cython_function_address("scipy.linalg.cython_lapack", name))
    void: Any = types.void
    return types.ExternalFunction(f"snnbench_{name}", void(*[types.voidptr] * arguments))


_dposv, _dtrtri = _lapack("dposv", 8), _lapack("dtrtri", 6)


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
        return _each_row(hessian, mask, target, solution, False)


def judge_kept(hessian, mask, target, saliency):
    """As :func:`solve_kept`, and write what each weight of the solution is worth: ``w_j^2 / [H_KK^-1]_jj``."""
    with _libraries.limit(limits=1, user_api="blas"):
        return _each_row(hessian, mask, target, saliency, True)


@njit(parallel=True, cache=True, error_model="numpy")
def _each_row(hessian, mask, target, result, judged):
    rows = len(mask)
    solved = np.empty(rows, dtype=np.bool_)
    for row in prange(rows):
        kept = np.flatnonzero(mask[row])
        system = np.empty((len(kept), len(kept)), dtype=np.float64)
        right = np.empty(len(kept), dtype=np.float64)
        _gather(hessian[row * len(hessian) // rows], target[row], kept, system, right)
        solved[row] = len(kept) == 0 or _solve(system, right)
        if judged and len(kept) and solved[row]:
            _judge(system, right)
        for i in range(len(kept)):
            result[row, kept[i]] = right[i]
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


@njit(error_model="numpy")
def _judge(factor, solution):
    """``w_j^2 / [H^-1]_jj`` in place of ``w``, from Cholesky's factor; its inverse takes the factor's place."""
    lower, plain = np.array([ord("L")], np.uint8), np.array([ord("N")], np.uint8)
    size, info = np.array([len(solution)], np.int32), np.array([0], np.int32)
    _dtrtri(lower.ctypes, plain.ctypes, size.ctypes, factor.ctypes, size.ctypes, info.ctypes)
    for j in range(len(solution)):
        variance = 0.0
        for i in range(j, len(solution)):
            variance += factor[j, i] * factor[j, i]
        solution[j] *= solution[j] / variance
