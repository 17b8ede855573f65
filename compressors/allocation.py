"""How a budget for the whole network is shared between its layers.

Every function takes the layers' weights by name and the share of weights to keep, and says how many weights each
layer keeps. Which ones is the method's affair.
"""

from bisect import bisect_right
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


def lamp(
    weights: Mapping[str, Tensor], density: float, power: float = 2.0, factors: Mapping[str, float] | None = None
) -> dict[str, int]:
    """The largest LAMP scores of the network (Lee and others, "Layer-adaptive sparsity", ICLR 2021).

    ``factors`` are put on the scores layer by layer; they count relative to the largest, so that equal ones change
    nothing, not even a rounding.
    """
    scores = {name: lamp_scores(w, power) for name, w in weights.items()}
    largest = max(factors.values()) if factors else 0.0
    if factors is not None and largest > 0:
        scores = {name: score * (factors[name] / largest) for name, score in scores.items()}
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


def densest(allocate: Allocation, weights: Mapping[str, Tensor], costs: Mapping[str, Tensor], share: float) -> float:
    """The largest density at which the largest weights of each layer cost at most ``share`` of what all weights cost.

    Args:
        allocate: shares a density between the layers, none of which gets more where the density is smaller.
        weights: by layer name.
        costs: of each weight while it is there, of the weights' shapes: synaptic operations, for instance.
        share: in (0, 1].

    Raises:
        ValueError: even one weight a layer costs more.
    """
    spent = {name: _spent(w, costs[name]) for name, w in weights.items()}
    every = sum(w.numel() for w in weights.values())
    limit = share * sum(float(total[-1]) for total in spent.values())

    def cost(kept: int) -> float:
        counts = allocate(weights, kept / every)
        return sum(float(spent[name][count - 1]) for name, count in counts.items())

    kept = bisect_right(range(len(weights), every + 1), limit * (1 + 1e-12), key=cost) + len(weights) - 1
    if kept < len(weights):
        raise ValueError(f"one weight a layer already costs {cost(len(weights)) / limit * share:.3g} of the whole")
    return kept / every


def _spent(weight: Tensor, cost: Tensor) -> Tensor:
    """Cost of a layer's n + 1 largest weights, for every n: ``[weights]`` float64."""
    order = weight.abs().flatten().argsort(descending=True, stable=True)
    return cost.flatten().double()[order].cumsum(0)


ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "erk": erk, "global": by_magnitude, "lamp": lamp}
