"""Lottery tickets by iterative magnitude pruning: prune, go back to an early state, train again."""

import copy
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from compressors import masks
from compressors.annotations import Epoch, Seed
from compressors.budget import Budget, BudgetError, OptionError
from compressors.calibration.early_time import RULES, fewest_steps, require_timesteps
from compressors.calibration.network import Network
from compressors.channels.pruner import averages, epochs_of
from compressors.compression import LayerCompression
from compressors.methods.magnitude import Magnitude
from compressors.network.anew import begin_anew
from compressors.options import require_known
from compressors.weights.pruner import PrunerState
from compressors.weights.schedule import rounds

FACTOR = 0.75  # of the weights that are left: what stays in each of the authors' rounds


@dataclass
class LotteryState(PrunerState):
    """As of every pruner, and what a lottery plays with.

    Args:
        ladder: the budgets of all rounds, once the fit's epochs are known.
        epochs: of the fit.
        early: the state that rounds go back to: the module's, and those of its optimizers and schedules.
        all_steps: the time steps of the network that the fit was given.
        few_steps: those that tickets are searched at; 0 while that is not known.
    """

    ladder: tuple[Budget, ...] = ()
    epochs: int = 0
    early: dict[str, Any] = field(default_factory=dict)
    all_steps: int = 0
    few_steps: int = 0


class Lottery(Magnitude):
    """Trains, removes the smallest weights of the network, puts the others back to an early state, and so on.

    Kim and others, "Exploring Lottery Ticket Hypothesis in Spiking Neural Networks" (ECCV 2022), which brings Frankle
    and Carbin's iterative magnitude pruning with late rewinding to spiking networks: in each round a quarter of the
    weights that are left goes, the smallest of all layers; the rest goes back to the values of epoch 20 of 300, and is
    trained again. Taken are the rounds, the global threshold, and the rewinding of weights, BatchNorm, optimizer and
    learning rate.

    *The rounds share the epochs of the fit*, so that in a table all methods train for as long; the course of the
    learning rate is one round's, and begins again with every round. A lottery as long as the authors' needs a fit of
    all its trainings together.

    *Which state is early.* A fit begins with a trained dense network, whose own early states are gone. With
    ``weights="kept"`` the dense network is the first training: round one prunes it and trains on, and the state
    ``rewind_epoch`` epochs into that round is the one that later rounds go back to. With ``weights="new"`` the network
    is begun anew, as the authors do: it is first trained densely, the state ``rewind_epoch`` epochs into that training
    is the early one, and the dense checkpoint plays no part.

    *Time steps.* With ``timesteps="early"`` tickets are searched at fewer time steps and the last one is trained at all
    of them: the authors' early-time tickets. With ``timesteps="settled"`` everything after the first pruning happens at
    fewer time steps, testing too, as Gou and others have it (Frontiers in Neuroscience 19:1545583, 2025; with
    ``allocation="lamp"`` that is their method). How many is decided when the first weights go, on the calibration
    data and, for ``settled``, their labels: :mod:`compressors.calibration.early_time`.

    Args:
        allocation: ``global`` as the authors have it; ``lamp`` gives LAMP in rounds with rewinding.
        schedule: as of :class:`~compressors.weights.pruner.Pruner`, but that the rounds share the whole fit. None takes
            the authors' 0.75 down to the density, and of these rounds the last ones, as many as there are epochs for;
            without epochs all weights go at once.
        rewind_epoch: of the first training: the state at its start is what rounds go back to.
        weights: ``kept`` or ``new``, see above.
        seed: of new weights.
        timesteps: ``all``, ``early`` or ``settled``, see above.

    The other options are those of :class:`~compressors.weights.pruner.Pruner`.

    Raises:
        BudgetError: at the start of a fit with fewer epochs than the schedule needs, or of time steps, with none.
        LayerError: at the start of a fit of a network without ``timesteps`` that should have fewer.
    """

    control = False
    budgets: ClassVar[tuple[str, ...]] = ("density", "density+bits")

    allocation: str = "global"
    rewind_epoch: Epoch = 1
    weights: str = "kept"
    seed: Seed = 0
    timesteps: str = "all"
    state: LotteryState = field(default_factory=LotteryState, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("weights", self.weights, ("kept", "new"))
        require_known("timesteps", self.timesteps, ("all", *RULES))

    @property
    def idle(self) -> bool:
        """Whether there is no budget, weights and time steps are kept, and nothing else is to be done."""
        return super().idle and self.weights == "kept" and self.timesteps == "all"

    @property
    def rounds(self) -> tuple[Budget, ...]:
        """The budgets of all rounds, the last of them the goal; new weights are first trained densely."""
        return self.state.ladder or rounds(self.schedule, self.goal)

    def _ladder(self, epochs: int) -> tuple[Budget, ...]:
        """The rounds of a fit of so many epochs.

        Raises:
            BudgetError: it has fewer than the rounds need.
        """
        first = (replace(self.goal, density=1.0, bits=None),) if self.weights == "new" else ()
        wanted = first + rounds(FACTOR if self.schedule is None else self.schedule, self.goal)
        affordable = max(epochs - self.rewind_epoch, 0)
        if self.schedule is None:
            wanted = first + wanted[len(first) :][-max(1, affordable - len(first)) :]
        if 1 < len(wanted) > affordable:
            raise BudgetError(
                f"the lottery has {len(wanted)} trainings down to {wanted[-1]}, the first of them with "
                f"{self.rewind_epoch} epochs to rewind to, but the fit has {epochs} epochs: fine-tune for at least "
                f"{len(wanted) + self.rewind_epoch}, or take fewer rounds"
            )
        return wanted

    @property
    def beginnings(self) -> list[int]:
        """The epoch with which each round begins: after ``rewind_epoch`` all share the epochs, the last the longest."""
        count, shared = len(self.rounds), self.state.epochs - self.rewind_epoch
        return [0, *(self.rewind_epoch + number * shared // count for number in range(1, count))]

    # A round ---------------------------------------------------------------------------------------------------------

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Remove the smallest weights, and put what is left back to its early state."""
        trained = self.weights == "kept" or self.state.round > 0
        if self.timesteps != "all" and trained and not self.state.few_steps:
            batches = self._loader(network.module.trainer)
            self.state.few_steps = fewest_steps(network.module, batches, self.timesteps)
        layers = super().compress(network)
        if self.state.early:
            network.module.load_state_dict(self.state.early["module"])
            masks.enforce(network.module, {layer.name: layer.mask for layer in layers})
        return layers

    def _set_timesteps(self, module: Any) -> None:
        """Those of this round; none but the network's own are ever set where they are kept."""
        if self.state.few_steps:
            back = self.timesteps == "early" and self.state.round == len(self.rounds) - 1
            module.timesteps = self.state.all_steps if back else self.state.few_steps

    def _keep_early(self, trainer: Trainer, module: nn.Module) -> None:
        schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
        state = {"module": module.state_dict(), "optimizers": optimizers, "schedules": schedules}
        self.state.early = copy.deepcopy(state)

    def _rewind_optimizers(self, trainer: Trainer) -> None:
        """The optimizers' memory and the learning rates are those of the early state."""
        early = copy.deepcopy(self.state.early)
        for optimizer, state in zip(trainer.optimizers, early["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for config, state in zip(trainer.lr_scheduler_configs, early["schedules"], strict=True):
            config.scheduler.load_state_dict(state)

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Plan the rounds; while optimizers are made, the fit is as long as one round, and so is their schedule."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self.state.epochs = epochs_of(trainer)
        if self.weights == "new" and not self.state.epochs:
            raise BudgetError("weights='new' needs epochs of fine-tuning: a network begun anew knows nothing")
        if self.timesteps != "all":
            self.state.all_steps = require_timesteps(pl_module)
            if not self.state.epochs:
                raise BudgetError(f"timesteps={self.timesteps!r} needs epochs of fine-tuning, to learn at fewer steps")
        self.state.ladder = self._ladder(self.state.epochs)
        if len(self.rounds) == 1:
            return
        if found := averages(trainer):
            raise OptionError(
                f"{type(found[0]).__name__} would average the weights of several trainings: leave it out, or prune in "
                f"one round (schedule=[{self.goal.density:g}])"
            )
        longest = math.ceil((self.state.epochs - self.rewind_epoch) / len(self.rounds))
        trainer.fit_loop.max_epochs = self.rewind_epoch + longest

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin round one, or go on where a checkpoint was saved."""
        self._whole_fit(trainer)
        if self.weights == "new" and self.compression is None:
            begin_anew(pl_module, self.seed)
        super().on_fit_start(trainer, pl_module)
        self._set_timesteps(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The trainer is as long as it was, whatever ended the fit."""
        self._whole_fit(trainer)

    def _whole_fit(self, trainer: Trainer) -> None:
        if len(self.state.ladder) > 1:
            trainer.fit_loop.max_epochs = self.state.epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the early state; begin the round of this epoch."""
        epoch = trainer.current_epoch
        if len(self.rounds) == 1:
            return
        if epoch == self.rewind_epoch and not self.state.early:
            self._keep_early(trainer, pl_module)
        due = bisect_right(self.beginnings, epoch) - 1
        if due > self.state.round:
            self.state.round = due
            self._rewind_optimizers(trainer)
            self.compress_now(trainer, pl_module)
            self._set_timesteps(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down what a round ends with."""
        epochs = trainer.current_epoch + 1
        if len(self.rounds) > 1 and epochs in (*self.beginnings[1:], self.state.epochs):
            done = self.done()
            measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
            steps = {} if self.timesteps == "all" else {"timesteps": pl_module.timesteps}
            reached = {"density": done.density, "epochs": epochs, **steps, **measured}
            self.state.compression = replace(done, stages=(*done.stages, reached))

    def state_dict(self) -> dict[str, Any]:
        """What was done, in which round, and the state to go back to."""
        return {"pruned": super().state_dict(), "early": self.state.early, "few_steps": self.state.few_steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(state_dict["pruned"])
        self.state.early = state_dict["early"]
        self.state.few_steps = state_dict["few_steps"]
