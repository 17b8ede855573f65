"""Single weights: split the budget between the layers, choose which weights of a layer stay, and round them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from compressors.base import Compressor, State
from compressors.budget import Budget, BudgetError
from compressors.calibration.network import Network
from compressors.calibration.reconstruction import Course, Teacher
from compressors.compression import LayerCompression
from compressors.network.layers import Layer
from compressors.options import require_known
from compressors.quantization.grids import SCOPES, Grid, fit_grid
from compressors.weights.allocation import ALLOCATIONS, weights_of
from compressors.weights.parts import LayerBudget, LayerResult
from compressors.weights.schedule import Schedule, pruning_epochs, round_at, rounds


@dataclass
class PrunerState(State):
    """As of every compressor, and which round of its schedule a pruner is in (from 0)."""

    round: int = 0


class Pruner(Compressor):
    """Base of the methods that remove and round single weights.

    Subclasses implement :meth:`prune`; :meth:`calibrate` if they look at data; :meth:`quantize` if they can do better
    than round what is left to the nearest level.

    Args:
        allocation: how the budget is split between layers: ``uniform``, ``erk``, ``global`` or ``lamp``.
        per: a grid of its own for every output ``channel``, or one for the whole ``tensor``.
        symmetric: grids with the zero point in the middle of the codes.
        search: shrink each grid's range to the least error; without it the range is that of the weights.
        schedule: None prunes once, before the fine-tuning. A factor (0.8) or a list of shares prunes in rounds during
            the first half of it; see :mod:`compressors.weights.schedule`.

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    budgets: ClassVar[tuple[str, ...]] = ("density", "density+bits")
    allocations: ClassVar[tuple[str, ...]] = tuple(ALLOCATIONS)

    allocation: str = "uniform"
    per: str = "channel"
    symmetric: bool = True
    search: bool = True
    schedule: Schedule = None
    state: PrunerState = field(default_factory=PrunerState, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("allocation", self.allocation, self.allocations)
        require_known("per", self.per, SCOPES)
        if isinstance(self.schedule, list):
            self._set("schedule", tuple(self.schedule))
        _ = self.rounds  # a schedule that cannot be is refused here

    @property
    def idle(self) -> bool:
        """Whether there is no budget, and nothing else is to be done."""
        return self.goal == Budget() and not self.aftercare

    @property
    def rounds(self) -> tuple[Budget, ...]:
        """The budgets of all rounds, the last of them the goal."""
        return rounds(self.schedule, self.goal)

    @property
    def budget(self) -> Budget:
        """What the network may cost in this round."""
        return self.rounds[self.state.round]

    def rounds_at_once(self, epochs: int) -> bool:
        """Whether all rounds are done at the start of a fit of so many epochs: where the network learns after each."""
        return not epochs and "reconstruct" in self.aftercare

    def course(self, network: Network) -> Course:
        """How the compressed network learns in this round: before the last one for a part of the steps, to go on."""
        course, count = super().course(network), len(self.rounds)
        if self.state.round == count - 1:
            return course
        return replace(course, steps=max(1, course.steps // count), starts=1)

    @property
    def stage(self) -> str:
        """The budget of now and, of several rounds, which one, for people."""
        several = len(self.rounds) > 1
        return f"round {self.state.round + 1}/{len(self.rounds)}, {self.budget}" if several else str(self.budget)

    # A network -------------------------------------------------------------------------------------------------------

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Compress every layer within its part of the budget, in order of execution."""
        statistics = self.calibrate(network)
        parts = self.split_budget(network, statistics)
        earlier = {} if self.compression is None else self.compression.masks()
        accounts: list[LayerCompression] = []
        for layer in network.track(network.layers, f"{type(self).__name__}: {self.stage}"):
            result = self.compress_layer(network, layer, parts[layer.name], statistics[layer.name])
            accounts.append(write_back(layer, result, earlier))
            network.note(_so_far(accounts))
        return tuple(accounts)

    def calibrate(self, network: Network) -> Mapping[str, Any]:
        """What :meth:`prune` needs to know about each layer's inputs, by layer name."""
        return dict.fromkeys(layer.name for layer in network.layers)

    def split_budget(self, network: Network, statistics: Mapping[str, Any]) -> dict[str, LayerBudget]:
        """Each layer's part of the budget."""
        keep = ALLOCATIONS[self.allocation](weights_of(network.layers), self.budget.density)
        return {name: LayerBudget(count, self.budget.bits) for name, count in keep.items()}

    def compress_layer(self, network: Network, layer: Layer, part: LayerBudget, statistics: Any) -> LayerResult:
        """Prune a layer, and quantise it if its part of the budget says so."""
        weight, mask, loss = self.prune(layer, part.keep, statistics)
        pruned = LayerResult(weight, mask, loss)
        return pruned if part.bits is None else self.quantize(layer, pruned, part.bits, statistics)

    def prune(self, layer: Layer, keep: int, statistics: Any) -> tuple[Tensor, Tensor, float | None]:
        """The layer's new weight, its mask (both ``[rows, d]``, ``keep`` entries True) and the loss, where known."""
        raise NotImplementedError(f"{type(self).__name__} must implement prune()")

    def quantize(self, layer: Layer, pruned: LayerResult, bits: int, statistics: Any) -> LayerResult:
        """Round the weights that are left; pruned ones stay zero."""
        grid = self.grid(pruned.weight, bits, pruned.mask)
        return LayerResult(grid.nearest(pruned.weight) * pruned.mask, pruned.mask, None, grid)

    def grid(self, weight: Tensor, bits: int, mask: Tensor) -> Grid:
        """The levels of a layer's weights, fitted to those that are kept."""
        return fit_grid(weight, bits, per=self.per, symmetric=self.symmetric, search=self.search, mask=mask)

    # Rounds: Lightning's hooks, in their order -----------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune the first round, unless a checkpoint restored a network of that round or a later one.

        Where :meth:`rounds_at_once` says so, all rounds are done here.

        Raises:
            BudgetError: the fit has fewer epochs than there are rounds.
        """
        epochs = trainer.max_epochs or 0
        if self.rounds_at_once(epochs):
            if self.compression is None:
                self._compress_by_rounds(trainer, pl_module)
        elif 1 < len(self.rounds) > epochs:
            raise BudgetError(
                f"the schedule has {len(self.rounds)} rounds down to {self.rounds[-1]}, but the fit has {epochs} "
                "epochs: fine-tune for at least as many, take fewer rounds, or let aftercare 'reconstruct' follow each"
            )
        super().on_fit_start(trainer, pl_module)

    def _compress_by_rounds(self, trainer: Trainer, module: LightningModule) -> None:
        """Cut to the budget of each round and learn from the dense network, round after round."""
        teacher = Teacher(module)
        for number in range(len(self.rounds)):
            self.state.round = number
            self.compress_now(trainer, module, teacher)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune again if this epoch begins a round."""
        count = len(self.rounds)
        due = round_at(trainer.current_epoch, pruning_epochs(trainer.max_epochs or 0, count), count)
        if due > self.state.round:
            self.state.round = due
            self.compress_now(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What was done, and in which round."""
        return super().state_dict() | {"round": self.state.round}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the masks and the round of a checkpoint."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "round"})
        self.state.round = state_dict["round"]


def _so_far(accounts: Sequence[LayerCompression]) -> dict[str, float]:
    """Layers that are done, the share of their weights that is left, and the loss that the method estimates."""
    kept, weights = (sum(getattr(account, name) for account in accounts) for name in ("kept", "weights"))
    losses = [account.loss for account in accounts if account.loss is not None]
    known = {"compress/loss": sum(losses)} if len(losses) == len(accounts) else {}
    return {"compress/layers": len(accounts), "compress/density": kept / weights, **known}


def write_back(layer: Layer, result: LayerResult, earlier: Mapping[str, Tensor] | None = None) -> LayerCompression:
    """Write the new weight into the layer, in its own precision, and say what was done.

    ``earlier`` are the masks of the round before, by layer name: what went then stays away, whatever a method says now.
    """
    parameter = layer.module.weight
    mask, grid = result.mask.view_as(parameter), result.grid
    if earlier:
        mask = mask & earlier[layer.name].to(mask.device)
    with torch.no_grad():
        if grid is None:
            parameter.copy_(result.weight.view_as(parameter) * mask)
            return LayerCompression(layer.name, tuple(parameter.shape), mask, result.loss, extra=result.extra)
        grid = grid.to(parameter)
        codes = grid.codes(result.weight.to(parameter)).view_as(parameter)
        account = LayerCompression(layer.name, tuple(parameter.shape), mask, result.loss, grid, codes, result.extra)
        parameter.copy_(account.weight())
    return account
