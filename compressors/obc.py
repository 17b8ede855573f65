"""Optimal Brain Compression (ExactOBS): second-order pruning of one layer at a time."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressors import obs
from compressors.base import BudgetError, Network
from compressors.layers import Layer
from compressors.pruning import Pruner
from compressors.statistics import CalibrationError, hessians


class OBC(Pruner):
    """Removes the weights whose loss costs the layer's input currents least, and lets the others make up for them.

    Frantar, Singh and Alistarh, "Optimal Brain Compression" (NeurIPS 2022, arXiv 2208.11580): ExactOBS in each row,
    OBC's global step across the rows of a layer, calibration on the dense network. Added here, for
    this class and :class:`~compressors.sbc.SBC` alike so that they differ in the Hessian alone: a row's losses are
    weighed by the factor with which BatchNorm passes its output on, squared (the authors of SBC do so; OBC's have no
    such factor), and the damping is relative to the mean of the Hessian's diagonal.

    Args:
        density: share of weights to keep.
        damping: added to the Hessian's diagonal, in units of its mean.
        batchnorm_factor: weigh rows by their BatchNorm factor.
        cache: folder in which finished eliminations are kept, and found again by the hash of weight and Hessian. One
            elimination serves every density, so a run at another density only has to look it up.
        max_memory: bytes for the Hessians held at once; more layers than fit are measured in several passes.
        **pruning: see :class:`~compressors.pruning.Pruner`; ``allocation`` is ``lamp`` unless given.
    """

    def __init__(
        self,
        density: float = 1.0,
        *,
        allocation: str = "lamp",
        damping: float = 0.01,
        batchnorm_factor: bool = True,
        cache: str | Path | None = None,
        max_memory: int = 4 * 2**30,
        **pruning: Any,
    ) -> None:
        super().__init__(density, allocation=allocation, **pruning)
        if not damping >= 0:
            raise BudgetError(f"damping is {damping!r}: give a number of at least 0")
        self.damping, self.batchnorm_factor, self.max_memory = damping, batchnorm_factor, max_memory
        self.cache = None if cache is None else Path(cache)
        self._reused = 0.0

    def response(self, layer: Layer) -> Tensor | None:
        """The filter over time through which a layer's inputs are seen: none, time steps are samples like any other."""
        return None

    def calibrate(self, network: Network) -> Mapping[str, Tensor]:
        """The damped Hessian of every layer."""
        responses = {layer.name: self.response(layer) for layer in network.layers}
        raw = hessians(network.module, network.layers, responses, network.calibration, max_memory=self.max_memory)
        return {name: self._named(name, hessian) for name, hessian in raw.items()}

    def _named(self, name: str, hessian: Tensor) -> Tensor:
        try:
            return obs.damped(hessian, self.damping)
        except obs.HessianError as error:
            raise CalibrationError(f"layer {name!r}: {error}") from error

    def prune(self, layer: Layer, keep: int, statistics: Tensor) -> tuple[Tensor, Tensor, float]:
        """Eliminate, take OBC's global step, and solve for the weights that are left."""
        hessian, weight = statistics, layer.rows.to(statistics)
        elimination = self._elimination(layer.name, weight, hessian)
        gain = layer.row_gain().to(weight) if self.batchnorm_factor else weight.new_ones(len(weight))
        steps = obs.steps_per_row(elimination.losses * gain.square()[:, None], weight.numel() - keep)
        mask = obs.mask_after(elimination.order, steps)
        pruned = obs.least_squares(weight, hessian, mask)
        return pruned, mask, obs.layer_loss(weight, pruned, hessian)

    def reused_seconds(self) -> float:
        """Time that kept eliminations took when they were made."""
        return self._reused

    def _elimination(self, name: str, weight: Tensor, hessian: Tensor) -> obs.Elimination:
        path = None if self.cache is None else self.cache / f"{_digest(weight, hessian)}.safetensors"
        if path is not None and path.exists():
            return self._load(path, weight)
        started = time.perf_counter()
        try:
            elimination = obs.eliminate(weight, hessian)
        except obs.HessianError as error:
            raise CalibrationError(f"layer {name!r}: {error}") from error
        if path is not None:
            _save(path, elimination, time.perf_counter() - started)
        return elimination

    def _load(self, path: Path, weight: Tensor) -> obs.Elimination:
        try:
            with safe_open(path, "pt") as file:
                order, losses = file.get_tensor("order"), file.get_tensor("losses")
                self._reused += float(file.metadata()["seconds"])
        except SafetensorError as error:
            raise CalibrationError(
                f"{path} is not a readable elimination ({error}): delete it and run again"
            ) from error
        return obs.Elimination(order.to(weight.device), losses.to(weight.device))


def _digest(weight: Tensor, hessian: Tensor) -> str:
    """Hash of the bits that an elimination depends on, so that a kept one can be neither stale nor foreign."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in (weight, hessian):
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _save(path: Path, elimination: obs.Elimination, seconds: float) -> None:
    """Write at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{time.monotonic_ns()}.tmp")
    tensors = {"order": elimination.order.cpu().contiguous(), "losses": elimination.losses.cpu().contiguous()}
    try:
        save_file(tensors, partial, metadata={"seconds": str(seconds)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
