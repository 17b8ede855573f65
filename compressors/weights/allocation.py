"""How a budget for the whole network is shared between its layers.

Every function takes the layers' weights by name and the share of weights to keep, and says how many weights each
layer keeps. Which ones is the method's affair.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from compressors.network.layers import Layer

Allocation = Callable[[Mapping[str, Tensor], float], dict[str, int]]


def weights_of(layers: Iterable[Layer]) -> dict[str, Tensor]:
    """The layers' weights by name, without gradients."""
    return {layer.name: layer.module.weight.detach() for layer in layers}


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


def erk(
    weights: Mapping[str, Tensor], density: float, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, int]:
    """Erdos-Renyi-kernel densities (Evci and others, "Rigging the lottery", ICML 2020).

    A layer's density is proportional to the sum of its weight's dimensions over their product; layers that would
    exceed 1 are kept dense and the others share the rest. The dimensions are those of ``shapes``, where given.
    """
    sums = {name: sum(w.shape if shapes is None else shapes[name]) for name, w in weights.items()}
    return _in_proportion(weights, density, sums)


def er(weights: Mapping[str, Tensor], density: float) -> dict[str, int]:
    """Erdos-Renyi densities (Mocanu and others, "Scalable training of artificial neural networks", 2018).

    As :func:`erk`, but that a convolution's kernel is no dimension: ``(inputs + outputs) / (inputs * outputs)``.
    """
    return _in_proportion(weights, density, {name: sum(w.shape[:2]) * w[0, 0].numel() for name, w in weights.items()})


def _in_proportion(weights: Mapping[str, Tensor], density: float, sizes: Mapping[str, int]) -> dict[str, int]:
    """As many weights a layer as its size has of all sizes; those that would exceed all they have keep all."""
    dense: set[str] = set()
    while True:
        others = [name for name in weights if name not in dense]
        rest = density * sum(w.numel() for w in weights.values()) - sum(weights[name].numel() for name in dense)
        scale = rest / max(1, sum(sizes[name] for name in others))
        kept = {name: scale * sizes[name] for name in others}
        full = {name for name in others if kept[name] > weights[name].numel()}
        if not full:
            return {name: w.numel() if name in dense else max(1, round(kept[name])) for name, w in weights.items()}
        dense |= full


def over_living(
    allocate: Allocation, weights: Mapping[str, Tensor], dead: Mapping[str, Tensor], density: float
) -> dict[str, int]:
    """Share a density between the weights that are not dead, so that as many of all weights stay as it asks for.

    Args:
        allocate: shares a density between the layers.
        weights: by layer name.
        dead: weights that are to go whatever the density, bool of the weights' number of entries, by layer name.
        density: share of all weights, dead ones included.

    Returns:
        How many weights each layer keeps: none where all are dead, all that live where they are fewer than asked for.
    """
    if not any(gone.any() for gone in dead.values()):
        return allocate(weights, density)
    living = {name: w.flatten()[~dead[name].flatten()] for name, w in weights.items()}
    some = {name: w for name, w in living.items() if w.numel()}
    every, left = (sum(w.numel() for w in layers.values()) for layers in (weights, some))
    if allocate is erk:
        allocate = partial(erk, shapes={name: w.shape for name, w in weights.items()})
    kept = allocate(some, min(1.0, density * every / left)) if some else {}
    return {name: kept.get(name, 0) for name in weights}


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


@dataclass(frozen=True)
class Curve:
    """What a layer may cost, and the loss at each cost: both ``[n]`` float64, in any order."""

    costs: Tensor
    losses: Tensor


def split(curves: Mapping[str, Curve], budget: float) -> dict[str, int]:
    """The choice on each curve that makes the summed loss least within a budget of summed cost: name -> index.

    A price on cost decides each curve by itself; the least price that keeps to the budget is found by bisection. That
    is the optimum among the curves' convex hulls; what it leaves of the budget is spent where it lowers the loss most.

    Raises:
        ValueError: the least costs together exceed the budget.
    """
    least = sum(float(curve.costs.min()) for curve in curves.values())
    if least > budget * (1 + 1e-12):
        raise ValueError(f"the least that can be had costs {least:.6g}, the budget is {budget:.6g}")
    low, high = 0.0, max(float(_steepest(curve)) for curve in curves.values())
    if _spent_at(curves, low) <= budget:
        high = low
    for _ in range(PRICES):
        price = (low + high) / 2
        low, high = (low, price) if _spent_at(curves, price) <= budget else (price, high)
    chosen = {name: _choice(curve, high) for name, curve in curves.items()}
    return _spend_rest(curves, chosen, budget)


PRICES = 100  # bisections: below the rounding of any price


def _choice(curve: Curve, price: float) -> int:
    """The cheapest of the points of least loss and price together."""
    total = curve.losses + price * curve.costs
    best = (total == total.min()).nonzero()[:, 0]
    return int(best[curve.costs[best].argmin()])


def _spent_at(curves: Mapping[str, Curve], price: float) -> float:
    return sum(float(curve.costs[_choice(curve, price)]) for curve in curves.values())


def _steepest(curve: Curve) -> Tensor:
    """A price above which the cheapest point is chosen."""
    cheapest = curve.costs.argmin()
    dearer = curve.costs > curve.costs[cheapest]
    gained = (curve.losses[cheapest] - curve.losses[dearer]) / (curve.costs[dearer] - curve.costs[cheapest])
    return torch.cat([gained, gained.new_zeros(1)]).max().clamp_min(0.0) * 2 + 1e-300


def _spend_rest(curves: Mapping[str, Curve], chosen: dict[str, int], budget: float) -> dict[str, int]:
    while True:
        left = budget * (1 + 1e-12) - sum(float(curve.costs[chosen[name]]) for name, curve in curves.items())
        better = {name: _within(curve, chosen[name], left) for name, curve in curves.items()}
        gains = {name: float(c.losses[chosen[name]] - c.losses[better[name]]) for name, c in curves.items()}
        name = max(gains, key=lambda name: gains[name])
        if gains[name] <= 0:
            return chosen
        chosen = {**chosen, name: better[name]}


def _within(curve: Curve, chosen: int, left: float) -> int:
    """The point of least loss that costs at most ``left`` more than the chosen one."""
    losses = curve.losses.masked_fill(curve.costs > curve.costs[chosen] + left, torch.inf)
    return int(losses.argmin())


ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "erk": erk, "global": by_magnitude, "lamp": lamp}
