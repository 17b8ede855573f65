"""Time of the second-order solvers, in the currency of the machine: matrix products."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compressors.second_order.elimination import EliminationTrace
from compressors.second_order.fixed_order import prune_fixed_order
from compressors.second_order.obs import (
    damped,
    eliminate,
    inverse,
    layer_loss,
    least_squares,
    mask_after,
    steps_per_row,
)
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import SOLVERS

EXACT = [(64, 144), (128, 576), (256, 1152), (256, 2312)]
BEYOND_EXACT = [(512, 4608), (2048, 512)]
APPROXIMATE = ("fast", "refined", "admm")
DENSITIES = (0.5, 0.1, 0.03)
PLAIN_BYTES = 2**26  # of inverses for the plain elimination, beyond any cache; its time is proportional to the rows


def exact() -> Iterator[Callable[[], dict[str, Any]]]:
    """Exact elimination of random float64 layers ``rows x inputs``, a row of figures a layer.

    Seconds of the whole elimination, which serves every density; its rate, also as a share of that of a matrix product
    in the same process; how many times as long the plain one-at-a-time version takes (judged by a few rows), and how
    many times as long as the fast solver it takes; then for each density the seconds of solving for the weights that
    are left, and the layer's loss.
    """
    eliminate(*random_problem(4, 8))  # compiles, as the next line does
    least_squares(*random_problem(4, 8), torch.ones(4, 8, dtype=torch.bool))
    return (partial(_exact, *shape) for shape in EXACT)


def approximate() -> Iterator[Callable[[], dict[str, Any]]]:
    """What takes the place of exact elimination, on its layers and larger ones: a row of figures a layer and solver.

    Seconds at each density, and the loss of the layer in units of that which the fast solver leaves.
    """
    least_squares(*random_problem(4, 8), torch.ones(4, 8, dtype=torch.bool))  # compiles
    return (case for shape in [*EXACT, *BEYOND_EXACT] for case in _solvers_on(*shape))


def _solvers_on(rows: int, columns: int) -> Iterator[Callable[[], dict[str, Any]]]:
    of_fast: dict[float, float] = {}  # the first solver's losses, by density

    def measured(name: str) -> dict[str, Any]:
        weight, hessian = random_problem(rows, columns)
        problem = Problem.of(weight, hessian, weight.new_ones(rows), damping=0.0)
        row: dict[str, Any] = {"layer": f"{rows}x{columns}", "solver": name}
        for density in DENSITIES:
            keep = round(density * rows * columns)
            solver = SOLVERS[name](SolutionCache(None))
            row[f"prune_{density:g}_s"], (result, _) = _timed(partial(solver.prune, problem, keep, Pattern()))
            loss = layer_loss(weight, result, hessian)
            row[f"loss_{density:g}"] = loss / of_fast.setdefault(density, loss)
        return row

    return (partial(measured, name) for name in APPROXIMATE)


def _exact(rows: int, columns: int) -> dict[str, Any]:
    weight, hessian = random_problem(rows, columns)
    seconds, trace = _timed(lambda: eliminate(weight, hessian))
    few = min(rows, max(2, PLAIN_BYTES // (8 * columns**2)))
    plain, _ = _timed(lambda: eliminate_plain(weight[:few], hessian))
    quick, _ = _timed(lambda: prune_fixed_order(weight, hessian, weight.numel() // 10))
    rate = 2 / 3 * rows * columns**3 / seconds
    row = {
        "layer": f"{rows}x{columns}",
        "seconds": seconds,
        "gflops": rate / 1e9,
        "share_of_matmul_peak": rate / _matmul_flops(columns),
        "plain_ratio": plain * rows / few / seconds,
        "fast_ratio": seconds / quick,
    }
    for density in DENSITIES:
        steps = steps_per_row(trace.losses, round((1 - density) * rows * columns))
        mask = mask_after(trace.order, steps)
        row[f"solve_{density:g}_s"], result = _timed(lambda mask=mask: least_squares(weight, hessian, mask))
        row[f"loss_{density:g}"] = layer_loss(weight, result, hessian)
    return row


def eliminate_plain(weight: Tensor, hessian: Tensor) -> EliminationTrace:
    """ExactOBS by the book, all rows side by side: after each removal every inverse takes a rank-one update."""
    rows, columns = weight.shape
    weight = weight.clone()
    inverses = inverse(hessian).repeat_interleave(rows // len(hessian), dim=0)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    every = torch.arange(rows)
    order, losses = [], []
    for _ in range(columns):
        scores = (weight.square() / inverses.diagonal(dim1=1, dim2=2)).masked_fill(gone, torch.inf)
        loss, pivot = scores.min(dim=1)
        column = inverses[every, pivot]
        scaled = column / column[every, pivot][:, None]
        weight -= scaled * weight[every, pivot][:, None]
        inverses.baddbmm_(scaled[:, :, None], column[:, None, :], alpha=-1)
        inverses[every, pivot, pivot] = 1.0
        gone[every, pivot] = True
        weight[gone] = 0.0
        order.append(pivot)
        losses.append(loss / 2)
    return EliminationTrace(torch.stack(order, 1), torch.stack(losses, 1), torch.zeros_like(weight))


def random_problem(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Gaussian weights, and the Hessian of sparse binary inputs."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    inputs = (torch.rand(2 * columns, columns, generator=generator) < 0.1).double()
    return weight, damped((2 * inputs.T @ inputs / len(inputs))[None], 0.01)


def _matmul_flops(size: int) -> float:
    """Operations per second of a float64 matrix product, the best of three."""
    a = torch.randn(4, size, size, dtype=torch.float64)
    return 2 * 4 * size**3 / min(_timed(lambda: a @ a)[0] for _ in range(3))


def _timed(call: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
