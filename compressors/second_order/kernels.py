"""Compiled inner loops of the second-order solver for the CPU, one output unit (row of the weight) a thread at a time.

What they compute is said in :mod:`compressors.second_order.obs` and :mod:`compressors.second_order.elimination`, and
why they are compiled: a step of an elimination touches one row of each matrix and a few vectors, and the systems of the
weights that are left have another size in every row. That is too little work for a call of a tensor library, whose
threads would wait for each other at every step. All arrays are NumPy views of the solver's tensors; results are written
into them.

Functions are compiled at their first call, and LAPACK is looked up then: importing this module does neither.
"""

# mypy: disallow-untyped-defs=False
import math
from functools import cache
from typing import Any

import numpy as np
from llvmlite.binding import add_symbol
from numba import njit, prange, types
from numba.extending import get_cython_function_address
from threadpoolctl import ThreadpoolController

from compressors.threads import parallel_loop

FARTHER = 1 + 1e-9  # times half a step, squared: rounding moves a weight so far only where its level is clamped


# Elimination: one weight, or one block of neighbouring weights, after the other ---------------------------------------


@njit(error_model="numpy")
def _nearest(value, scale, zero, max_code):
    """The value of the level next to ``value``; a scale of 0 has the one level 0."""
    if scale == 0:
        return value * 0
    return scale * (min(max(np.rint(value / scale) + zero, 0), max_code) - zero)


@njit(error_model="numpy")
def _least(score):
    """The first place of the smallest score."""
    least, place = score[0], 0
    for j in range(1, len(score)):
        if score[j] < least:
            least, place = score[j], j
    return place


@njit(error_model="numpy")
def _fix(pivot, target, weight, free, matrix, updates, step):
    """Fix one weight of a row at ``target``, and let its free weights make up for it.

    ``matrix [>= size * size]`` is the row's inverse Hessian as it was before any of these steps, line by line. Step k
    takes ``u_k u_k^T`` from it; ``updates[step]`` becomes the ``u_k`` of this step, with the earlier ones taken off.
    """
    size = len(weight)
    column = updates[step]
    for j in range(size):
        column[j] = matrix[pivot * size + j]
    whole = step - step % 4
    for k in range(0, whole, 4):  # four at once: the column passes through the registers a quarter as often
        a, b, c, d = updates[k, pivot], updates[k + 1, pivot], updates[k + 2, pivot], updates[k + 3, pivot]
        for j in range(size):
            column[j] -= a * updates[k, j] + b * updates[k + 1, j] + c * updates[k + 2, j] + d * updates[k + 3, j]
    for k in range(whole, step):
        a = updates[k, pivot]
        for j in range(size):
            column[j] -= a * updates[k, j]
    inverse_root = 1 / math.sqrt(column[pivot])
    error = (weight[pivot] - target) * inverse_root
    for j in range(size):
        column[j] *= inverse_root * free[j]
        weight[j] -= error * column[j]
    free[pivot] = 0
    weight[pivot] = 0


@njit(error_model="numpy")
def _score(weight, free, diagonal, scale, zero, max_code, score):
    """Write twice the loss of fixing each weight; return the farthest of those whose level is clamped, or -1."""
    farthest, outlier = (scale / 2) ** 2 * FARTHER, -1
    for j in range(len(weight)):
        error = weight[j] - _nearest(weight[j], scale, zero, max_code)
        error *= error
        score[j] = error / diagonal[j] if free[j] else np.inf
        if scale > 0 and free[j] and error > farthest:
            farthest, outlier = error, j
    return outlier


@njit(error_model="numpy")
def _close_full_groups(score, index, counts, max_fixed, group_size):
    """No weight may leave an N:M group that has lost as many as it may."""
    for j in range(len(score)):
        if counts[index[j] // group_size] >= max_fixed:
            score[j] = np.inf


@parallel_loop
def fix_singly(weight, free, index, inverses, updates, levels, quota, batch, pivots, losses, values):
    """Fix ``pivots.shape[1]`` weights of every row, always the one that costs least.

    Args:
        weight, free, index: ``[rows, size]``: the weights, 1 where one is not fixed yet, the columns they stand for.
        inverses: ``[rows, >= size * size]``, the inverse Hessian of each row, line by line; only read.
        updates: ``[rows, steps, size]``, filled with the ``u`` of each step, whose ``u u^T`` is to leave the inverse.
        levels: scale and zero point of each row, both ``[rows]``, and the largest code; a scale of 0 prunes.
        quota: of an N:M pattern: how many weights (0: any number) of how many neighbouring columns may be fixed, and
            how many are (int64 ``[rows, N:M groups]``, counted on).
        batch: steps between two looks at the scores.
        pivots, losses, values: ``[rows, steps]``, filled with the place, the loss, and what the weight is fixed at.
    """
    scale, zero, max_code = levels
    max_fixed, group_size, counts = quota
    rows, steps = pivots.shape
    size = weight.shape[1]
    for r in prange(rows):
        diagonal = np.empty(size, weight.dtype)
        score = np.empty(size, weight.dtype)
        diagonal[:] = inverses[r, : size * size : size + 1]
        for step in range(steps):
            outlier = -1
            if step % batch == 0:
                outlier = _score(weight[r], free[r], diagonal, scale[r], zero[r], max_code, score)
                if max_fixed:
                    _close_full_groups(score, index[r], counts[r], max_fixed, group_size)
            pivot = _least(score)
            if outlier >= 0 and weight[r, pivot] != 0:
                pivot = outlier
            target = _nearest(weight[r, pivot], scale[r], zero[r], max_code)
            pivots[r, step], losses[r, step], values[r, step] = pivot, score[pivot] / 2, target
            score[pivot] = np.inf
            if max_fixed:
                counts[r, index[r, pivot] // group_size] += 1
            _fix(pivot, target, weight[r], free[r], inverses[r], updates[r], step)
            diagonal -= updates[r, step] * updates[r, step]


@njit(error_model="numpy")
def _block_score(block, width, weight, corners, factor):
    """``w_B^T (H^-1[B, B])^-1 w_B`` by the Cholesky factor of the block's corner of the inverse."""
    total = 0.0
    for a in range(width):
        value = weight[block * width + a]
        for b in range(a + 1):
            entry = corners[block, a, b]
            for c in range(b):
                entry -= factor[a, c] * factor[b, c]
            factor[a, b] = math.sqrt(entry) if a == b else entry / factor[b, b]
        for c in range(a):
            value -= factor[a, c] * factor[c, width]
        factor[a, width] = value / factor[a, a]  # forward substitution; the solution stands behind the factor
        total += factor[a, width] ** 2
    return total


@njit(error_model="numpy")
def _corners(matrix, size, width):
    """The entries of a block's columns with each other: ``[blocks, width, width]``."""
    corners = np.empty((size // width, width, width), matrix.dtype)
    for g in range(size // width):
        for a in range(width):
            for b in range(width):
                corners[g, a, b] = matrix[(g * width + a) * size + g * width + b]
    return corners


@njit(error_model="numpy")
def _lower_corners(corners, column, width):
    """What one fixed weight takes from the corners."""
    for g in range(len(corners)):
        for a in range(width):
            for b in range(width):
                corners[g, a, b] -= column[g * width + a] * column[g * width + b]


@parallel_loop
def prune_blocks(weight, free, inverses, updates, width, pivots, losses):
    """Prune ``pivots.shape[1]`` blocks of ``width`` neighbouring columns of every row, always the cheapest.

    As :func:`fix_singly`; ``updates`` is ``[rows, blocks * width, size]``, ``pivots`` and ``losses`` are
    ``[rows, blocks]``.
    """
    rows, steps = pivots.shape
    size = weight.shape[1]
    for r in prange(rows):
        corners = _corners(inverses[r], size, width)
        factor = np.zeros((width, width + 1), weight.dtype)
        score = np.empty(size // width, weight.dtype)
        for step in range(steps):
            for g in range(len(score)):
                score[g] = _block_score(g, width, weight[r], corners, factor) if free[r, g * width] else np.inf
            block = _least(score)
            pivots[r, step], losses[r, step] = block, score[block] / 2
            for place in range(width):
                number = step * width + place
                _fix(block * width + place, 0.0, weight[r], free[r], inverses[r], updates[r], number)
                _lower_corners(corners, updates[r, number], width)


@parallel_loop
def compact(inverses, size, keep):
    """Rows and columns ``keep [rows, k]``, ascending, of matrices of ``size``, written over their own beginnings.

    ``inverses`` is ``[rows, room]``, one matrix a row: no entry moves to a place after its own.
    """
    left = keep.shape[1]
    for r in prange(len(keep)):
        matrix = inverses[r]
        for i in range(left):
            source, target = keep[r, i] * size, i * left
            for j in range(left):
                matrix[target + j] = matrix[source + keep[r, j]]


# The weights that are left: one linear system a row ------------------------------------------------------------------


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
    with _lapack_on_one_thread():
        return _solve_rows(hessian, mask, target, solution)


def saliencies_of_kept(hessian, mask, target, saliency):
    """As :func:`solve_kept`, but write the saliency of each weight of the solution: ``w_j^2 / [H_KK^-1]_jj``."""
    with _lapack_on_one_thread():
        return _saliencies_of_rows(hessian, mask, target, saliency)


@parallel_loop
def _solve_rows(hessian, mask, target, solution):
    rows = len(mask)
    solved = np.empty(rows, dtype=np.bool_)
    for row in prange(rows):
        kept = np.flatnonzero(mask[row])
        system, right = _system(hessian[row * len(hessian) // rows], target[row], kept)
        solved[row] = _solve(system, right)
        _put(solution[row], kept, right)
    return solved


@parallel_loop
def _saliencies_of_rows(hessian, mask, target, saliency):
    rows = len(mask)
    solved = np.empty(rows, dtype=np.bool_)
    for row in prange(rows):
        kept = np.flatnonzero(mask[row])
        system, right = _system(hessian[row * len(hessian) // rows], target[row], kept)
        solved[row] = _solve(system, right)
        if solved[row]:
            _saliencies(system, right)
        _put(saliency[row], kept, right)
    return solved


@njit(error_model="numpy")
def _system(hessian, target, kept):
    """The system of the columns ``kept``: its upper triangle, which is LAPACK's lower one, and its right side."""
    system = np.empty((len(kept), len(kept)), dtype=np.float64)
    right = np.empty(len(kept), dtype=np.float64)
    for i in range(len(kept)):
        curvature = hessian[kept[i]]
        right[i] = target[kept[i]]
        for j in range(i, len(kept)):
            system[i, j] = curvature[kept[j]]
    return system, right


@njit(error_model="numpy")
def _put(row, kept, values):
    """Write the values of the columns ``kept`` into a row."""
    for i in range(len(kept)):
        row[kept[i]] = values[i]


# Compiled code calls LAPACK by these names, which `_link_lapack` makes known: an address could not be kept on disk.
_void: Any = types.void
_dposv: Any = types.ExternalFunction("snnbench_dposv", _void(*[types.voidptr] * 8))
_dtrtri: Any = types.ExternalFunction("snnbench_dtrtri", _void(*[types.voidptr] * 6))


@cache
def _link_lapack() -> ThreadpoolController:
    """Make SciPy's LAPACK known to compiled code; returns what sets its number of threads.

    Done once, since all loaded libraries are searched for it, and after SciPy's has been loaded.
    """
    for name in ("dposv", "dtrtri"):
        add_symbol(f"snnbench_{name}", get_cython_function_address("scipy.linalg.cython_lapack", name))
    return ThreadpoolController()


def _lapack_on_one_thread() -> Any:
    """Inside, each call of LAPACK takes one thread: the rows are what is done side by side."""
    return _link_lapack().limit(limits=1, user_api="blas")


@njit(error_model="numpy")
def _solve(system, right):
    """Solve in place by Cholesky's factorisation; False where there is none. An empty system is solved."""
    if len(right) == 0:
        return True
    lower = np.array([ord("L")], np.uint8)
    size, one, info = np.array([len(right)], np.int32), np.array([1], np.int32), np.array([0], np.int32)
    _dposv(lower.ctypes, size.ctypes, one.ctypes, system.ctypes, size.ctypes, right.ctypes, size.ctypes, info.ctypes)
    return info[0] == 0


@njit(error_model="numpy")
def _saliencies(factor, solution):
    """``w_j^2 / [H^-1]_jj`` in place of ``w``, from Cholesky's factor, which its inverse takes the place of."""
    if len(solution) == 0:
        return
    lower, plain = np.array([ord("L")], np.uint8), np.array([ord("N")], np.uint8)
    size, info = np.array([len(solution)], np.int32), np.array([0], np.int32)
    _dtrtri(lower.ctypes, plain.ctypes, size.ctypes, factor.ctypes, size.ctypes, info.ctypes)
    for j in range(len(solution)):
        variance = 0.0
        for i in range(j, len(solution)):
            variance += factor[j, i] * factor[j, i]
        solution[j] *= solution[j] / variance
