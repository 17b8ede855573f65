"""Networks in NIR files (neuromorphic intermediate representation) as networks of SpikingJelly's layers and neurons."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from graphlib import CycleError, TopologicalSorter
from operator import add
from pathlib import Path
from typing import Any, Literal

import nir
import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from benchmark.networks.errors import NIRError
from benchmark.networks.nir.content import Content, read_content

RESETS = ("value", "subtract")
Reset = Literal["value", "subtract"]

LARGEST_OUTPUT = 2**26
"""Entries of a node's output for one sample and time step."""


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
class _Step:
    """One node's turn: whose outputs it takes the sum of, and which of them nobody needs any more."""

    name: str
    sources: tuple[str, ...]
    finished: tuple[str, ...]


class Graph(nn.Module):
    """A feed-forward graph of modules; edges that meet are added up, as NIR has it.

    Args:
        modules: by node name, multi-step: ``[T, B, ...] -> [T, B, ...]``.
        edges: from node to node.
        source: name of the input, which is no module.
        sink: name of the output, which is no module.
        timestep: length of a time step in the graph's unit of time, for writing it as NIR again.
        reset: how its neurons are reset, and what says so, for people.

    Raises:
        NIRError: a cycle, or a node that no path from the input to the output leads through.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        edges: Sequence[tuple[str, str]],
        source: str,
        sink: str,
        timestep: float,
        reset: str = "",
    ) -> None:
        super().__init__()
        self.source, self.sink, self.timestep, self.reset = source, sink, timestep, reset
        self._steps = _schedule([*modules, source, sink], edges, source, sink)
        self._keys: dict[str, str] = {}
        for step in self._steps[:-1]:
            self._keys[step.name] = self._free_name(step.name)
            self.add_module(self._keys[step.name], modules[step.name])

    def _free_name(self, name: str) -> str:
        """Module names have no dots, and must not hide an attribute."""
        name = name.replace(".", "_")
        while hasattr(self, name):
            name += "_"
        return name

    def forward(self, x: Tensor) -> Tensor:
        """The output node's input ``[T, B, classes]`` for ``x [T, B, C, H, W]``."""
        values = {self.source: x}
        for step in self._steps:
            total = reduce(add, (values[name] for name in step.sources))
            for name in step.finished:
                del values[name]
            values[step.name] = total if step.name == self.sink else self.get_submodule(self._keys[step.name])(total)
        return values[self.sink]


def _schedule(names: Sequence[str], edges: Sequence[tuple[str, str]], source: str, sink: str) -> tuple[_Step, ...]:
    """The nodes behind the source in an order in which every node follows those it takes its input from."""
    sources: dict[str, list[str]] = {name: [] for name in names}
    for before, after in edges:
        sources[after].append(before)
    takers = {before for before, _ in edges}
    for name in names:
        if name != sink and name not in takers:
            raise NIRError(f"node {name!r} has no edge to another node")
        if name != source and not sources[name]:
            raise NIRError(f"node {name!r} has no edge from another node")
    try:
        order = [name for name in TopologicalSorter(sources).static_order() if name != source]
    except CycleError as error:
        cycle = " -> ".join(map(repr, error.args[1][:6])) + " ..." * (len(error.args[1]) > 6)
        raise NIRError(f"the nodes {cycle} form a cycle: only feed-forward graphs work") from None
    last_use = {before: name for name in order for before in sources[name]}
    return tuple(
        _Step(name, tuple(sources[name]), tuple(s for s in sources[name] if last_use[s] == name)) for name in order
    )


def nir_network(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    path: str,
    reset: Reset | None = None,
    timestep: float | None = None,
) -> Graph:
    """A network in a NIR file, with its weights: any feed-forward graph of the nodes in :data:`CONVERTERS`.

    NIR (Pedersen et al., Nature Communications 2024) describes neurons in continuous time, a network runs in steps.
    Neurons become forward Euler steps of length ``timestep``, in this order: the synaptic current takes the input, the
    potential takes the current, the neuron fires where the potential reaches the threshold (simulators differ in
    whether equality suffices, and whether the potential takes the new current or the last one), the potential is
    reset. What SpikingJelly's neurons cannot do exactly is refused: parameters that differ between the neurons of a
    node, a rest potential other than the reset potential, time constants below a step.

    Args:
        input_shape: (channels, height, width) of the data, which must be the graph's.
        classes: number of outputs, which must be the graph's.
        path: the NIR file.
        reset: ``value`` sets a neuron that fired to ``v_reset``, ``subtract`` subtracts the threshold. In continuous
            time the two are one, so that NIR does not tell them apart, and a ``v_reset`` of zero says nothing, as
            ``nir`` writes it into every file. By default what the node's metadata say under ``reset``; else ``value``
            where ``v_reset`` is not zero; else ``subtract`` where no node of the file has a ``v_reset``: then it is of
            the time when NIR's neurons had none, and reset by subtraction, as in the paper.
        timestep: length of a step in the graph's unit of time. By default what the graph's metadata say under
            ``timestep``, else 1.

    Returns:
        ``x [T, B, C, H, W]`` to output spikes ``[T, B, classes]``.

    Raises:
        NIRError: the file cannot be read, holds what cannot be expressed, or leaves the reset open; names the file,
            the node and the reason.
    """
    if reset not in (None, *RESETS):
        raise NIRError(f"reset is {reset!r}: give one of {', '.join(RESETS)}")
    if timestep is not None and not 0 < timestep < math.inf:
        raise NIRError(f"timestep is {timestep:g}: give a number above 0, in the graph's unit of time")
    content = read_content(Path(path))
    try:
        return _network(content, input_shape, classes, reset, timestep)
    except NIRError as error:
        raise NIRError(f"{path}: {error}") from error


def stated_reset(network: nn.Module) -> str | None:
    """How the neurons of a network from a NIR file are reset, and what says so; None for other networks."""
    return next((module.reset for module in network.modules() if isinstance(module, Graph) and module.reset), None)


def _network(
    content: Content, input_shape: tuple[int, int, int], classes: int, reset: Reset | None, timestep: float | None
) -> Graph:
    stated = timestep if timestep is not None else content.timestep
    step = 1.0 if stated is None else stated
    source, sink = _only(content, nir.Input), _only(content, nir.Output)
    _check_shape(content.nodes[source], input_shape)
    inner = {name: node for name, node in content.nodes.items() if name not in (source, sink)}
    resets = {
        name: _Reset(reset, "as asked for") if reset else _reset_of(name, node, content)
        for name, node in inner.items()
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF)
    }
    modules = {
        name: _module(name, node, _Reading(step, stated is not None, resets[name].kind if name in resets else ""))
        for name, node in inner.items()
    }
    said = "; ".join(sorted({f"{found.kind} ({found.reason})" for found in resets.values()}))
    network = Graph(modules, content.edges, source, sink, step, said)
    functional.set_step_mode(network, "m")
    _check_run(network, input_shape, classes)
    return network


def _only(content: Content, kind: type[nir.NIRNode]) -> str:
    names = [name for name, node in content.nodes.items() if isinstance(node, kind)]
    if len(names) != 1:
        raise NIRError(f"the graph has {len(names)} nodes of kind {kind.__name__}: only graphs with one work")
    return names[0]


def _check_shape(node: nir.Input, input_shape: tuple[int, int, int]) -> None:
    shape = tuple(int(size) for size in node.input_type["input"])
    if shape != tuple(input_shape):
        raise NIRError(f"the graph takes inputs of shape {shape}, the data set has {tuple(input_shape)}")


def _check_run(network: Graph, input_shape: tuple[int, int, int], classes: int) -> None:
    """Run one step without numbers, so that nodes that do not fit each other are found before any work."""
    shapes = copy.deepcopy(network).to("meta")
    for name, module in shapes.named_children():
        module.register_forward_hook(partial(_check_size, name))
    try:
        with torch.no_grad():
            outputs = shapes(torch.zeros(1, 1, *input_shape, device="meta")).shape[2:]
    except (RuntimeError, IndexError, ValueError, NotImplementedError) as error:
        if isinstance(error, NIRError):
            raise
        raise NIRError(f"the graph's nodes do not fit each other: {str(error).splitlines()[0]}") from error
    if tuple(outputs) != (classes,):
        raise NIRError(f"the graph has outputs of shape {tuple(outputs)}, the data set {classes} classes")


def _check_size(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.numel() > LARGEST_OUTPUT:
        raise NIRError(f"node {name!r} has {output.numel():,} outputs a sample and step: more than {LARGEST_OUTPUT:,}")


@dataclass(frozen=True)
class _Reading:
    """How continuous time is read: the step's length, whether somebody stated it, and the reset."""

    step: float
    stated: bool
    reset: str


@dataclass(frozen=True)
class _Reset:
    """One of :data:`RESETS`, and what says so."""

    kind: str
    reason: str


def _reset_of(name: str, node: nir.NIRNode, content: Content) -> _Reset:
    """How a node's neurons are reset, as far as the file tells."""
    stated = node.metadata.get("reset")
    if stated is not None:
        if stated not in RESETS:
            raise NIRError(f"node {name!r}: its metadata say reset {stated!r}, which is none of {', '.join(RESETS)}")
        return _Reset(stated, "as the file's metadata say")
    if np.any(node.v_reset):
        return _Reset("value", "as v_reset is not zero")
    if not content.has_reset_potentials:
        return _Reset("subtract", "as no neuron in the file has a v_reset")
    raise NIRError(
        f"node {name!r} does not say how its neurons are reset: their v_reset of zero stands in every file that nir "
        "writes; say --reset subtract (less the threshold) or --reset value (to v_reset), as the network was trained"
    )


def _module(name: str, node: nir.NIRNode, reading: _Reading) -> nn.Module:
    try:
        return CONVERTERS[type(node)](node, reading)
    except (NIRError, ValueError, RuntimeError, IndexError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise NIRError(f"node {name!r} ({type(node).__name__}): {reason}") from error


# Layers ---------------------------------------------------------------------------------------------------------------


def _linear(node: nir.Linear | nir.Affine, reading: _Reading) -> nn.Module:
    _check_dimensions(node, 2)
    outputs, inputs = node.weight.shape
    return _filled(layer.Linear(inputs, outputs, bias=_biased(node)), node)


def _check_dimensions(node: nir.NIRNode, dimensions: int) -> None:
    if node.weight.ndim != dimensions or not node.weight.size:
        raise NIRError(f"its weight has the shape {node.weight.shape}, where {dimensions} dimensions are expected")


def _conv1d(node: nir.Conv1d, reading: _Reading) -> nn.Module:
    _check_dimensions(node, 3)
    return _filled(layer.Conv1d(*_channels(node), **_sliding(node, 1)), node)


def _conv2d(node: nir.Conv2d, reading: _Reading) -> nn.Module:
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
    return module


def _floats(node: nir.NIRNode, name: str) -> Tensor:
    """A field's numbers in 32 bits."""
    numbers = torch.from_numpy(np.array(getattr(node, name)).astype(np.float32))
    if not numbers.isfinite().all():
        raise NIRError(f"its {name} is too large for 32 bits")
    return numbers


def _sum_pool(node: nir.SumPool2d, reading: _Reading) -> nn.Module:
    return layer.SeqToANNContainer(nn.AvgPool2d(**_window(node), divisor_override=1))


def _average_pool(node: nir.AvgPool2d, reading: _Reading) -> nn.Module:
    return layer.AvgPool2d(**_window(node))


def _window(node: nir.SumPool2d | nir.AvgPool2d) -> dict[str, Any]:
    sizes = {"kernel_size": node.kernel_size, "stride": node.stride, "padding": node.padding}
    return {name: _sizes(value, 2) for name, value in sizes.items()}


def _flatten(node: nir.Flatten, reading: _Reading) -> nn.Module:
    start, end = int(node.start_dim), int(node.end_dim)  # of a sample's dimensions; a layer's begin with the batch
    return layer.Flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)


def _scale(node: nir.Scale, reading: _Reading) -> nn.Module:
    return Scale(_floats(node, "scale"))


# Neurons --------------------------------------------------------------------------------------------------------------


def _if(node: nir.IF, reading: _Reading) -> nn.Module:
    gain = _uniform(node, "r") * reading.step
    if not reading.stated and not _equal(gain, 1):
        raise NIRError(f"r is {gain:g} and no time step is known: give timestep (1 / r is {1 / gain:g})")
    return _after(gain, neuron.IFNode(**_firing(node, reading)))


def _lif(node: nir.LIF, reading: _Reading) -> nn.Module:
    tau, r = _steps(node, "tau", reading), _uniform(node, "r")
    firing = _firing(node, reading)
    _check_rest(node, firing["v_reset"] or 0.0)
    if _equal(r, tau):  # v += x - v / tau
        return neuron.LIFNode(tau, decay_input=False, **firing)
    return _after(r, neuron.LIFNode(tau, **firing))  # v += (r x - v) / tau


def _cuba_lif(node: nir.CubaLIF, reading: _Reading) -> nn.Module:
    synapse, membrane = _steps(node, "tau_syn", reading), _steps(node, "tau_mem", reading)
    _check_rest(node, 0.0)
    made = neuron.CUBALIFNode(1 - 1 / synapse, 1 - 1 / membrane, **_firing(node, reading))
    return _after(_uniform(node, "w_in") / synapse * _uniform(node, "r") / membrane, made)


def _steps(node: nir.NIRNode, name: str, reading: _Reading) -> float:
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


def _firing(node: nir.NIRNode, reading: _Reading) -> dict[str, Any]:
    value = _uniform(node, "v_reset")
    if reading.reset == "subtract" and value != 0:
        raise NIRError(f"it has the reset potential v_reset={value:g}, which reset 'subtract' would leave out")
    return {
        "v_threshold": _uniform(node, "v_threshold"),
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


CONVERTERS: dict[type[nir.NIRNode], Callable[[Any, _Reading], nn.Module]] = {
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
