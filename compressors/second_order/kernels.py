"""Compiled inner loops of the second-order solver for the CPU.

:mod:`compressors.second_order.obs` says what they compute.

Inside a block of pivots every step touches one row of each matrix and a few vectors: far too little work for a call of
a tensor library, and right for a compiled loop, one output unit a thread at a time. All arrays are NumPy views of the
solver's tensors and are changed in place.
"""

# mypy: disallow-untyped-defs=False
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import get_num_threads, njit, prange, set_num_threads

THREADS = get_num_threads()  # as many as there can be
FARTHER = 1 + 1e-9  # times half a step, squared: rounding moves a weight so far only where its level is clamped


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the kernels inside use ``count`` threads, or as many as there are."""
    before = get_num_threads()
    set_num_threads(min(count, THREADS))
    try:
        yield
    finally:
        set_num_threads(before)


@njit(error_model="numpy")
def _nearest(value, scale, zero, top):
    """The value of the level next to ``value``; a scale of 0 has the one level 0."""
    if scale == 0:
        return value * 0
    return scale * (min(max(np.rint(value / scale) + zero, 0), top) - zero)


@njit(error_model="numpy")
def _least(score):
    """The first place of the smallest score."""
    least, place = score[0], 0
    for j in range(1, len(score)):
        if score[j] < least:
            least, place = score[j], j
    return place


@njit(error_model="numpy")
def _fix(pivot, target, weight, alive, matrix, past, step):
    """Fix one weight at ``target``: the others make up for it; ``past[step]`` is the column that leaves the inverse.

    ``matrix`` is the inverse row by row, ``[>= size * size]``.
    """
    size = len(weight)
    column = past[step]
    for j in range(size):
        column[j] = matrix[pivot * size + j]
    whole = step - step % 4
    for k in range(0, whole, 4):  # four at once: the column passes through the registers a quarter as often
        a, b, c, d = past[k, pivot], past[k + 1, pivot], past[k + 2, pivot], past[k + 3, pivot]
        for j in range(size):
            column[j] -= a * past[k, j] + b * past[k + 1, j] + c * past[k + 2, j] + d * past[k + 3, j]
    for k in range(whole, step):
        a = past[k, pivot]
        for j in range(size):
            column[j] -= a * past[k, j]
    inverse_root = 1 / math.sqrt(column[pivot])
    error = (weight[pivot] - target) * inverse_root
    for j in range(size):
        column[j] *= inverse_root * alive[j]
        weight[j] -= error * column[j]
    alive[pivot] = 0
    weight[pivot] = 0


@njit(error_model="numpy")
def _score(weight, alive, diagonal, scale, zero, top, score):
    """Twice the loss of fixing each weight; returns the farthest of those whose level is clamped, or -1."""
    farthest, outlier = (scale / 2) ** 2 * FARTHER, -1
    for j in range(len(weight)):
        error = weight[j] - _nearest(weight[j], scale, zero, top)
        error *= error
        score[j] = error / diagonal[j] if alive[j] else np.inf
        if scale > 0 and alive[j] and error > farthest:
            farthest, outlier = error, j
    return outlier


@njit(error_model="numpy")
def _close_full_groups(score, index, counts, most, of):
    """No weight may leave a group that has lost its share."""
    for j in range(len(score)):
        if counts[index[j] // of] >= most:
            score[j] = np.inf


@njit(parallel=True, cache=True, error_model="numpy")
def fix_singly(weight, alive, index, memory, past, levels, quota, batch, pivots, losses, values):
    """Fix ``pivots.shape[1]`` weights of every row, always the one that costs least.

    Args:
        weight, alive, index: ``[rows, size]``: the weights, 1 where one is not fixed yet, the columns they stand for.
        memory: ``[rows, >= size * size]``, the inverse of each row.
        past: ``[rows, steps, size]``, filled with the scaled pivot columns.
        levels: scale and zero point of each row, both ``[rows]``, and the largest code; a scale of 0 prunes.
        quota: how many weights (0: any number) of how many neighbouring columns may be fixed, and how many are
            (``[rows, groups]``).
        batch: steps between two looks at the scores.
        pivots, losses, values: ``[rows, steps]``, filled with the place, the loss, and what the weight is fixed at.
    """
    scale, zero, top = levels
    most, of, counts = quota
    rows, steps = pivots.shape
    size = weight.shape[1]
    for r in prange(rows):
        diagonal = np.empty(size, weight.dtype)
        score = np.empty(size, weight.dtype)
        diagonal[:] = memory[r, : size * size : size + 1]
        for step in range(steps):
            outlier = -1
            if step % batch == 0:
                outlier = _score(weight[r], alive[r], diagonal, scale[r], zero[r], top, score)
                if most:
                    _close_full_groups(score, index[r], counts[r], most, of)
            pivot = _least(score)
            if outlier >= 0 and weight[r, pivot] != 0:
                pivot = outlier
            target = _nearest(weight[r, pivot], scale[r], zero[r], top)
            pivots[r, step], losses[r, step], values[r, step] = pivot, score[pivot] / 2, target
            score[pivot] = np.inf
            if most:
                counts[r, index[r, pivot] // of] += 1
            _fix(pivot, target, weight[r], alive[r], memory[r], past[r], step)
            diagonal -= past[r, step] * past[r, step]


@njit(error_model="numpy")
def _group_score(group, width, weight, corners, factor):
    """``w_B^T (H^-1[B, B])^-1 w_B`` by the Cholesky factor of the group's corner of the inverse."""
    total = 0.0
    for a in range(width):
        value = weight[group * width + a]
        for b in range(a + 1):
            entry = corners[group, a, b]
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
    """The entries of a group's columns with each other: ``[groups, width, width]``."""
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


@njit(parallel=True, cache=True, error_model="numpy")
def prune_groups(weight, alive, memory, past, width, pivots, losses):
    """Prune ``pivots.shape[1]`` groups of ``width`` neighbouring columns of every row, always the cheapest.

    As :func:`fix_singly`; ``past`` is ``[rows, groups * width, size]``, ``pivots`` and ``losses`` ``[rows, groups]``.
    """
    rows, steps = pivots.shape
    size = weight.shape[1]
    for r in prange(rows):
        corners = _corners(memory[r], size, width)
        factor = np.zeros((width, width + 1), weight.dtype)
        score = np.empty(size // width, weight.dtype)
        for step in range(steps):
            for g in range(len(score)):
                score[g] = _group_score(g, width, weight[r], corners, factor) if alive[r, g * width] else np.inf
            group = _least(score)
            pivots[r, step], losses[r, step] = group, score[group] / 2
            for place in range(width):
                number = step * width + place
                _fix(group * width + place, 0.0, weight[r], alive[r], memory[r], past[r], number)
                _lower_corners(corners, past[r, number], width)


@njit(parallel=True, cache=True, error_model="numpy")
def compact(memory, size, keep):
    """Rows and columns ``keep [rows, k]``, ascending, of matrices of ``size``, written over their own beginnings.

    ``memory`` is ``[rows, room]``, one matrix a row: no entry moves to a place after its own.
    """
    left = keep.shape[1]
    for r in prange(len(keep)):
        matrix = memory[r]
        for i in range(left):
            source, target = keep[r, i] * size, i * left
            for j in range(left):
                matrix[target + j] = matrix[source + keep[r, j]]
