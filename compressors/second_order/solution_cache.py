"""Solutions that took long, kept in files that are named by the hash of all that a solution depends on."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from math import inf
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

logger = logging.getLogger(__name__)


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
        self.folder, self.reused_seconds, self._is_told = folder, 0.0, False
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
        key = digest_of(options, (problem.weight, problem.hessian))
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
        solution = self._read_or_solve(digest_of(options, depends), solve)
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
        if path.exists():
            solution, seconds = _read(path)
            self.reused_seconds += seconds
            return solution
        started = time.perf_counter()
        solution = solve()
        self._keep(solution, time.perf_counter() - started, path)
        return solution

    def _keep(self, solution: dict[str, Tensor], seconds: float, path: Path) -> None:
        """Write a solution, or say once that there is no room: the work goes on, only not to be taken up again."""
        try:
            _write(solution, seconds, path)
        except (OSError, SafetensorError) as error:
            if not self._is_told:
                reason = getattr(error, "strerror", None) or error
                logger.warning(
                    "cannot write %s: %s; going on without keeping solutions. Free space, or set SNNBENCH_CACHE to"
                    " another folder",
                    path.parent,
                    reason,
                )
            self._is_told = True


def _read(path: Path) -> tuple[dict[str, Tensor], float]:
    """A solution and the seconds that it took.

    Raises:
        CacheError: the file is not what was written.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        solution = load_file(path)
        seconds, digest = float(metadata["seconds"]), metadata.get("digest")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CacheError(f"{path} is not a readable solution ({error}): delete it and run again") from error
    is_earlier = set(metadata) == {"seconds"}  # without a digest
    is_whole = is_earlier or digest == _digest_of_solution(solution)
    if not is_whole or not 0 <= seconds < inf:
        raise CacheError(f"{path} is not what was written: delete it and run again")
    return solution, seconds


def _write(solution: dict[str, Tensor], seconds: float, path: Path) -> None:
    """Write the solution and its time: the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"seconds": str(seconds), "digest": _digest_of_solution(solution)}
    with TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:  # of this process alone
        partial = Path(folder, path.name)
        save_file({name: tensor.cpu().contiguous() for name, tensor in solution.items()}, partial, metadata=metadata)
        partial.replace(path)


def _digest_of_solution(solution: dict[str, Tensor]) -> str:
    names = sorted(solution)
    return digest_of(" ".join(names), [solution[name] for name in names])


def digest_of(options: str, depends: Sequence[Tensor]) -> str:
    """Hash of the bits that a solution depends on: kept files are named by it, so it must not change."""
    digest = hashlib.blake2b(options.encode(), digest_size=16)
    for tensor in depends:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
