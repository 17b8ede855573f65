"""How the budget is tightened over the epochs of fine-tuning: at once, or in rounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lightning.pytorch import Trainer

from compressors.base import State
from compressors.budget import Budget, BudgetError

Schedule = float | Sequence[float] | None
"""None: at once. A factor, such as 0.8: that share of what is left stays in every round. Or the share of each round."""


@dataclass
class StateOfSteps(State):
    """As of every compressor, and how many steps of the optimizer the fit has."""

    steps: int = 0


def rounds(schedule: Schedule, goal: Budget) -> tuple[Budget, ...]:
    """The budgets of all rounds, the last of them ``goal``: what falls is its density, or its share of SynOps.

    Iterative pruning as LAMP's authors do it is the factor 0.8, so density ``0.8 ** k`` after round k.

    Raises:
        BudgetError: a factor that is not between 0 and 1, or shares that are not in (0, 1] or do not fall.
    """
    last = goal.density if goal.synops is None else goal.synops
    earlier = [share for share in _shares(schedule, last) if share > last * (1 + 1e-9)]
    if goal.synops is None:
        return *(replace(goal, density=share) for share in earlier), goal
    return *(replace(goal, synops=share) for share in earlier), goal


def _shares(schedule: Schedule, last: float) -> Sequence[float]:
    if schedule is None:
        return ()
    if isinstance(schedule, int | float):
        if not 0 < schedule < 1:
            raise BudgetError(f"schedule is {schedule!r}: give a factor between 0 and 1 (0.8 leaves 80 % each round)")
        return [schedule**k for k in range(1, math.ceil(math.log(last) / math.log(schedule)) + 1)]
    numbers = all(isinstance(share, int | float) and 0 < share <= 1 for share in schedule)
    if not numbers or any(after >= before for before, after in pairwise(schedule)):
        raise BudgetError(f"schedule is {schedule!r}: give falling numbers in (0, 1], the share kept in each round")
    return schedule


def round_at(epoch: int, epochs: int, count: int) -> int:
    """Which of ``count`` rounds epoch ``epoch`` belongs to (both from 0), where they share ``epochs`` equally."""
    return min(epoch * count // max(epochs, 1), count - 1)


def pruning_epochs(epochs: int, count: int) -> int:
    """In how many of a fit's first epochs ``count`` rounds of pruning are done: half, or one a round if those are more.

    The rest is the last round's, which has to recover while the learning rate is annealed.
    """
    return max(epochs // 2, count)


def steps_of(trainer: Trainer) -> int:
    """Steps of the optimizer in a fit; 0 for one without epochs.

    Raises:
        BudgetError: the fit has no end, so that nothing can be done in a share of it.
    """
    if trainer.max_epochs == 0:
        return 0
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise BudgetError("the density depends on how long the fit is, and it has no end: give max_epochs or max_steps")
    return int(steps)
