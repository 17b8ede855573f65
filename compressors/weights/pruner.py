"""Single weights: share the budget between the layers, choose which weights of a layer stay, and round them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from compressors.base import Compressor, Network
from compressors.budget import BudgetError
from compressors.compression import LayerCompression
from compressors.network.layers import Layer
from compressors.quantization.grids import Grid, fit_grid
from compressors.registry import suggestion
from compressors.weights.allocation import ALLOCATIONS
from compressors.weights.schedule import Schedule, pruning_epochs, round_at, rounds


@dataclass(frozen=True)
class Share:
    """A layer's share of the budget: how many weights it keeps, and their width (None: floats)."""

    keep: int
    bits: int | None = None


@dataclass(frozen=True)
class Treated:
    """What became of a layer: its weight and mask, both ``[rows, d]``, and the loss where the method knows it."""

    weight: Tensor
    mask: Tensor  # bool, True is kept
    loss: float | None = None
    grid: Grid | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else stands in the record


class Pruner(Compressor):
    """Base of the methods that remove and round single weights.

    Subclasses implement :meth:`prune`; :meth:`calibrate` if they look at data; :meth:`quantize` if they can do better
    than round what is left to the nearest level.

    Args:
        density: share of weights to keep.
        allocation: how the budget is shared between layers: ``uniform``, ``erk``, ``global`` or ``lamp``.
        per: a grid of its own for every output ``channel``, or one for the whole ``tensor``.
        symmetric: grids with the zero point in the middle of the codes.
        search: shrink each grid's range to the least error; without it the range is that of the weights.
        schedule: None prunes once, before the fine-tuning. A factor (0.8) or a list of shares prunes in rounds during
            the first half of it; see :mod:`compressors.weights.schedule`.
        **base: see :class:`~compressors.base.Compressor`.
    """

    budgets: ClassVar[tuple[str, ...]] = ("density", "density+bits")
    allocations: Mapping[str, Any] = ALLOCATIONS

    def __init__(
        self,
        density: float = 1.0,
        *,
        allocation: str = "uniform",
        per: str = "channel",
        symmetric: bool = True,
        search: bool = True,
        schedule: Schedule = None,
        **base: Any,
    ) -> None:
        super().__init__(density, **base)
        if allocation not in self.allocations:
            raise BudgetError(f"unknown allocation {allocation!r}: {suggestion(allocation, self.allocations)}")
        if per not in ("channel", "tensor"):
            raise BudgetError(f"per is {per!r}: give 'channel' or 'tensor'")
        self.allocation, self.per, self.symmetric, self.search = allocation, per, symmetric, search
        self.rounds, self.round = rounds(schedule, self.budget), 0

    def calibrate(self, network: Network) -> Mapping[str, Any]:
        """What :meth:`prune` needs to know about each layer's inputs, by layer name."""
        return dict.fromkeys(layer.name for layer in network.layers)

    def share(self, network: Network, statistics: Mapping[str, Any]) -> dict[str, Share]:
        """Each layer's share of the budget."""
        weights = {layer.name: layer.module.weight.detach() for layer in network.layers}
        keep = self.allocations[self.allocation](weights, self.budget.density)
        return {name: Share(count, self.budget.bits) for name, count in keep.items()}

    def prune(self, layer: Layer, keep: int, statistics: Any) -> tuple[Tensor, Tensor, float | None]:
        """The layer's new weight, its mask (both ``[rows, d]``, ``keep`` entries True) and the loss, where known."""
        raise NotImplementedError(f"{type(self).__name__} must implement prune()")

    def quantize(self, layer: Layer, pruned: Treated, bits: int, statistics: Any) -> Treated:
        """Round the weights that are left; pruned ones stay zero."""
        grid = self.grid(pruned.weight, bits, pruned.mask)
        return Treated(grid.nearest(pruned.weight) * pruned.mask, pruned.mask, None, grid)

    def grid(self, weight: Tensor, bits: int, mask: Tensor) -> Grid:
        """The levels of a layer's weights, fitted to those that are kept."""
        return fit_grid(weight, bits, per=self.per, symmetric=self.symmetric, search=self.search, mask=mask)

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Treat every layer within its share of the budget, in order of execution."""
        statistics = self.calibrate(network)
        shares = self.share(network, statistics)
        earlier = {} if self.compression is None else self.compression.masks()
        return tuple(
            applied(layer, self.treat(network, layer, shares[layer.name], statistics[layer.name]), earlier)
            for layer in network.track(network.layers, f"{type(self).__name__}: {self.stage}")
        )

    @property
    def stage(self) -> str:
        """The budget of now and, of several rounds, which one, for people."""
        several = len(self.rounds) > 1
        return f"round {self.round + 1}/{len(self.rounds)}, {self.budget}" if several else str(self.budget)

    # Rounds ----------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune the first round, unless a checkpoint restored a network of that round or a later one.

        Raises:
            BudgetError: the fit has fewer epochs than there are rounds.
        """
        epochs = trainer.max_epochs or 0
        if 1 < len(self.rounds) > epochs:
            raise BudgetError(
                f"the schedule has {len(self.rounds)} rounds down to {self.rounds[-1]}, but the fit has {epochs} "
                "epochs: fine-tune for at least as many, or take fewer rounds"
            )
        self.budget = self.rounds[self.round]
        super().on_fit_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune again if this epoch begins a round."""
        count = len(self.rounds)
        due = round_at(trainer.current_epoch, pruning_epochs(trainer.max_epochs or 0, count), count)
        if due > self.round:
            self.round, self.budget = due, self.rounds[due]
            self.compress_now(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What was done, and in which round."""
        return super().state_dict() | {"round": self.round}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the masks and the round of a checkpoint."""
        super().load_state_dict(state_dict)
        self.round = state_dict["round"]

    # -----------------------------------------------------------------------------------------------------------------

    def treat(self, network: Network, layer: Layer, share: Share, statistics: Any) -> Treated:
        """Prune a layer, and quantise it if its share says so."""
        pruned = Treated(*self.prune(layer, share.keep, statistics))
        return pruned if share.bits is None else self.quantize(layer, pruned, share.bits, statistics)


def applied(layer: Layer, treated: Treated, earlier: Mapping[str, Tensor] | None = None) -> LayerCompression:
    """Write the new weight into the layer, in its own precision, and say what was done.

    ``earlier`` are the masks of the round before, by layer name: what went then stays away, whatever a method says now.
    """
    parameter = layer.module.weight
    mask, grid = treated.mask.view_as(parameter), treated.grid
    if earlier:
        mask = mask & earlier[layer.name].to(mask.device)
    with torch.no_grad():
        if grid is None:
            parameter.copy_(treated.weight.view_as(parameter) * mask)
            return LayerCompression(layer.name, tuple(parameter.shape), mask, treated.loss, extra=treated.extra)
        grid = grid.to(parameter)
        codes = grid.codes(treated.weight.to(parameter)).view_as(parameter)
        result = LayerCompression(layer.name, tuple(parameter.shape), mask, treated.loss, grid, codes, treated.extra)
        parameter.copy_(result.weight())
    return result
