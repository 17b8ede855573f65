"""Time of the second-order solver, in the currency of the machine: matrix products."""

import time
from typing import Any

import torch
from torch import Tensor

from compressors.obs import damped, eliminate, least_squares, mask_after, steps_per_row

SHAPES = [(64, 144), (128, 576), (256, 1152)]
DENSITIES = (0.5, 0.1, 0.03)


def measure() -> list[dict[str, Any]]:
    """Exact elimination of random float64 layers ``rows x inputs``.

    Each row gives the seconds of the elimination, its rate beside that of a plain matrix product in the same process,
    and for each density the seconds of solving for the weights that are left.
    """
    return [_layer(rows, columns) for rows, columns in SHAPES]


def _layer(rows: int, columns: int) -> dict[str, Any]:
    weight, hessian = _problem(rows, columns)
    seconds, elimination = _timed(lambda: eliminate(weight, hessian))
    rate = 2 / 3 * rows * columns**3 / seconds
    row = {
        "layer": f"{rows}x{columns}",
        "eliminate_s": seconds,
        "gflops": rate / 1e9,
        "share_of_matmul_peak": rate / _matmul_flops(columns),
    }
    for density in DENSITIES:
        steps = steps_per_row(elimination.losses, round((1 - density) * rows * columns))
        mask = mask_after(elimination.order, steps)
        row[f"solve_{density:g}_s"], _ = _timed(lambda mask=mask: least_squares(weight, hessian, mask))
    return row


def _problem(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Gaussian weights, and the Hessian of sparse binary inputs."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    inputs = (torch.rand(2 * columns, columns, generator=generator) < 0.1).double()
    return weight, damped((2 * inputs.T @ inputs / len(inputs))[None], 0.01)


def _matmul_flops(size: int) -> float:
    """Operations per second of a float64 matrix product, the best of three."""
    a = torch.randn(8, size, size, dtype=torch.float64)
    return 2 * 8 * size**3 / min(_timed(lambda: a @ a)[0] for _ in range(3))


def _timed(call: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
