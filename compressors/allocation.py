"""How a budget for the whole network is shared between its layers.

Every function takes the layers' weights by name and the share of weights to keep, and says how many weights each
layer keeps. Which ones is the method's affair.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Allocation = Callable[[Mapping[str, Tensor], float], dict[str, int]]


def kept_in_all(weights: Mapping[str, Tensor], density: float) -> int:
    """How many of all weights a density keeps: rounded, at least one a layer."""
    return max(len(weights), round(density * sum(w.numel() for w in weights.values())))


def uniform(weights: Mapping[str, Tensor], density: float) -> dict[str, int]:
    """The same density in every layer."""
    return {name: max(1, round(density * w.numel())) for name, w in weights.items()}


def by_magnitude(weights: Mapping[str, Tensor], density: float) -> dict[str, int]:
    """The largest magnitudes of the network, wherever they stand ("global magnitude pruning")."""
    return _best({name: w.abs().flatten().double() for name, w in weights.items()}, kept_in_all(weights, density))


def lamp(weights: Mapping[str, Tensor], density: float, power: float = 2.0) -> dict[str, int]:
    """The largest LAMP scores of the network (Lee and others, "Layer-adaptive sparsity", ICLR 2021)."""
    scores = {name: lamp_scores(w, power) for name, w in weights.items()}
    return _best(scores, kept_in_all(weights, density))


def lamp_scores(weight: Tensor, power: float = 2.0) -> Tensor:
    """``|w_u|^p / sum of |w_v|^p over v with |w_v| >= |w_u|`` for every weight, sorted upwards: ``[n]`` float64.

    LAMP's score with p = 2. The sum is a reversed cumulative one in float64: taking it as a difference of float32 sums
    loses the scores of large layers.
    """
    magnitude = weight.abs().flatten().double().sort().values.pow(power)
    surviving = magnitude.flip(0).cumsum(0).flip(0)
    return torch.where(surviving > 0, magnitude / surviving, 0.0)


def erk(weights: Mapping[str, Tensor], density: float) -> dict[str, int]:
    """Erdos-Renyi-kernel densities (Evci and others, "Rigging the lottery", ICML 2020).

    A layer's density is proportional to the sum of its weight's dimensions over their product; layers that would
    exceed 1 are kept dense and the others share the rest.
    """
    dense: set[str] = set()
    while True:
        others = [name for name in weights if name not in dense]
        rest = density * sum(w.numel() for w in weights.values()) - sum(weights[name].numel() for name in dense)
        scale = rest / max(1, sum(sum(weights[name].shape) for name in others))
        kept = {name: scale * sum(weights[name].shape) for name in others}
        full = {name for name in others if kept[name] > weights[name].numel()}
        if not full:
            return {name: w.numel() if name in dense else max(1, round(kept[name])) for name, w in weights.items()}
        dense |= full


def _best(scores: Mapping[str, Tensor], keep: int) -> dict[str, int]:
    """Per layer, how many of the ``keep`` best scores are its own; no layer is left without any weight.

    The best score of each layer is kept whatever it is; ties go to the earlier layer, so the total is exact.
    """
    ranked = {name: s.sort(descending=True).values[1:] for name, s in scores.items()}
    owner = torch.cat([torch.full_like(s, i, dtype=torch.int64) for i, s in enumerate(ranked.values())])
    order = torch.cat(list(ranked.values())).argsort(descending=True, stable=True)[: keep - len(scores)]
    counts = torch.bincount(owner[order], minlength=len(scores)).tolist()
    return {name: 1 + count for name, count in zip(scores, counts, strict=True)}


ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "erk": erk, "global": by_magnitude, "lamp": lamp}
