"""How each kind of a NIR graph's nodes becomes a module of SpikingJelly's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import nir
import numpy as np
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

from benchmark.networks.errors import NIRError
from compressors.quantization.grids import Grid
from compressors.quantization.widths import MAX_BITS, MIN_BITS
from hardware.storage import StoredWeights, note

RESETS = ("value", "subtract")
Reset = Literal["value", "subtract"]


class Scale(nn.Module):
    """Multiplies elementwise by a constant: ``[T, B, *shape] -> [T, B, *shape]``."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return x * self.scale


@dataclass(frozen=True)
class Reading:
    """How continuous time is read: the step's length, whether somebody stated it, and the reset."""

    step: float
    stated: bool
    reset: str


def converted(name: str, node: nir.NIRNode, reading: Reading) -> nn.Module:
    """A node as a module.

    Raises:
        NIRError: the module cannot do what the node says; names the node.
    """
    try:
        return CONVERTERS[type(node)](node, reading)
    except (NIRError, ValueError, RuntimeError, IndexError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise NIRError(f"node {name!r} ({type(node).__name__}): {reason}") from error


# Layers ---------------------------------------------------------------------------------------------------------------


def _linear(node: nir.Linear | nir.Affine, reading: Reading) -> nn.Module:
    _check_dimensions(node, 2)
    outputs, inputs = node.weight.shape
    return _filled(layer.Linear(inputs, outputs, bias=_biased(node)), node)


def _check_dimensions(node: nir.NIRNode, dimensions: int) -> None:
    if node.weight.ndim != dimensions or not node.weight.size:
        raise NIRError(f"its weight has the shape {node.weight.shape}, where {dimensions} dimensions are expected")


def _conv1d(node: nir.Conv1d, reading: Reading) -> nn.Module:
    _check_dimensions(node, 3)
    return _filled(layer.Conv1d(*_channels(node), **_sliding(node, 1)), node)


def _conv2d(node: nir.Conv2d, reading: Reading) -> nn.Module:
    _check_dimensions(node, 4)
    return _filled(layer.Conv2d(*_channels(node), **_sliding(node, 2)), node)


def _channels(node: nir.Conv1d | nir.Conv2d) -> tuple[int, int]:
    return node.weight.shape[1] * int(node.groups), node.weight.shape[0]


def _sliding(node: nir.Conv1d | nir.Conv2d, dimensions: int) -> dict[str, Any]:
    kernel, dilation = node.weight.shape[2:], _sizes(node.dilation, dimensions)
    stride = _sizes(node.stride, dimensions)
    return {
        "kernel_size": kernel,
        "stride": stride,
        "padding": _padding(node.padding, kernel, dilation, stride),
        "dilation": dilation,
        "groups": int(node.groups),
        "bias": _biased(node),
    }


def _biased(node: nir.NIRNode) -> bool:
    """A bias of zeros, which NIR's convolutions must have, is left out: it is neither counted nor stored."""
    return bool(np.any(getattr(node, "bias", 0)))


def _padding(padding: Any, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(padding, str):
        return _sizes(padding, len(kernel))
    if padding == "valid":
        return (0,) * len(kernel)
    spread = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in spread) or any(size != 1 for size in stride):
        raise NIRError("padding 'same' works with odd kernels and stride 1 only: it is not the same on both sides")
    return tuple(total // 2 for total in spread)


def _sizes(value: Any, dimensions: int) -> tuple[int, ...]:
    return tuple(int(size) for size in np.broadcast_to(np.asarray(value), dimensions))


def _filled(module: Any, node: Any) -> nn.Module:
    for name, parameter in module.named_parameters():
        numbers = _floats(node, name)
        if numbers.shape != parameter.shape:
            raise NIRError(f"its {name} has the shape {tuple(numbers.shape)} instead of {tuple(parameter.shape)}")
        parameter.data = numbers
    stored = _stored(module.weight, node.metadata)
    if stored is not None:
        note(module, stored)
    return module


def _stored(weight: Tensor, metadata: Mapping[str, Any]) -> StoredWeights | None:
    """How weights are stored that metadata say to be whole numbers times one step; None where they are not, or no more.

    The metadata are those that :meth:`benchmark.networks.fixed_point.network.FixedNetwork.metadata` writes.
    """
    codes, bits = (metadata.get(name) for name in ("weight_codes", "weight_bits"))
    if not isinstance(codes, np.ndarray) or codes.dtype != np.int8 or codes.shape != weight.shape or not codes.any():
        return None
    if not isinstance(bits, int | np.integer) or not MIN_BITS <= bits <= MAX_BITS:
        return None
    largest = int(np.abs(codes.astype(int)).argmax())
    scale = (weight.flatten()[largest] / int(codes.flat[largest])).detach().view(1, 1)
    stored = Grid(int(bits), scale, torch.full_like(scale, 2.0 ** (int(bits) - 1))).stored()
    return stored if stored.hold(weight) else None


def _floats(node: nir.NIRNode, name: str) -> Tensor:
    """A field's numbers in 32 bits."""
    numbers = torch.from_numpy(np.array(getattr(node, name)).astype(np.float32))
    if not numbers.isfinite().all():
        raise NIRError(f"its {name} is too large for 32 bits")
    return numbers


def _sum_pool(node: nir.SumPool2d, reading: Reading) -> nn.Module:
    return layer.SeqToANNContainer(nn.AvgPool2d(**_window(node), divisor_override=1))


def _average_pool(node: nir.AvgPool2d, reading: Reading) -> nn.Module:
    return layer.AvgPool2d(**_window(node))


def _window(node: nir.SumPool2d | nir.AvgPool2d) -> dict[str, Any]:
    sizes = {"kernel_size": node.kernel_size, "stride": node.stride, "padding": node.padding}
    return {name: _sizes(value, 2) for name, value in sizes.items()}


def _flatten(node: nir.Flatten, reading: Reading) -> nn.Module:
    start, end = int(node.start_dim), int(node.end_dim)  # of a sample's dimensions; a layer's begin with the batch
    return layer.Flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)


def _scale(node: nir.Scale, reading: Reading) -> nn.Module:
    return Scale(_floats(node, "scale"))


# Neurons --------------------------------------------------------------------------------------------------------------


def _if(node: nir.IF, reading: Reading) -> nn.Module:
    gain = _uniform(node, "r") * reading.step
    if not reading.stated and not _equal(gain, 1):
        raise NIRError(f"r is {gain:g} and no time step is known: give timestep (1 / r is {1 / gain:g})")
    return _after(gain, neuron.IFNode(**_firing(node, reading)))


def _lif(node: nir.LIF, reading: Reading) -> nn.Module:
    tau, r = _steps(node, "tau", reading), _uniform(node, "r")
    firing = _firing(node, reading)
    _check_rest(node, firing["v_reset"] or 0.0)
    if _equal(r, tau):  # v += x - v / tau
        return neuron.LIFNode(tau, decay_input=False, **firing)
    return _after(r, neuron.LIFNode(tau, **firing))  # v += (r x - v) / tau


def _cuba_lif(node: nir.CubaLIF, reading: Reading) -> nn.Module:
    synapse, membrane = _steps(node, "tau_syn", reading), _steps(node, "tau_mem", reading)
    _check_rest(node, 0.0)
    made = neuron.CUBALIFNode(1 - 1 / synapse, 1 - 1 / membrane, **_firing(node, reading))
    return _after(_uniform(node, "w_in") / synapse * _uniform(node, "r") / membrane, made)


def _steps(node: nir.NIRNode, name: str, reading: Reading) -> float:
    """A time constant in steps."""
    steps = _uniform(node, name) / reading.step
    if not 1 < steps < math.inf:
        raise NIRError(
            f"its {name} of {_uniform(node, name):g} is no longer than the time step of {reading.step:g}: "
            "give timestep, in the graph's unit of time"
        )
    return steps


def _check_rest(node: nir.NIRNode, expected: float) -> None:
    rest = _uniform(node, "v_leak")
    if not _equal(rest, expected):
        raise NIRError(f"its rest potential v_leak is {rest:g}, SpikingJelly's neuron would rest at {expected:g}")


def _firing(node: nir.NIRNode, reading: Reading) -> dict[str, Any]:
    value, threshold = _uniform(node, "v_reset"), _uniform(node, "v_threshold")
    if threshold <= 0 or threshold <= value:
        raise NIRError(f"its v_threshold is {threshold:g}: a number above 0 and above v_reset ({value:g}) is expected")
    if reading.reset == "subtract" and value != 0:
        raise NIRError(f"it has the reset potential v_reset={value:g}, which reset 'subtract' would leave out")
    return {
        "v_threshold": threshold,
        "v_reset": None if reading.reset == "subtract" else value,
        "surrogate_function": surrogate.ATan(),
    }


def _uniform(node: nir.NIRNode, name: str) -> float:
    """The value that all neurons of a node share."""
    values = np.asarray(getattr(node, name), dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise NIRError(f"its {name} is empty or not finite")
    if values.min() != values.max():
        low, high = values.min(), values.max()
        raise NIRError(f"its {name} differs between neurons ({low:g} to {high:g}); SpikingJelly's share one value")
    return float(values.flat[0])


def _equal(value: float, other: float) -> bool:
    """Equal but for the rounding of parameters that were kept in 32 bits."""
    return bool(np.isclose(value, other, rtol=1e-6, atol=1e-12))


def _after(gain: float, made: nn.Module) -> nn.Module:
    """A neuron whose input is multiplied by ``gain`` first."""
    return made if _equal(gain, 1) else nn.Sequential(Scale(torch.tensor(gain)), made)


CONVERTERS: dict[type[nir.NIRNode], Callable[[Any, Reading], nn.Module]] = {
    nir.Linear: _linear,
    nir.Affine: _linear,
    nir.Conv1d: _conv1d,
    nir.Conv2d: _conv2d,
    nir.SumPool2d: _sum_pool,
    nir.AvgPool2d: _average_pool,
    nir.Flatten: _flatten,
    nir.Scale: _scale,
    nir.IF: _if,
    nir.LIF: _lif,
    nir.CubaLIF: _cuba_lif,
}
"""How each kind of node becomes a module."""
