"""SLAMP: LAMP with a factor for each layer that says how its errors add up over time."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor

from compressors.calibration.activity import Activity, activities, changes
from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.methods.lamp import LAMP
from compressors.network.layers import Layer, LayerError
from compressors.network.neurons import impulse_response
from compressors.options import require_known
from compressors.weights.parts import LayerBudget, LayerResult


def step_weights(response: Tensor) -> Tensor:
    """How much an error in the input current of each step weighs: ``c_tau``, ``[T]``.

    ``c_tau = sum over t >= tau of |h[t - tau]| / T`` for an impulse response ``h`` ``[T]``: an error stays in the
    membrane until the leak has taken it away, so early ones weigh most; without memory all weigh 1 / T.
    """
    return response.abs().cumsum(0).flip(0) / len(response)


def _leak(weights: Tensor, activity: Activity) -> Tensor:
    return weights.sum()


def _relative(weights: Tensor, activity: Activity) -> Tensor:
    mean = activity.rms.mean()
    return (weights * (activity.rms / mean)).sum() if mean > 0 else weights.sum()


def _absolute(weights: Tensor, activity: Activity) -> Tensor:
    return (weights * activity.norm).sum()


VARIANTS: dict[str, Callable[[Tensor, Activity], Tensor]] = {"v1": _leak, "v2": _relative, "v3": _absolute}
"""Variant -> the root of a layer's factor, from ``c_tau`` and the layer's input activity."""


def distortion_bound(weight: Tensor, response: Tensor, activity: Activity) -> float:
    """What removing ``weight`` can change a layer's membrane potentials by: ``D_l``, a mean over steps and samples.

    ``D_l = |dW|_F sum over tau of c_tau |z[tau]|`` with ``z`` the unfolded input: with the resets of the dense network
    the change is ``du[t] = -sum over tau <= t of h[t - tau] dW z[tau]``, and the triangle inequality does the rest.

    Args:
        weight: what was removed, times BatchNorm's factor: ``[rows, d]``.
        response: impulse response of the neuron that follows, ``[T]``.
        activity: of the layer's inputs.
    """
    return float(weight.double().norm() * (step_weights(response.double()) * activity.norm).sum())


class SLAMP(LAMP):
    """LAMP whose scores weigh each layer by how its membrane carries errors from step to step.

    Wang, Ye and Ouyang, "Spiking layer-adaptive magnitude-based pruning" (arXiv 2603.14946). Taken from its abstract:
    LAMP over T time steps through a bound on the worst distortion over layers and steps, scores estimated first and
    shared globally, then magnitude pruning and retraining; at a single step it is LAMP. The paper's formulas were not
    at hand, and **everything else here is inferred**, the factors above all. A layer's squared bound per squared norm
    of weight is ``kappa = (sum over tau of c_tau a[tau])^2`` with ``c_tau`` of :func:`step_weights`, all steps of the
    output weighing the same. LAMP's scores are multiplied by it, with ``a`` by ``variant``:

    - ``v1``: a = 1, so only the leak counts. Where all layers share one leak, this is LAMP.
    - ``v2``: a = the root mean square of the layer's input at each step, over its mean: only the shape in time counts.
    - ``v3``: a = the norm of the layer's unfolded input at each step, so busy layers are spared; not LAMP at T = 1.

    The leak is measured on the neuron that follows a layer, its peak taken as 1, as a layer's scale says nothing in
    LAMP either. A layer without a neuron has no memory. In the record each layer's ``loss`` is
    :func:`distortion_bound`, of its own pruning and with the dense network's resets; ``change`` beside it is what was
    measured in the whole network on the calibration data (:class:`~compressors.calibration.activity.Change`), where
    resets differ and layers before it were pruned too. With a SynOps budget the scores are those per synaptic
    operation saved.

    Args:
        variant: ``v1``, ``v2`` or ``v3``.

    The other options are those of :class:`~compressors.methods.lamp.LAMP`.
    """

    variant: str = "v2"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("variant", self.variant, VARIANTS)

    def calibrate(self, network: Network) -> Mapping[str, Activity]:
        """The input activity of every layer."""
        return activities(network.module, network.layers, network.calibration)

    def factors(self, network: Network, statistics: Mapping[str, Activity]) -> dict[str, float]:
        """``kappa`` of each layer; with a SynOps budget, over the SynOps that one of its weights costs."""
        return {layer.name: self._factor(layer, statistics[layer.name]) for layer in network.layers}

    def _factor(self, layer: Layer, activity: Activity) -> float:
        response = response_of(layer)
        peak = response.abs().max()
        weights = step_weights(response / peak if peak > 0 else response)
        kappa = float(VARIANTS[self.variant](weights, activity).square())
        if self.budget.synops is None:
            return kappa
        synops = float(activity.events.mean())
        return kappa / synops if synops > 0 else 0.0  # a layer that nothing reaches can go

    def compress_layer(self, network: Network, layer: Layer, part: LayerBudget, statistics: Activity) -> LayerResult:
        """Prune a layer and bound the distortion."""
        result = super().compress_layer(network, layer, part, statistics)
        removed = (layer.rows - result.weight) * layer.batchnorm_factor()[:, None]
        return replace(result, loss=distortion_bound(removed, response_of(layer), statistics))

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Prune, and measure how far membranes and spikes moved."""
        before = {f"{layer.name}.weight": layer.module.weight.detach().clone() for layer in network.layers}
        compressed = super().compress(network)
        measured = changes(network.module, network.layers, before, network.calibration)
        return tuple(replace(done, extra={**done.extra, "change": asdict(measured[done.name])}) for done in compressed)


def response_of(layer: Layer) -> Tensor:
    """Impulse response of the neuron that follows a layer: ``[T]`` float64; without one, no memory.

    Raises:
        LayerError: the neuron is no linear filter below its threshold.
    """
    if layer.neuron is None:
        response = torch.zeros(layer.timesteps, dtype=torch.float64)
        response[0] = 1.0
    else:
        try:
            response = impulse_response(layer.neuron, layer.timesteps)
        except LayerError as error:
            raise LayerError(
                f"layer {layer.name!r}: {type(layer.neuron).__name__} has no leak that could be measured: take 'lamp'"
            ) from error
    return response.to(layer.rows.device)
