"""Solutions that took long, kept in files that are named by the hash of all that a solution depends on."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressors.quantization.grids import Grid
from compressors.second_order import obs
from compressors.second_order.elimination import EliminationTrace
from compressors.second_order.problem import Problem


class CacheError(RuntimeError):
    """A file of the cache that cannot be read."""

    exit_status = 1


class SolutionCache:
    """Eliminations, pruned and quantised weights, each kept under the hash of the tensors and options it depends on.

    So a solution can be neither stale nor another layer's. An interrupted run takes up its finished layers again, and
    a run at another density its eliminations.

    Args:
        folder: where the files are; None keeps nothing on disk (eliminations are kept in memory all the same).

    Attributes:
        reused_seconds: how long the solutions that were read from files took when they were made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.reused_seconds = folder, 0.0
        self._traces: dict[str, dict[str, Tensor]] = {}

    def elimination(self, problem: Problem, *, batch: int = 1, width: int = 1) -> EliminationTrace:
        """The elimination of every weight of every row, without its values, which are all zero.

        See :func:`compressors.second_order.obs.eliminate` (``batch``) and
        :func:`~compressors.second_order.obs.eliminate_blocks` (``width`` above 1).

        Raises:
            CacheError: its file is damaged.
            HessianError: see there.
        """

        def solve() -> dict[str, Tensor]:
            if width > 1:
                trace = obs.eliminate_blocks(problem.weight, problem.hessian, width)
            else:
                trace = obs.eliminate(problem.weight, problem.hessian, batch=batch)
            return {"order": trace.order, "losses": trace.losses}

        options = "" if (batch, width) == (1, 1) else f"{batch} {width}"
        key = _digest(options, (problem.weight, problem.hessian))
        if key not in self._traces:  # splitting a budget by losses asks for it first, and pruning the layer again
            self._traces[key] = self._read_or_solve(key, solve)
        order, losses = (self._traces[key][name].to(problem.weight.device) for name in ("order", "losses"))
        return EliminationTrace(order, losses, torch.zeros_like(losses))

    def get_or_solve(
        self, options: str, depends: Sequence[Tensor], solve: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What ``solve`` returns, from its file if there is one.

        Args:
            options: what the solution depends on beside tensors.
            depends: tensors it depends on.
            solve: gives tensors by name.

        Raises:
            CacheError: the file is damaged.
        """
        solution = self._read_or_solve(_digest(options, depends), solve)
        return {name: tensor.to(depends[0].device) for name, tensor in solution.items()}

    def get_or_quantize(
        self, method: str, problem: Problem, weight: Tensor, mask: Tensor, grid: Grid, quantize: Callable[[], Tensor]
    ) -> Tensor:
        """The quantised weight that ``quantize`` returns, from its file if there is one; ``method`` is its name."""
        depends = (weight, problem.hessian, mask, grid.scale, grid.zero)
        return self.get_or_solve(f"{method} {grid.bits}", depends, lambda: {"weight": quantize()})["weight"]

    def _read_or_solve(self, key: str, solve: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if self.folder is None:
            return solve()
        path = self.folder / f"{key}.safetensors"
        return self._read(path) if path.exists() else _solve_and_write(path, solve)

    def _read(self, path: Path) -> dict[str, Tensor]:
        try:
            with safe_open(path, "pt") as file:
                self.reused_seconds += float(file.metadata()["seconds"])
            return load_file(path)
        except SafetensorError as error:
            raise CacheError(f"{path} is not a readable elimination ({error}): delete it and run again") from error


def _digest(options: str, depends: Sequence[Tensor]) -> str:
    """Hash of the bits that a solution depends on: kept files are named by it, so it must not change."""
    digest = hashlib.blake2b(options.encode(), digest_size=16)
    for tensor in depends:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _solve_and_write(path: Path, solve: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Solve, and write the solution and its time: the whole file or none."""
    started = time.perf_counter()
    solution = solve()
    seconds = time.perf_counter() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:  # of this process alone
        partial = Path(folder, path.name)
        save_file({n: t.cpu().contiguous() for n, t in solution.items()}, partial, metadata={"seconds": str(seconds)})
        partial.replace(path)
    return solution
