"""A Hessian that knows the loss: second moments of a layer's inputs, each weighed by what an error there would cost.

Kim and others, "GuidedQuant" (arXiv 2505.07004), here on membranes. The Hessian of the squared output error counts
every error of every output alike, at every step. The network's loss does not: to second order it grows by the square
of the error times the squared gradient ``s`` of the loss at the layer's output (the diagonal of the Fisher
information). A Hessian of each output unit's own would take too much memory, so the units of a layer stand in up to
:data:`GROUPS` groups, and those of a group share the mean of their squared gradients:

    H_g = 2 E[sum over time and positions of s_g z z^T]

with ``z`` as in :func:`compressors.calibration.hessians.hessians`. No label takes part: the loss is the cross-entropy
with labels drawn from the dense network's own answers, whose squared gradients are the true Fisher information.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.func import functional_call

from compressors.calibration.hessians import add_products, counted, symmetric, vectors, watching, whole_passes
from compressors.calibration.processes import Batches, batches_of_rank, summed_over_ranks
from compressors.network.layers import Layer, evaluating, hooks

GROUPS = 4
"""Groups of output units, each with a Hessian of its own; GuidedQuant's number."""

BATCH = 10
"""Samples whose activations are held for a backward pass at once."""


def groups_of(layer: Layer) -> int:
    """How many Hessians a layer has: of each group of a convolution as many as divide its units, at most four."""
    units = len(layer.rows) // layer.groups
    return layer.groups * next(count for count in range(GROUPS, 0, -1) if units % count == 0)


def fisher_hessians(
    network: nn.Module,
    layers: Sequence[Layer],
    responses: Mapping[str, Tensor | None],
    batches: Batches,
    *,
    dtype: torch.dtype = torch.float64,
    parameters: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """The Hessian ``[groups, d, d]`` of each layer, a mean over samples.

    Row r of a weight belongs to group ``r // (rows / groups)``, of which there are :func:`groups_of` the layer.
    The arguments are those of :func:`compressors.calibration.hessians.hessians`; ``network`` gives scores ``[B, K]``.

    Raises:
        CalibrationError: no calibration data, or data that are not finite.
        LayerError: a layer that cannot be unfolded.
    """
    sums = {layer.name: _FisherSum(layer, responses[layer.name], dtype) for layer in layers}
    parameters = {name: weight.detach() for name, weight in network.named_parameters()} | dict(parameters)
    sharpness, samples = 1 / _spread(network, batches, parameters), 0
    for number, batch in batches_of_rank(enumerate(batches())):
        chance = torch.Generator().manual_seed(number)
        samples += len(batch)
        for x in batch.split(BATCH):
            for layer, inputs, gradient in _gradients(network, layers, x, parameters, sharpness, chance):
                sums[layer.name].add(layer, inputs, gradient)
    count = counted(samples, next(network.parameters()).device)
    return {name: sums.pop(name).mean(count) for name in [*sums]}


def _spread(network: nn.Module, batches: Batches, parameters: dict[str, Tensor]) -> Tensor:
    """Standard deviation of the scores: rates lie close together, and are told apart in units of it."""
    moments = torch.zeros(3, dtype=torch.float64)
    with evaluating(network):
        for x in batches_of_rank(batches()):
            functional.reset_net(network)
            scores = functional_call(network, parameters, (x,)).double().cpu()
            moments += torch.stack([torch.tensor(scores.numel()), scores.sum(), scores.square().sum()])
    count, total, squares = summed_over_ranks(moments)
    return (squares / count - (total / count).square()).clamp_min(1e-24).sqrt()


def _gradients(
    network: nn.Module,
    layers: Sequence[Layer],
    x: Tensor,
    parameters: dict[str, Tensor],
    sharpness: Tensor,
    chance: torch.Generator,
) -> list[tuple[Layer, Tensor, Tensor]]:
    """Each use of a layer with its input ``[T, B, ...]`` and the gradient of the loss at its output, of all steps."""
    uses: list[tuple[Layer, Tensor]] = []
    probes: dict[nn.Module, list[Tensor]] = {}

    def take(layer: Layer, inputs: Tensor) -> None:
        uses.append((layer, inputs.detach().clone()))  # the network may go on to write into it

    def probe(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = torch.zeros_like(output, requires_grad=True)
        probes.setdefault(module, []).append(change)
        return output + change

    watched = {module: hook for layer in layers for module, hook in whole_passes(layer, take).items()}
    with evaluating(network), watching(watched), hooks([*watched], probe), torch.enable_grad():
        functional.reset_net(network)
        scores = functional_call(network, parameters, (x,)) * sharpness.to(x.device)
        labels = torch.multinomial(scores.detach().softmax(1).cpu(), 1, generator=chance)[:, 0]
        loss = F.cross_entropy(scores, labels.to(scores.device), reduction="sum")
        gradients = iter(torch.autograd.grad(loss, [change for changes in probes.values() for change in changes]))
    of_module = {module: [next(gradients) for _ in changes] for module, changes in probes.items()}
    return [(layer, x, torch.cat([of_module[layer.module].pop(0) for _ in range(layer.calls)])) for layer, x in uses]


class _FisherSum:
    """Adds up ``2 s z^T z`` over the inputs of one layer, for each group of its units."""

    def __init__(self, layer: Layer, response: Tensor | None, dtype: torch.dtype) -> None:
        weight, groups = layer.rows, groups_of(layer)
        self.response = response
        columns = weight.shape[1]
        self.total = torch.zeros(
            layer.groups, groups // layer.groups, columns, columns, dtype=dtype, device=weight.device
        )

    def add(self, layer: Layer, x: Tensor, gradient: Tensor) -> None:
        """Add an input ``x [T, B, ...]`` of the layer and the gradient at its output, ``[T, B, out, ...]``."""
        root = self._root_of_squares(layer, gradient)
        start = 0
        for z in vectors(layer, x.to(self.total.dtype), self.response):
            part = root[:, :, start : start + z.shape[1]]
            start += z.shape[1]
            for group in range(self.total.shape[1]):
                add_products(self.total[:, group], z * part[:, group, :, None])

    def _root_of_squares(self, layer: Layer, gradient: Tensor) -> Tensor:
        """The root of the mean squared gradient of each group's units: ``[groups of the layer, groups, vectors]``."""
        if layer.repeated:  # one step stands for all, and its gradient is the sum of theirs
            gradient = (gradient / layer.timesteps).expand(layer.timesteps, *gradient.shape[1:])
        frames = gradient.to(self.total.dtype).flatten(0, 1)
        frames = frames.flatten(2) if layer.module.weight.dim() > 2 else frames.flatten(0, -2)[:, :, None]
        units = frames.unflatten(1, (*self.total.shape[:2], -1))  # [frames, groups of the layer, groups, units, places]
        return units.square().mean(3).permute(1, 2, 0, 3).flatten(2).sqrt()

    def mean(self, samples: float) -> Tensor:
        """The Hessian, a mean over the samples of all ranks, of which there are ``samples``."""
        return symmetric(summed_over_ranks(self.total.flatten(0, 1))).div_(samples)
