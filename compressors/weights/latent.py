"""Training of latent weights: layers compute with a function of them, and gradients go to what stands behind."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from compressors.base import Compressor
from compressors.compression import LayerCompression


class Reparametrisation(Protocol):
    """The weight that a layer computes with, as a function of the latent weight behind it; both of one shape."""

    def value(self, latent: Tensor) -> Tensor:
        """What the layer computes with."""

    def backward(self, gradient: Tensor, latent: Tensor) -> Tensor:
        """The gradient of the latent weight, from that of the value."""


class LatentWeights:
    """Exchanges the weights of layers for functions of them, and back.

    :meth:`put` before a forward pass replaces the latent weights in the module by their values, and keeps them here;
    :meth:`take` before the optimizer's step puts them back, with the gradients that belong to them.

    Args:
        rules: layer name -> what it computes with.

    Attributes:
        kept: the latent weights by layer name; empty while they are in the module.
    """

    def __init__(self, rules: Mapping[str, Reparametrisation] | None = None) -> None:
        self.rules: dict[str, Reparametrisation] = dict(rules or {})
        self.kept: dict[str, Tensor] = {}

    def put(self, module: nn.Module) -> None:
        """Put the values into the module, unless they are there."""
        if self.kept:
            return
        with torch.no_grad():
            for name, rule in self.rules.items():
                weight = module.get_parameter(f"{name}.weight")
                self.kept[name] = weight.detach().clone()
                weight.copy_(rule.value(weight))

    def recall(self, module: nn.Module) -> None:
        """Put the latent weights back; where somebody wrote others in the values' place, those are the latent ones."""
        with torch.no_grad():
            for name, latent in self.kept.items():
                weight = module.get_parameter(f"{name}.weight")
                if torch.equal(weight, self.rules[name].value(latent)):
                    weight.copy_(latent)
        self.kept = {}

    def take(self, module: nn.Module) -> None:
        """Put the latent weights back, with their gradients."""
        with torch.no_grad():
            for name, latent in self.kept.items():
                weight = module.get_parameter(f"{name}.weight")
                weight.copy_(latent)
                if weight.grad is not None:
                    weight.grad.copy_(self.rules[name].backward(weight.grad, latent))
        self.kept = {}


class LatentTraining(Compressor):
    """What the methods that train latent weights have in common: values are computed with, validated and left behind.

    Subclasses fill ``latent.rules`` when they compress, and say in :meth:`account` what a layer has become.
    """

    @cached_property
    def latent(self) -> LatentWeights:
        """The layers that compute with functions of their weights, and the weights behind them."""
        return LatentWeights()

    def account(self, entry: LayerCompression) -> LayerCompression:
        """The account of a layer whose value is in the module."""
        raise NotImplementedError(f"{type(self).__name__} must implement account()")

    def beside(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Layer name -> what is trained beside its weight, by the same optimizer and with the same settings."""
        return {}

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, and let the optimizers train what is beside the weights."""
        super().on_fit_start(trainer, pl_module)
        for parameters, weight, others in self._trained(trainer.optimizers, pl_module):
            for parameter in others:
                if parameter.device != weight.device:
                    parameter.data = parameter.data.to(weight.device)
            parameters.extend(others)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The result holds; the optimizers have their own parameters again."""
        for parameters, _, others in self._trained(trainer.optimizers, pl_module):
            parameters[:] = [parameter for parameter in parameters if not any(parameter is other for other in others)]
        super().on_fit_end(trainer, pl_module)

    def _trained(
        self, optimizers: Iterable[Optimizer], module: LightningModule
    ) -> Iterator[tuple[list[Tensor], Tensor, Sequence[nn.Parameter]]]:
        """Where optimizers train a layer's weight: the group's parameters, the weight, what is trained beside it."""
        beside = {module.get_parameter(f"{name}.weight"): others for name, others in self.beside().items()}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                found = [weight for weight in group["params"] if weight in beside]
                yield from ((group["params"], weight, beside[weight]) for weight in found)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Values are what the network computes with."""
        self.latent.put(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Hand the gradients on to the weights behind, and let the optimizer have those."""
        self.latent.take(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Values are what is validated, and what a checkpoint holds."""
        self.latent.put(pl_module)

    def conclude(self, module: LightningModule) -> None:
        """Bring the rules to where they end, with the latent weights in the module; nothing, where they do not change.

        May be called again, with what others wrote in place of the values as latent weights.
        """

    def settle(self, module: LightningModule) -> None:
        """Leave values, and take down what they are; what others wrote in the meantime goes through the rules anew."""
        self.latent.recall(module)
        self.conclude(module)
        self.latent.put(module)
        done = self.done()
        self.state.compression = replace(done, layers=tuple(map(self.account, done.layers)))

    def state_dict(self) -> dict[str, Any]:
        """The account, and the weights behind the values."""
        return {"compression": super().state_dict(), "behind": dict(self.latent.kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(state_dict["compression"])
        self.latent.kept = dict(state_dict["behind"])
