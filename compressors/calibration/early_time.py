"""How few time steps a network needs: by the divergence of what it says after fewer steps."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from compressors.network.layers import LayerError, evaluating

Divergences = Mapping[int, float]
"""Time steps -> divergence, a mean over samples."""

EARLY, SETTLED = 0.6, 0.01


def early(by_output: Divergences, by_label: Divergences) -> int:
    """The fewest steps whose divergence from the output of all is below 0.6 of the largest.

    Kim and others, "Exploring Lottery Ticket Hypothesis in Spiking Neural Networks" (ECCV 2022): the time of an
    "early-time ticket".
    """
    largest = max(by_output.values())
    return min(steps for steps, divergence in by_output.items() if divergence < EARLY * largest or not divergence)


def settled(by_output: Divergences, by_label: Divergences) -> int:
    """The fewest steps whose divergence from the labels, from 0 at the least to 1 at the largest, is below 0.01.

    Gou and others (Frontiers in Neuroscience 19:1545583, 2025).
    """
    least, largest = min(by_label.values()), max(by_label.values())
    limit = least + SETTLED * (largest - least)
    return min(steps for steps, divergence in by_label.items() if divergence < limit or divergence == least)


RULES: Mapping[str, Callable[[Divergences, Divergences], int]] = {"early": early, "settled": settled}


def fewest_steps(module: LightningModule, batches: Iterable[Any], rule: str) -> int:
    """The time steps that a rule chooses for a network, from 1 to the ``timesteps`` it has.

    Args:
        module: maps x to scores ``[B, classes]``, the mean over as many steps as its ``timesteps`` say.
        batches: of ``(x, y)``, labels ``y [B]``.
        rule: one of :data:`RULES`.

    Raises:
        LayerError: the module has no ``timesteps``.
    """
    most = require_timesteps(module)
    totals = torch.zeros(2, most, dtype=torch.float64)
    with evaluating(module), torch.no_grad():
        for batch in batches:
            x, y = (part.to(module.device) for part in batch[:2])
            said = torch.stack([_at(module, x, steps) for steps in range(1, most + 1)])  # [T, B, classes] log
            totals[0] += _divergences(said, said[-1].exp())
            totals[1] += _divergences(said, F.one_hot(y, said.shape[2]).to(said))
    module.timesteps = most  # type: ignore[assignment]  # an attribute of one's own
    by_output, by_label = ({steps: float(sums[steps - 1]) for steps in range(1, most + 1)} for sums in totals)
    return RULES[rule](by_output, by_label)


def require_timesteps(module: LightningModule) -> int:
    """The time steps of a network whose time steps can be changed.

    Raises:
        LayerError: it has no such attribute.
    """
    steps = getattr(module, "timesteps", None)
    if not isinstance(steps, int):
        raise LayerError(f"{type(module).__name__} has no attribute `timesteps` to lower: leave out timesteps")
    return steps


def _at(module: Any, x: Tensor, steps: int) -> Tensor:
    """Log-probabilities of the classes after so many steps: ``[B, classes]`` float64."""
    module.timesteps = steps
    return module(x).double().log_softmax(1)


def _divergences(said: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the target ``[B, classes]`` from ``said`` ``[T, B, classes]`` (log): ``[T]``."""
    return torch.stack([F.kl_div(one, target, reduction="sum") for one in said]).cpu()
