"""UPF: learnt masks of weights and of neurons, whose price is the connections that they leave."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from compressors import masks
from compressors.annotations import NotNegative, Positive, Share
from compressors.calibration.network import Network
from compressors.channels.pruner import channels_of
from compressors.channels.surgery import Cut, cut
from compressors.channels.tracing import FIXED, Channels
from compressors.compression import LayerCompression
from compressors.masks import largest
from compressors.network.layers import evaluating, hooks
from compressors.weights.allocation import by_magnitude
from compressors.weights.latent import LatentTraining
from compressors.weights.schedule import StateOfSteps, steps_of

FIRST, LAST = 5.0, 1000.0  # sharpness of the masks, at the beginning and at the end of their training
OPEN = 0.6  # a mask variable to begin with: the mask is 0.95 of one


@dataclass
class Gates:
    """Masks that are learnt, ``sigmoid(beta a)``, one for each entry of a tensor.

    Args:
        learnt: what the optimizer trains; a is ``pace`` times that.
        pace: how many times as fast as weights the variables are trained.
        beta: how sharply a mask falls from one to zero where a does.
    """

    learnt: nn.Parameter
    pace: float
    beta: float = FIRST

    @classmethod
    def like(cls, tensor: Tensor, pace: float) -> Self:
        """A mask for each entry, nearly open."""
        return cls(nn.Parameter(torch.full_like(tensor, OPEN / pace)), pace)

    @property
    def open(self) -> Tensor:
        """Where a is above zero: what the masks are in the end, bool."""
        return self.learnt.detach() > 0

    @property
    def masks(self) -> Tensor:
        """The masks of now."""
        return (self.beta * self.pace * self.learnt.detach()).sigmoid()

    def learn(self, gradient: Tensor) -> None:
        """Add to the gradient of what is trained, given one of the masks."""
        value = self.masks
        gradient = gradient * (self.beta * self.pace * value * (1 - value))
        self.learnt.grad = gradient if self.learnt.grad is None else self.learnt.grad + gradient


class ChannelGates(Gates):
    """Masks of groups of channels; those that cannot be taken out are always there."""

    @property
    def open(self) -> Tensor:
        """Which groups are there in the end, bool."""
        there = super().open
        there[FIXED] = True
        return there

    @property
    def masks(self) -> Tensor:
        """The masks of now."""
        now = super().masks
        now[FIXED] = 1.0
        return now


@dataclass
class Masked:
    """A layer computes with its weights times their masks, and times those of the channels that they hear.

    Args:
        weights: of the weight's shape.
        channels: of all groups of channels of the network; shared by all layers.
        heard: the group that each weight hears, int64, of a shape that broadcasts to the weight's.
        positions: how often each weight is used in a step: the positions of the layer's output.
        final: the weights that are left, bool of the weight's shape; None while masks are learnt.
    """

    weights: Gates
    channels: ChannelGates
    heard: Tensor
    positions: int
    final: Tensor | None = None

    def value(self, latent: Tensor) -> Tensor:
        """What the layer computes with."""
        if self.final is not None:
            return latent * self.final.to(latent.device)
        return latent * self.weights.masks * self.channels.masks[self.heard]

    def backward(self, gradient: Tensor, latent: Tensor) -> Tensor:
        """The gradient of the weight; those of the masks are added to theirs."""
        if self.final is not None:
            return gradient * self.final.to(gradient.device)
        own, others = self.weights.masks, self.channels.masks[self.heard]
        self.weights.learn(gradient * latent * others)
        of_channels = torch.zeros_like(self.channels.learnt)
        heard = self.heard.expand_as(latent).flatten()
        self.channels.learn(of_channels.index_add(0, heard, (gradient * latent * own).flatten()))
        return gradient * own * others


@dataclass
class UPFState(StateOfSteps):
    """As of every compressor, and what a fit needs to know of the network.

    Args:
        traced: which channels belong together.
        dead: groups of channels that are to be taken out.
        resumed: what a checkpoint has of the masks.
    """

    traced: Channels | None = None
    dead: frozenset[int] = frozenset()
    resumed: Mapping[str, Any] = field(default_factory=dict)


class UPF(LatentTraining):
    """Learns masks of weights and of neurons, at the price of the connections they leave; then trains what is left.

    Shi and others, "Towards Energy Efficient Spiking Neural Networks: An Unstructured Pruning Framework" (ICLR 2024):
    weights are multiplied by masks ``sigmoid(beta a)``, and so are neurons; beta grows from 5 to 1000, so that masks
    become zeros and ones; the loss has ``price`` times the connections that are to be expected, as a share of those of
    the dense network: once by the weights' masks, once by the neurons'.

    *Neurons* are taken channel by channel here, so that those whose masks close, and those that are left without any
    connection, can be taken out of the network when the fit ends: its layers become narrower. Channels that have to
    stay, as those of the output do, have no masks.

    *The density.* The authors vary the price and report what comes out. Here a density is asked for: after a share
    ``until`` of the steps, as many of the largest weights whose masks are open as asked for are left, over all layers,
    and train on. Where fewer masks are open, fewer are left.

    Args:
        density: share of the weights at the end.
        price: of all connections, in units of the loss.
        pace: how many times as fast as weights the variables behind the masks are trained.
        until: share of the fit's steps in which masks are learnt.

    The other options are those of :class:`~compressors.base.Compressor`.

    Raises:
        LayerError: at the start of the fit: layers share a weight, so that their channels cannot be told apart.
    """

    budgets: ClassVar[tuple[str, ...]] = ("density",)

    price: NotNegative = 1.0
    pace: Positive = 10.0
    until: Share = 0.5
    state: UPFState = field(default_factory=UPFState, init=False, compare=False, repr=False)

    @property
    def idle(self) -> bool:
        """Whether all weights are kept, and nothing else is to be done."""
        return self.density == 1 and not self.aftercare

    @property
    def layers(self) -> dict[str, Masked]:
        """The layers whose masks are learnt, by name."""
        return {name: rule for name, rule in self.latent.rules.items() if isinstance(rule, Masked)}

    @property
    def learning(self) -> bool:
        """Whether masks are still learnt."""
        return any(rule.final is None for rule in self.layers.values())

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Give every weight and every channel a mask; without any training to come, leave the largest weights."""
        if self.density < 1:
            self.mask(network)
        if not self.state.steps:
            self.conclude(network.module)
        self.latent.put(network.module)
        weights = {layer.name: layer.module.weight for layer in network.layers}
        return tuple(
            self.account(LayerCompression(name, tuple(weight.shape), torch.ones_like(weight, dtype=torch.bool)))
            for name, weight in weights.items()
        )

    def mask(self, network: Network) -> None:
        """Set up all masks: open ones, or those of a checkpoint."""
        traced = self.state.traced = channels_of(network)
        count = 1 + max(int(torch.cat([layer.inputs, layer.outputs]).max()) for layer in traced.layers.values())
        channels = ChannelGates.like(torch.zeros(count, device=network.module.device), self.pace)
        positions = positions_of(network)
        names = [layer.name for layer in network.layers]
        free = torch.tensor([*self.removable(names), FIXED])
        for name in names:
            weight = network.module.get_parameter(f"{name}.weight").detach()
            heard = heard_by(traced, name)
            heard = torch.where(torch.isin(heard, free), heard, FIXED).to(weight.device)
            self.latent.rules[name] = Masked(Gates.like(weight, self.pace), channels, heard, positions[name])
        if self.state.resumed:
            self._resume(channels)

    def removable(self, names: Sequence[str]) -> frozenset[int]:
        """Groups of channels of which all is masked: the layers that make them, and those that hear them."""
        layers = self._channels.layers
        made = {group for bundle in self._channels.bundles() for group in bundle.groups.tolist()}
        others = [layers[name] for name in layers if name not in names]
        return frozenset(made.difference(*(torch.cat([o.inputs, o.outputs]).tolist() for o in others)))

    @property
    def _channels(self) -> Channels:
        if self.state.traced is None:
            raise RuntimeError("the channels were not traced")
        return self.state.traced

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long the fit is, and begin, or go on where a checkpoint was saved."""
        self.state.steps = steps_of(trainer)
        if self.state.resumed:
            self.mask(self._open(trainer, pl_module))
        super().on_fit_start(trainer, pl_module)

    def beside(self) -> dict[str, list[nn.Parameter]]:
        """The variables behind the masks."""
        rules = self.layers
        shared = {next(iter(rules)): [next(iter(rules.values())).channels.learnt]} if rules else {}
        return {name: [rule.weights.learnt, *shared.get(name, [])] for name, rule in rules.items()}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The masks become sharper with every step."""
        self.latent.recall(pl_module)
        done = min(1.0, trainer.global_step / max(1, int(self.until * self.state.steps)))
        for rule in self.layers.values():
            rule.weights.beta = rule.channels.beta = FIRST * (LAST / FIRST) ** done
        super().on_train_batch_start(trainer, pl_module, *args)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Hand the gradients on to weights and masks, and add those of the price."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if self.learning and trainer.global_step >= int(self.until * self.state.steps):
            self.conclude(pl_module)
        elif self.learning:
            self.charge()

    def charge(self) -> None:
        """The gradient of the price, for all masks."""
        rules = list(self.layers.values())
        outgoing = connections_of_channels(rules)
        unit = self.price / float(outgoing.sum())  # every connection of the dense network goes out from some group
        for rule in rules:
            rule.weights.learn(torch.full_like(rule.weights.learnt, unit * rule.positions))
        rules[0].channels.learn((unit * outgoing).to(rules[0].channels.learnt))

    def conclude(self, module: nn.Module) -> None:
        """Leave as many weights as asked for, if that was not done before; find the channels that are dead."""
        if not self.learning:
            return
        channels = next(iter(self.layers.values())).channels
        alive = channels.open
        fixed = set(range(len(alive))) - self.removable(list(self.layers))
        alive[sorted(fixed)] = True
        for bundle in self._channels.bundles():  # of each the strongest channel stays
            alive[bundle.groups[channels.learnt.detach()[bundle.groups].argmax()]] = True
        left = self._left(module, alive)
        alive[self._idle(left, alive)] = False
        self.state.dead = frozenset((~alive).nonzero().flatten().tolist())
        for name, mask in left.items():
            self.layers[name].final = mask

    def _left(self, module: nn.Module, alive: Tensor) -> dict[str, Tensor]:
        """The largest weights of open masks between living channels, as many as asked for."""
        there = {}
        for name, rule in self.layers.items():
            makes = self._channels.layers[name].outputs.to(alive.device)
            lives = alive[rule.heard] & alive[makes].view(-1, *[1] * (rule.weights.learnt.ndim - 1))
            weight = module.get_parameter(f"{name}.weight").detach()
            there[name] = weight.abs() * (lives & rule.weights.open)
        keep = by_magnitude(there, self.density)
        return {name: largest(strength, keep[name]) & (strength > 0) for name, strength in there.items()}

    def _idle(self, left: Mapping[str, Tensor], alive: Tensor) -> list[int]:
        """Living groups that no weight which is left reaches or hears; one of each bundle stays."""
        rules, traced, busy = self.layers, self._channels, {FIXED}
        for name, mask in left.items():
            busy |= {*rules[name].heard.expand_as(mask)[mask].tolist()}
            busy |= {*traced.layers[name].outputs[mask.flatten(1).any(1).cpu()].tolist()}
        free = self.removable(list(left)) - busy
        idle: list[int] = []
        for bundle in traced.bundles():
            living = [group for group in bundle.groups.tolist() if alive[group]]
            useless = [group for group in living if group in free]
            idle += useless if len(useless) < len(living) else useless[1:]
        return idle

    def account(self, entry: LayerCompression) -> LayerCompression:
        """The account of a layer with the weights that are left."""
        rule = self.layers.get(entry.name)
        return entry if rule is None or rule.final is None else replace(entry, mask=rule.final)

    def settle(self, module: LightningModule) -> None:
        """Leave what is left, and take the dead channels out."""
        super().settle(module)
        masks.enforce(module, self.held_masks())
        if self.state.dead:
            self.narrow(module)

    def narrow(self, module: LightningModule) -> None:
        """Take the dead channels out: layers become narrower, and so do their masks."""
        planned, done = Cut(self._channels, self.state.dead), self.done()
        entries = tuple(_narrow(entry, planned) for entry in done.layers)
        cut(module, planned)
        self.latent.rules, self.latent.kept, self.state.dead = {}, {}, frozenset()
        self.state.compression = replace(done, layers=entries)

    def state_dict(self) -> dict[str, Any]:
        """The account, the weights behind the masked ones, and the masks."""
        rules = self.layers
        masked = {name: [rule.weights.learnt.detach(), rule.final] for name, rule in rules.items()}
        shared = [rule.channels.learnt.detach() for rule in rules.values()][:1]
        return super().state_dict() | {
            "masks": {"layers": masked, "channels": shared, "dead": sorted(self.state.dead)} if rules else {}
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(state_dict)
        self.state.resumed = state_dict["masks"]

    def _resume(self, channels: ChannelGates) -> None:
        """Put the masks of a checkpoint in the place of open ones."""
        for name, (learnt, final) in self.state.resumed["layers"].items():
            rule = self.layers[name]
            rule.weights.learnt.data.copy_(learnt)
            rule.final = final
        channels.learnt.data.copy_(self.state.resumed["channels"][0])
        self.state.dead = frozenset(self.state.resumed["dead"])


def connections(rules: Sequence[Masked]) -> tuple[float, float]:
    """How many connections the masks leave to be expected: by those of weights alone, by those of channels alone."""
    by_weights = sum(rule.positions * float(rule.weights.masks.sum(dtype=torch.float64)) for rule in rules)
    by_channels = connections_of_channels(rules) @ rules[0].channels.masks.double().cpu()
    return by_weights, float(by_channels)


def connections_of_channels(rules: Sequence[Masked]) -> Tensor:
    """The connections of the dense network that go out from each group of channels: ``[groups]`` float64."""
    total = torch.zeros(len(rules[0].channels.learnt), dtype=torch.float64)
    for rule in rules:
        heard = rule.heard.expand_as(rule.weights.learnt).flatten().cpu()
        total += rule.positions * torch.bincount(heard, minlength=len(total))
    return total


def heard_by(channels: Channels, name: str) -> Tensor:
    """The group of channels that each weight of a layer hears, of a shape that broadcasts to the weight's."""
    layer = channels.layers[name]
    groups = getattr(layer.module, "groups", 1)
    rows = layer.inputs.view(groups, -1).repeat_interleave(len(layer.outputs) // groups if groups > 1 else 1, dim=0)
    return rows.view(*rows.shape, *[1] * (layer.module.weight.ndim - 2))


def positions_of(network: Network) -> dict[str, int]:
    """How many positions each layer's output has in a step: how often each of its weights is used."""
    names = {layer.module: layer.name for layer in network.layers}
    found = dict.fromkeys(names.values(), 1)

    def take(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        spatial = module.weight.ndim - 2
        found[names[module]] = math.prod(output.shape[output.ndim - spatial :] if spatial else output.shape[2:-1])

    with evaluating(network.module), torch.no_grad(), hooks(list(names), take):
        network.module(next(network.calibration())[:1])
    return found


def _narrow(entry: LayerCompression, planned: Cut) -> LayerCompression:
    """A layer's account without the channels that are taken out."""
    layer = planned.channels.layers[entry.name]
    kept = planned.kept(layer.outputs)
    mask = entry.mask[kept.to(entry.mask.device)]
    if getattr(layer.module, "groups", 1) == 1:
        mask = mask[:, planned.kept(layer.inputs).to(mask.device)]
    outputs = kept.nonzero().flatten().to(mask.device)
    return replace(entry, shape=tuple(mask.shape), mask=mask, before=entry.shape, outputs=outputs)
