"""STDS: weights behind a soft threshold that grows over the training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from compressors.annotations import Part
from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.options import require_known
from compressors.weights.allocation import ALLOCATIONS
from compressors.weights.latent import LatentTraining
from compressors.weights.schedule import StateOfSteps, steps_of

RISES: Mapping[str, Callable[[float], float]] = {
    "sine": lambda share: (1 + math.sin(math.pi * (share - 0.5))) / 2,
    "linear": lambda share: share,
}
"""Share of the training that is over -> share of the final threshold that is reached."""


@dataclass
class SoftThreshold:
    """A layer computes with ``sign(theta) relu(|theta| - threshold)``; gradients go to theta as they are.

    Args:
        final: the threshold at the end, as judged by the weights of now.
        threshold: that of now.
    """

    final: float = 0.0
    threshold: float = 0.0

    def value(self, latent: Tensor) -> Tensor:
        """What the layer computes with."""
        return latent.sign() * (latent.abs() - self.threshold).relu() if self.threshold else latent.clone()

    def backward(self, gradient: Tensor, latent: Tensor) -> Tensor:
        """The relu's derivative is taken for one, so that thresholded weights learn too."""
        return gradient


class STDS(LatentTraining):
    """Trains from scratch behind a soft threshold that grows over all of the training, and leaves what exceeds it.

    Chen and others, "State Transition of Dendritic Spines Improves Learning of Sparse Spiking Neural Networks" (ICML
    2022): weights ``W = sign(theta) relu(|theta| - d)`` with ``d = D f(n / N)`` at step n of N, straight-through
    gradients, no mask, and no stage afterwards.

    *The final threshold.* The authors train with several D and report the densities that come out. Here a density is
    asked for, so D is what would leave that density of the weights as they are, found anew with each epoch and at the
    end: then the density is exact.

    Args:
        density: share of the weights at the end.
        rise: how the threshold grows: ``sine``, slowly at both ends, or ``linear``.
        until: share of the fit's steps in which the threshold grows; all of them, as the authors have it, leave no
            time to recover where the learning rate falls to zero.
        allocation: how the density is split: ``global`` is one threshold for all layers (the authors'), but that no
            layer is left without any weight; with ``uniform``, ``erk`` or ``lamp`` layers have their own.

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    from_scratch = True
    budgets: ClassVar[tuple[str, ...]] = ("density",)

    rise: str = "sine"
    until: Part = 1.0
    allocation: str = "global"
    state: StateOfSteps = field(default_factory=StateOfSteps, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("rise", self.rise, RISES)
        require_known("allocation", self.allocation, ALLOCATIONS)

    @property
    def idle(self) -> bool:
        """Whether all weights are kept, and nothing else is to be done."""
        return self.density == 1 and not self.aftercare

    @property
    def thresholds(self) -> dict[str, SoftThreshold]:
        """The layers' thresholds by name."""
        return {name: rule for name, rule in self.latent.rules.items() if isinstance(rule, SoftThreshold)}

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Give every layer a threshold: of zero, or without any training to come the final one."""
        weights = {layer.name: layer.module.weight for layer in network.layers}
        self.latent.rules = {name: SoftThreshold() for name in weights}
        self.aim(network.module)
        self.raise_to(float(not self.state.steps))
        self.latent.put(network.module)
        return tuple(
            self.account(LayerCompression(name, tuple(weight.shape), torch.ones_like(weight, dtype=torch.bool)))
            for name, weight in weights.items()
        )

    def aim(self, module: nn.Module) -> None:
        """Find the final thresholds for the latent weights, which are in the module."""
        weights = {name: module.get_parameter(f"{name}.weight").detach() for name in self.latent.rules}
        keep = ALLOCATIONS[self.allocation](weights, self.density)
        gaps = {name: _gap(weight.abs().flatten(), keep[name]) for name, weight in weights.items()}
        common = max(below for below, _ in gaps.values()) if self.allocation == "global" else 0.0
        for name, (below, above) in gaps.items():
            self.thresholds[name].final = max(below, common) if common < above else below

    def raise_to(self, share: float) -> None:
        """Set all thresholds to a share of the final ones."""
        for rule in self.thresholds.values():
            rule.threshold = share * rule.final

    def account(self, entry: LayerCompression) -> LayerCompression:
        """The account of a layer with the weights that exceed its threshold, all of them while it is zero."""
        rule, behind = self.thresholds[entry.name], self.latent.kept[entry.name]
        if self.density == 1 or (rule.final and not rule.threshold):
            return entry
        return replace(entry, mask=rule.value(behind) != 0, extra={"threshold": rule.threshold})

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long the fit is, and begin, or go on where a checkpoint was saved."""
        self.state.steps = steps_of(trainer)
        super().on_fit_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the final thresholds anew."""
        self.latent.recall(pl_module)
        self.aim(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The threshold of this step is what the network computes with."""
        self.latent.recall(pl_module)
        self.raise_to(RISES[self.rise](min(1.0, trainer.global_step / (self.until * self.state.steps))))
        super().on_train_batch_start(trainer, pl_module, *args)

    def conclude(self, module: LightningModule) -> None:
        """The thresholds that leave what was asked for."""
        self.aim(module)
        self.raise_to(1.0)

    def state_dict(self) -> dict[str, Any]:
        """The account, the weights behind the thresholds, and the thresholds."""
        return super().state_dict() | {
            "thresholds": {name: [rule.final, rule.threshold] for name, rule in self.thresholds.items()}
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(state_dict)
        self.latent.rules = {name: SoftThreshold(*values) for name, values in state_dict["thresholds"].items()}


def _gap(magnitudes: Tensor, keep: int) -> tuple[float, float]:
    """The largest of the magnitudes that go, 0 where none does, and the smallest of the ``keep`` that stay."""
    going = len(magnitudes) - keep
    below = float(magnitudes.kthvalue(going).values) if going else 0.0
    return below, float(magnitudes.kthvalue(going + 1).values)
