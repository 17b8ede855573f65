"""GradR: connections that vanish and come back, with the sign that they began with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from compressors.annotations import Positive, Share
from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.masks import largest
from compressors.weights.allocation import by_magnitude
from compressors.weights.latent import LatentTraining
from compressors.weights.schedule import StateOfSteps, steps_of


@dataclass
class Signed:
    """A layer computes with ``s relu(theta)``; the latent weight is ``s theta``, and has the gradient of the value.

    Args:
        sign: s, of the weight's shape, 1 or -1; it never changes.
        mask: the weights that may be there, bool of the weight's shape; None for all.
    """

    sign: Tensor
    mask: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor) -> "Signed":
        """The signs that a layer begins with; a weight of zero counts as positive."""
        return cls(torch.where(weight.detach() < 0, -1.0, 1.0).to(weight))

    def theta(self, latent: Tensor) -> Tensor:
        """How strong each connection is; it is there where this is positive."""
        return self.sign.to(latent.device) * latent

    def value(self, latent: Tensor) -> Tensor:
        """What the layer computes with."""
        there = self.theta(latent) > 0
        return latent * (there if self.mask is None else there & self.mask.to(latent.device))

    def backward(self, gradient: Tensor, latent: Tensor) -> Tensor:
        """That of the value also where there is no connection: this is what brings connections back."""
        return gradient if self.mask is None else gradient * self.mask.to(gradient.device)


class GradR(LatentTraining):
    """Trains from scratch with signs that are fixed: a connection vanishes where its strength falls below zero.

    Chen and others, "Pruning of Deep Spiking Neural Networks through Gradient Rewiring" (IJCAI 2021): weights
    ``s relu(theta)`` whose gradient reaches theta below zero too, so that connections come back, and a prior that draws
    theta with every step of the optimizer, by ``alpha`` times the learning rate towards ``mu``. It is Laplace's
    distribution, and mu is where its share below zero is the sparsity that is asked for.

    *The density.* How many connections are there in the end follows from gradients, prior and length of the training;
    the authors report what comes out. Here a density is asked for, so the rewiring ends after a share ``until`` of the
    steps: of the connections that are there, as many of the strongest as asked for are left, over all layers, and
    these train on, with their signs. Where fewer are there, fewer are left.

    Args:
        density: share of the weights at the end.
        alpha: how strongly the prior draws, in learning rates.
        until: share of the fit's steps after which no connection comes back.

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    from_scratch = True
    budgets: ClassVar[tuple[str, ...]] = ("density",)

    alpha: Positive = 0.1
    until: Share = 0.75
    state: StateOfSteps = field(default_factory=StateOfSteps, init=False, compare=False, repr=False)

    @property
    def idle(self) -> bool:
        """Whether all weights are kept, and nothing else is to be done."""
        return self.density == 1 and not self.aftercare

    @property
    def last(self) -> int:
        """The step before which the rewiring ends."""
        return int(self.until * self.state.steps)

    @property
    def signs(self) -> dict[str, Signed]:
        """The layers' signs by name."""
        return {name: rule for name, rule in self.latent.rules.items() if isinstance(rule, Signed)}

    @property
    def rewiring(self) -> bool:
        """Whether connections may come back."""
        return any(rule.mask is None for rule in self.signs.values())

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Take down the signs; without any training to come, leave the strongest."""
        weights = {layer.name: layer.module.weight for layer in network.layers}
        self.latent.rules = {name: Signed.of(weight) for name, weight in weights.items()} if self.density < 1 else {}
        if not self.state.steps:
            self.conclude(network.module)
        self.latent.put(network.module)
        return tuple(
            self.account(LayerCompression(name, tuple(weight.shape), torch.ones_like(weight, dtype=torch.bool)))
            for name, weight in weights.items()
        )

    def conclude(self, module: nn.Module) -> None:
        """Leave as many of the strongest connections as asked for, if that was not done before."""
        if not self.rewiring:
            return
        there = {
            name: rule.theta(module.get_parameter(f"{name}.weight").detach()).relu()
            for name, rule in self.signs.items()
        }
        for name, keep in by_magnitude(there, self.density).items():
            self.signs[name].mask = largest(there[name], keep) & (there[name] > 0)

    def account(self, entry: LayerCompression) -> LayerCompression:
        """The account of a layer with the connections that are there in the end."""
        rule = self.signs.get(entry.name)
        if rule is None or rule.mask is None:
            return entry
        return replace(entry, mask=rule.value(self.latent.kept[entry.name]) != 0)

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long the fit is, and begin, or go on where a checkpoint was saved."""
        self.state.steps = steps_of(trainer)
        super().on_fit_start(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Hand the gradients on, and draw by the prior while connections may come back."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if trainer.global_step >= self.last:
            self.conclude(pl_module)
        elif self.rewiring:
            self.draw(pl_module, optimizer)

    def draw(self, module: nn.Module, optimizer: Optimizer) -> None:
        """The prior's step, at the learning rate of each layer."""
        rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        mean = prior_mean(self.density, self.alpha)
        for name, rule in self.signs.items():
            weight = module.get_parameter(f"{name}.weight")
            step = self.alpha * rates.get(weight, 0.0)
            with torch.no_grad():
                weight.sub_(step * rule.theta((rule.theta(weight) - mean).sign()))

    def state_dict(self) -> dict[str, Any]:
        """The account, the weights behind the connections, the signs, and the masks of those left."""
        return super().state_dict() | {"signs": {name: [rule.sign, rule.mask] for name, rule in self.signs.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(dict(state_dict))
        self.latent.rules = {name: Signed(*parts) for name, parts in state_dict["signs"].items()}


def prior_mean(density: float, alpha: float) -> float:
    """The mean of a Laplace distribution of scale ``1 / alpha`` of which a share ``density`` is above zero."""
    if density <= 0.5:
        return math.log(2 * density) / alpha
    return -math.log(2 * (1 - density)) / alpha
