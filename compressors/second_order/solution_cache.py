"""What took long to find, kept under the hash of all that it depends on."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressors.calibration.hessians import CalibrationError
from compressors.quantization.grids import Grid
from compressors.second_order import obs
from compressors.second_order.elimination import Course
from compressors.second_order.problem import Problem


class Solutions:
    """What took long to find, kept under the hash of all that it depends on: it can be neither stale nor foreign.

    In a folder, an interrupted run finds its finished layers again, and a run at another density its eliminations.

    Attributes:
        reused_seconds: the time that those taken up again had taken when they were made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.reused_seconds = folder, 0.0
        self._here: dict[str, dict[str, Tensor]] = {}

    def course(self, problem: Problem, *, batch: int = 1, width: int = 1) -> Course:
        """The course of eliminating every weight of every row; see :func:`compressors.second_order.obs.eliminate`."""

        def solve() -> dict[str, Tensor]:
            if width > 1:
                found = obs.eliminate_groups(problem.weight, problem.hessian, width)
            else:
                found = obs.eliminate(problem.weight, problem.hessian, batch=batch)
            return {"order": found.order, "losses": found.losses}

        options = "" if (batch, width) == (1, 1) else f"{batch} {width}"
        key = _digest(options, (problem.weight, problem.hessian))
        if key not in self._here:  # the split of a budget asks for it first, and then the layer itself
            self._here[key] = self._of(key, solve)
        order, losses = (self._here[key][name].to(problem.weight.device) for name in ("order", "losses"))
        return Course(order, losses, torch.zeros_like(losses))

    def found(
        self, options: str, depends: Sequence[Tensor], solve: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What ``solve`` gives, or gave before.

        Args:
            options: what it depends on beside tensors.
            depends: tensors it depends on.
            solve: tensors by name.
        """
        found = self._of(_digest(options, depends), solve)
        return {name: tensor.to(depends[0].device) for name, tensor in found.items()}

    def quantized(
        self, by: str, problem: Problem, weight: Tensor, mask: Tensor, grid: Grid, quantize: Callable[[], Tensor]
    ) -> Tensor:
        """The quantised weight that ``quantize`` gives, or gave before; ``by`` is its name."""
        depends = (weight, problem.hessian, mask, grid.scale, grid.zero)
        return self.found(f"{by} {grid.bits}", depends, lambda: {"weight": quantize()})["weight"]

    def _of(self, key: str, solve: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = None if self.folder is None else self.folder / f"{key}.safetensors"
        return self._load(path) if path is not None and path.exists() else _solved(path, solve)

    def _load(self, path: Path) -> dict[str, Tensor]:
        try:
            with safe_open(path, "pt") as file:
                self.reused_seconds += float(file.metadata()["seconds"])
            return load_file(path)
        except SafetensorError as error:
            raise CalibrationError(
                f"{path} is not a readable elimination ({error}): delete it and run again"
            ) from error


def _digest(options: str, depends: Sequence[Tensor]) -> str:
    """Hash of the bits that a solution depends on."""
    digest = hashlib.blake2b(options.encode(), digest_size=16)
    for tensor in depends:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _solved(path: Path | None, solve: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Solve, and write what was found: at once or not at all."""
    started = time.perf_counter()
    found = solve()
    if path is None:
        return found
    seconds = time.perf_counter() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:  # of this process alone
        partial = Path(folder, path.name)
        save_file({n: t.cpu().contiguous() for n, t in found.items()}, partial, metadata={"seconds": str(seconds)})
        partial.replace(path)
    return found
