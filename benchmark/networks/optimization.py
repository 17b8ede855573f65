"""How weights follow their gradients: the optimizer and the course of its learning rate over the epochs of a fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import lr_scheduler

OptimizerName = Literal["adam", "adamw", "sgd"]

STEP_FACTOR = 0.1
"""What the learning rate is multiplied by at each of ``milestones``."""


@dataclass(frozen=True)
class Optimization:
    """Settings of an optimizer and its schedule.

    The learning rate rises evenly over ``warmup_epochs``, then falls along a cosine to zero, or in steps.

    Args:
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        learning_rate: the highest.
        weight_decay: of the optimizer.
        momentum: of SGD; the others have none of this name.
        decay_norm: whether weight decay also draws the scales and shifts of BatchNorm and all biases.
        warmup_epochs: epochs before the rate is at its highest.
        milestones: epochs after which the rate falls to a tenth, in place of the cosine.
        gradient_clip: the largest norm of all gradients together; None for no limit.
    """

    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    decay_norm: bool = True
    warmup_epochs: int = 0
    milestones: tuple[int, ...] = ()
    gradient_clip: float | None = None

    def fine_tuning(self, learning_rate: float) -> "Optimization":
        """The same for a trained network: no warm-up, and a cosine from this rate."""
        return replace(self, learning_rate=learning_rate, warmup_epochs=0, milestones=())

    def of(self, network: nn.Module, epochs: int) -> tuple[optim.Optimizer, lr_scheduler.LRScheduler]:
        """Optimizer and schedule of a network that is fitted for so many epochs."""
        optimizer = self._optimizer(network)
        return optimizer, self._schedule(optimizer, epochs)

    def _optimizer(self, network: nn.Module) -> optim.Optimizer:
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        parts: Any = network.parameters() if self.decay_norm else list(_decayed_apart(network))
        if self.optimizer == "sgd":
            return optim.SGD(parts, momentum=self.momentum, **common)
        return (optim.AdamW if self.optimizer == "adamw" else optim.Adam)(parts, **common)

    def _schedule(self, optimizer: optim.Optimizer, epochs: int) -> lr_scheduler.LRScheduler:
        after: lr_scheduler.LRScheduler
        if self.milestones:
            reached = [epoch - self.warmup_epochs for epoch in self.milestones]
            after = lr_scheduler.MultiStepLR(optimizer, reached, gamma=STEP_FACTOR)
        else:
            after = lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, epochs - self.warmup_epochs))
        if not self.warmup_epochs:
            return after
        first = 1 / (self.warmup_epochs + 1)
        before = lr_scheduler.LinearLR(optimizer, start_factor=first, total_iters=self.warmup_epochs)
        return lr_scheduler.SequentialLR(optimizer, [before, after], milestones=[self.warmup_epochs])


def _decayed_apart(network: nn.Module) -> Iterator[dict[str, Any]]:
    """Two groups of parameters: those that weight decay draws, and scales, shifts and biases, which it does not."""
    free = {
        id(parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm) or name == "bias"
    }
    yield {"params": [parameter for parameter in network.parameters() if id(parameter) not in free]}
    yield {"params": [parameter for parameter in network.parameters() if id(parameter) in free], "weight_decay": 0.0}
