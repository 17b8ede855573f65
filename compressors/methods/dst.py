"""Dynamic sparse training: a network that is sparse from its first step on, and whose weights move while it learns."""

import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from compressors import masks
from compressors.annotations import Count, Part, Seed, Share
from compressors.base import Compressor
from compressors.budget import OptionError
from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.masks import largest
from compressors.options import require_known
from compressors.weights.allocation import Allocation, er, erk, uniform, weights_of
from compressors.weights.schedule import StateOfSteps, steps_of

DENSITIES: Mapping[str, Allocation] = {"erk": erk, "er": er, "uniform": uniform}
GROWTHS = ("gradient", "random")


class DST(Compressor):
    """Trains a sparse network from scratch; now and then its smallest weights go, and others grow in their place.

    One method with the options of three papers; regrown weights begin at zero, and so does what the optimizer
    remembers of them:

    - **RigL** (Evci and others, "Rigging the Lottery", ICML 2020; the defaults): other weights grow where the gradient
      is largest, every 100 steps during the first three quarters; the share that moves falls from 0.3 along a cosine.
    - **SET** (Mocanu and others, Nature Communications 2018; ESL-SNN, AAAI 2023, takes it to spiking networks): they
      grow at random, always the same share: ``growth="random", allocation="er", annealed=False, until=1``.
    - **NDSNN** (Huang and others, DAC 2023): as RigL, but that the network begins denser, at ``initial``, and fewer
      weights grow than go, so that the density falls along a cubic.

    The mask that training begins with is drawn at random, and the layers' densities are fixed by their shapes. SET's
    authors remove the smallest positive and the largest negative weights; here it is the smallest magnitudes.

    Args:
        density: share of the weights at the end.
        initial: share of the weights at the beginning; None for the same.
        growth: what grows: the largest ``gradient`` of the loss, or ``random``.
        moved: share of a layer's weights that goes at an update.
        annealed: that share falls along a cosine to nothing.
        interval: steps of the optimizer between updates.
        until: share of the fit's steps after which nothing moves any more.
        allocation: how the density is split between layers: ``erk``, ``er`` or ``uniform``.
        seed: of the first mask, and of random growth.

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    from_scratch = True

    initial: Part | None = None
    growth: str = "gradient"
    moved: Share = 0.3
    annealed: bool = True
    interval: Count = 100
    until: Share = 0.75
    allocation: str = "erk"
    seed: Seed = 0
    state: StateOfSteps = field(default_factory=StateOfSteps, init=False, compare=False, repr=False)

    budgets: ClassVar[tuple[str, ...]] = ("density",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("growth", self.growth, GROWTHS)
        require_known("allocation", self.allocation, DENSITIES)
        if self.initial is not None and self.initial < self.density:
            raise OptionError(f"initial is {self.initial:g}, below the density of {self.density:g}: it can only fall")

    @property
    def idle(self) -> bool:
        """Whether all weights are kept, and nothing else is to be done."""
        return self.density == 1 and not self.aftercare

    @property
    def last(self) -> int:
        """The step of the last update; 0 where the fit is too short for one."""
        return min(int(self.until * self.state.steps), self.state.steps - 1) // self.interval * self.interval

    def counts(self, weights: Mapping[str, Tensor], step: int) -> dict[str, int]:
        """How many weights each layer has from the update at a step on; step 0 is the beginning."""
        split = DENSITIES[self.allocation]
        final = split(weights, self.density)
        if self.initial is None or self.last <= 0:
            return final
        first, left = split(weights, self.initial), (1 - min(step / self.last, 1.0)) ** 3
        return {name: round(count + (first[name] - count) * left) for name, count in final.items()}

    def moving(self, step: int) -> float:
        """Share of a layer's weights that goes at the update of a step."""
        return self.moved * (1 + math.cos(math.pi * step / self.last)) / 2 if self.annealed else self.moved

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Draw the first mask."""
        generator, weights = torch.Generator().manual_seed(self.seed), weights_of(network.layers)
        drawn = {
            name: largest(torch.rand(weights[name].shape, generator=generator), count).to(weights[name].device)
            for name, count in self.counts(weights, 0).items()
        }
        return tuple(LayerCompression(name, tuple(mask.shape), mask) for name, mask in drawn.items())

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long the fit is, and begin, or go on where a checkpoint was saved."""
        self.state.steps = steps_of(trainer)
        super().on_fit_start(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Move weights while the gradient is still that of all of them."""
        step = trainer.global_step
        if 0 < step <= self.last and step % self.interval == 0:
            self.update(trainer, pl_module, step)
        super().on_before_optimizer_step(trainer, pl_module, optimizer)

    def update(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """Remove the smallest weights of each layer, and let others grow up to the number that is due."""
        done, generator = self.done(), torch.Generator().manual_seed(self.seed + step)
        parameters = {layer.name: module.get_parameter(f"{layer.name}.weight") for layer in done.layers}
        due = self.counts(parameters, step)
        staying, moved = {}, []
        for layer in done.layers:
            weight, mask = parameters[layer.name].detach(), layer.mask.to(module.device)
            keep = min(layer.kept - round(self.moving(step) * layer.kept), due[layer.name])
            staying[layer.name] = largest(torch.where(mask, weight.abs(), -1.0), keep)
            wanted = self._wanted(parameters[layer.name], generator).masked_fill(staying[layer.name], -1.0)
            grown = largest(wanted, due[layer.name] - keep)
            moved.append(replace(layer, mask=staying[layer.name] | grown))
        masks.enforce(module, staying)
        for optimizer in trainer.optimizers:
            masks.forget(module, staying, optimizer)
        self.state.compression = replace(done, layers=tuple(moved))

    def _wanted(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """How much each weight of a layer is wanted back, none below zero."""
        if self.growth == "random":
            return torch.rand(parameter.shape, generator=generator).to(parameter.device)
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.abs()
