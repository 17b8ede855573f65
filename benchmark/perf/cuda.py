"""What ``make gpu`` measures: the work of a benchmark on a GPU, beside what the card and others can do there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.zoo.vgg import vgg9
from benchmark.perf import inference, training
from benchmark.perf.clock import Seconds, seconds
from benchmark.perf.solvers import random_problem
from compressors.calibration.hessians import add_products
from compressors.second_order.obs import eliminate
from hardware.trace import Tracer

ROUNDS = 5
Row = dict[str, Any]


def elimination(device: str, small: bool = False) -> list[Row]:
    """Exact elimination in float64: seconds, rate, and its share of a matrix product's rate on the same device."""
    shapes = [(8, 64)] if small else [(128, 576), (256, 1152), (512, 2304)]
    return [_eliminated(rows, columns, device) for rows, columns in shapes]


def _eliminated(rows: int, columns: int, device: str) -> Row:
    weight, hessian = (tensor.to(device) for tensor in random_problem(rows, columns))
    eliminate(weight[:2], hessian)  # loads what it needs
    taken = seconds(lambda: eliminate(weight, hessian), device).wall
    rate = 2 / 3 * rows * columns**3 / taken
    a = torch.randn(4, columns, columns, dtype=torch.float64, device=device)
    peak = 2 * 4 * columns**3 / _best(lambda: a @ a, device).wall
    return {"layer": f"{rows}x{columns}", "seconds": taken, "gflops": rate / 1e9, "share_of_matmul_peak": rate / peak}


def hessian(device: str, small: bool = False) -> list[Row]:
    """Sums of products of spikes: inputs read, in GB/s, and the rate beside that of one matrix product of that size."""
    vectors, columns = (256, 64) if small else (65_536, 1152)
    return [_summed(vectors, columns, dtype, device) for dtype in (torch.float32, torch.float64)]


def _summed(vectors: int, columns: int, dtype: torch.dtype, device: str) -> Row:
    z = (torch.rand(1, vectors, columns, device=device) < 0.1).to(dtype)
    total = torch.zeros(1, columns, columns, dtype=dtype, device=device)
    taken = _best(lambda: add_products(total, z), device).wall
    product = _best(lambda: z.mT @ z, device).wall
    rate = z.numel() * z.element_size() / taken
    return {"inputs": str(dtype), "gb_per_s": rate / 1e9, "share_of_product": product / taken}


def counting(device: str, small: bool = False) -> list[Row]:
    """The forward pass with the counter, as a multiple of the plain one."""
    width, batch = (8, 2) if small else (64, 64)
    network = vgg9((3, 32, 32), 10, width=width)
    module = SNNClassifier(network, classes=10, timesteps=4).to(device).eval()
    x = torch.rand(batch, 3, 32, 32, device=device)
    with torch.inference_mode():
        plain = _best(lambda: module(x), device).wall
        tracer = Tracer(module.network)
        tracer.attach()
        counted = _best(lambda: _counted(tracer, module, x), device).wall
        tracer.detach()
    return [{"network": f"vgg9 of width {width}", "batch": batch, "plain_s": plain, "overhead": counted / plain}]


def _counted(tracer: Tracer, module: SNNClassifier, x: Tensor) -> None:
    with tracer.batch(len(x)):
        module(x)


def _best(call: Callable[[], Any], device: str) -> Seconds:
    call()
    return min(seconds(call, device) for _ in range(ROUNDS))


PARTS: dict[str, Callable[..., list[Row]]] = {
    "exact elimination": elimination,
    "Hessian": hessian,
    "counting": counting,
    "training": training.measure,
    "inference": inference.measure,
}
"""Title -> what measures it: on which device, and whether on small examples (for tests)."""
