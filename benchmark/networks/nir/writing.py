"""Networks as NIR graphs, for the simulators and chips that read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.files import replacing
from benchmark.networks.errors import NetworkError, NIRError
from benchmark.networks.nir.converters import Scale
from benchmark.networks.nir.reading import Graph
from benchmark.networks.tracing import is_addition, traced
from compressors.network.layers import evaluating
from hardware.layers import TRANSPARENT

Shape = tuple[int, ...]


def write_nir(
    path: Path,
    network: nn.Module,
    input_shape: Shape,
    timestep: float | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a network as a NIR file, at once or not at all; see :func:`to_nir`.

    Raises:
        NIRError: the network cannot be expressed.
        StoreError: the folder is read-only or full.
    """
    graph = to_nir(network, input_shape, timestep, metadata)
    with replacing(path) as partial:
        nir.write(partial, graph)


def to_nir(
    network: nn.Module,
    input_shape: Shape,
    timestep: float | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
) -> nir.NIRGraph:
    """A network's forward pass in evaluation mode as a NIR graph; sums become edges that meet.

    BatchNorm goes into the weights of the layer before it, which changes results by rounding only; everything else
    comes back from :func:`~benchmark.networks.nir.reading.nir_network` to the bit. The time step and each neuron's way
    of reset, which NIR does not tell, stand in the metadata.

    Args:
        network: maps ``[T, B, *input_shape]`` to ``[T, B, classes]``, or to the mean of that over time, which is left
            to whoever reads the graph: a graph says what happens in a step.
        input_shape: shape of one sample's time step.
        timestep: length of a step in the graph's unit of time; by default that of the graph the network was read
            from, else 1.
        metadata: what else the nodes of layers and neurons say, by the modules' names: numbers, words and arrays.

    Raises:
        NIRError: control flow that depends on data, or an operation that NIR does not have; names it.
    """
    if timestep is None:
        timestep = network.timestep if isinstance(network, Graph) else 1.0
    operations = _trace(network, input_shape)
    writer = _Writer(operations, timestep, {}, [])
    values: dict[fx.Node, list[str]] = {}  # which nodes' outputs add up to a value
    for node in operations.graph.nodes:
        values[node] = writer.write(node, [values[source] for source in node.all_input_nodes])
    for name, words in (metadata or {}).items():
        writer.nodes[name.replace(".", "_")].metadata |= words
    return nir.NIRGraph(writer.nodes, writer.edges, {"timestep": timestep}, type_check=False)


def _trace(network: nn.Module, input_shape: Shape) -> fx.GraphModule:
    """The network's operations in order, each with the shape of its result under ``tensor_meta``."""
    with evaluating(network):
        try:
            graph = traced(network)
        except NetworkError as error:
            raise NIRError(str(error)) from error
        _require_known(graph)  # before it runs: a neuron that NIR does not have may want another number of steps
        parameter = next(network.parameters(), torch.zeros(()))
        ShapeProp(graph).propagate(torch.zeros(1, 1, *input_shape, device=parameter.device))
    return graph


def _require_known(network: fx.GraphModule) -> None:
    for node in network.graph.nodes:
        if node.op != "call_module":
            continue
        name = str(node.target)
        module = network.get_submodule(name)
        if type(module) not in CONVERTERS and not isinstance(module, (*TRANSPARENT, _BatchNorm)):
            raise NIRError(f"layer {name!r} is a {type(module).__name__}, which NIR does not have")


def _shape(node: fx.Node) -> Shape:
    """Shape of a value's single sample and step."""
    return tuple(node.meta["tensor_meta"].shape[2:])


@dataclass(frozen=True)
class _Writer:
    """Nodes and edges as they come to be."""

    network: fx.GraphModule
    timestep: float
    nodes: dict[str, nir.NIRNode]
    edges: list[tuple[str, str]]

    def write(self, node: fx.Node, sources: list[list[str]]) -> list[str]:
        """Write one operation down; returns which nodes' outputs its result is the sum of."""
        match node.op:
            case "placeholder":
                return self._add("input", nir.Input(np.array(_shape(node))), [])
            case "output":
                (inputs,) = node.all_input_nodes
                steps = inputs.all_input_nodes[0] if _is_readout(inputs) else inputs
                return self._add("output", nir.Output(np.array(_shape(steps))), sources[0])
            case "call_method" | "call_function" if _is_readout(node):
                return sources[0]
            case "call_function" if is_addition(node):
                return self._sum(node, *sources)
            case "call_module":
                return self._module(node, sources[0])
        raise NIRError(
            f"the network computes {node.target!r} ({node.format_node()}), which NIR does not have: over time nothing "
            "but a mean is taken, as the last operation"
        )

    def _sum(self, node: fx.Node, *parts: list[str]) -> list[str]:
        total = [name for part in parts for name in part]
        if len(parts) != 2 or len(total) != len(set(total)):
            raise NIRError(f"the network adds a constant or a value twice ({node.format_node()}), unlike NIR's edges")
        return total

    def _module(self, node: fx.Node, sources: list[str]) -> list[str]:
        name = str(node.target)
        module = self.network.get_submodule(name)
        if isinstance(module, TRANSPARENT):
            return sources
        if isinstance(module, _BatchNorm):
            return self._fold(name, module, node, sources)
        if name.replace(".", "_") in self.nodes:
            raise NIRError(f"layer {name!r} is used twice, which a NIR node cannot be")
        (source,) = node.all_input_nodes
        return self._add(name.replace(".", "_"), self._node(name, module, _shape(source)), sources)

    def _node(self, name: str, module: nn.Module, shape: Shape) -> nir.NIRNode:
        try:
            return CONVERTERS[type(module)](module, shape, self.timestep)
        except NIRError as error:
            raise NIRError(f"layer {name!r} ({type(module).__name__}): {error}") from None

    def _fold(self, name: str, norm: _BatchNorm, node: fx.Node, sources: list[str]) -> list[str]:
        before = self.nodes[sources[0]] if len(sources) == 1 and len(node.all_input_nodes[0].users) == 1 else None
        if not isinstance(before, nir.Linear | nir.Affine | nir.Conv1d | nir.Conv2d) or norm.running_var is None:
            raise NIRError(f"the BatchNorm {name!r} does not follow a layer of its own that could take it in")
        self.nodes[sources[0]] = _folded(before, norm)
        return sources

    def _add(self, name: str, node: nir.NIRNode, sources: list[str]) -> list[str]:
        self.nodes[name] = node
        self.edges.extend((source, name) for source in sources)
        return [name]


def _is_readout(node: fx.Node) -> bool:
    """Whether an operation is the mean over time, the first axis, of what the network puts out."""
    if node.target not in ("mean", torch.mean) or [user.op for user in node.users] != ["output"]:
        return False
    options = dict(zip(("dim", "keepdim"), node.args[1:], strict=False)) | dict(node.kwargs)
    return options.get("dim") in (0, (0,), [0]) and options.keys() <= {"dim", "keepdim"} and len(node.args) <= 3


def _folded(node: Any, norm: _BatchNorm) -> nir.NIRNode:
    """The layer whose output is the BatchNorm's: ``(W x + b - mean) gain + beta``."""
    gain = _values(norm.weight, 1.0) / np.sqrt(_values(norm.running_var, 1.0) + norm.eps)
    bias = (getattr(node, "bias", 0.0) - _values(norm.running_mean, 0.0)) * gain + _values(norm.bias, 0.0)
    weight = node.weight * gain.reshape(-1, *[1] * (node.weight.ndim - 1))
    changed = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    if isinstance(node, nir.Linear | nir.Affine):
        return nir.Affine(**changed)
    kept = ("input_shape", "stride", "padding", "dilation", "groups")
    return type(node)(**{name: getattr(node, name) for name in kept}, **changed)


def _values(tensor: Tensor | None, default: float) -> Any:
    return default if tensor is None else _array(tensor.double())


# Layers ---------------------------------------------------------------------------------------------------------------


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _linear(module: nn.Linear, shape: Shape, timestep: float) -> nir.NIRNode:
    if len(shape) != 1:
        raise NIRError(f"its inputs have the shape {shape}; only vectors work")
    # Not nir.Linear where there is no bias, which some simulators (sinabs) do not read.
    bias = np.zeros(module.out_features, np.float32) if module.bias is None else _array(module.bias)
    return nir.Affine(_array(module.weight), bias)


def _convolution(module: nn.Conv1d | nn.Conv2d, shape: Shape, timestep: float) -> nir.NIRNode:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise NIRError("only numeric zero padding works")
    settings = {name: np.array(getattr(module, name)) for name in ("stride", "padding", "dilation")}
    return (nir.Conv2d if isinstance(module, nn.Conv2d) else nir.Conv1d)(
        input_shape=np.array(shape[1:]) if isinstance(module, nn.Conv2d) else shape[1],
        weight=_array(module.weight),
        groups=module.groups,
        bias=np.zeros(module.out_channels, np.float32) if module.bias is None else _array(module.bias),
        **(settings if isinstance(module, nn.Conv2d) else {name: int(value[0]) for name, value in settings.items()}),
    )


def _pool(module: nn.AvgPool2d, shape: Shape, timestep: float) -> nir.NIRNode:
    if module.ceil_mode or not (module.count_include_pad or not np.any(module.padding)):
        raise NIRError("neither ceil_mode nor leaving padding out of the mean works")
    if module.divisor_override not in (None, 1):
        raise NIRError(f"a divisor of {module.divisor_override} works neither as a mean nor as a sum")
    kind = nir.AvgPool2d if module.divisor_override is None else nir.SumPool2d
    sizes = (module.kernel_size, module.stride, module.padding)
    return kind(*(np.array(np.broadcast_to(size, 2)) for size in sizes))


def _container(module: layer.SeqToANNContainer, shape: Shape, timestep: float) -> nir.NIRNode:
    if len(module) != 1 or type(module[0]) not in CONVERTERS:
        raise NIRError("only a container of one layer that NIR has works")
    return CONVERTERS[type(module[0])](module[0], shape, timestep)


def _flatten(module: nn.Flatten, shape: Shape, timestep: float) -> nir.NIRNode:
    start, end = (dim - 1 if dim >= 0 else dim for dim in (module.start_dim, module.end_dim))
    if start < 0 and module.start_dim >= 0:
        raise NIRError("it flattens the batch into the features")
    return nir.Flatten(np.array(shape), start, end)


def _scale(module: Scale, shape: Shape, timestep: float) -> nir.NIRNode:
    return nir.Scale(_array(module.scale.expand(shape)))


# Neurons --------------------------------------------------------------------------------------------------------------


def _if(module: neuron.IFNode, shape: Shape, timestep: float) -> nir.NIRNode:
    return nir.IF(r=np.full(shape, 1 / timestep), **_firing(module, shape))


def _lif(module: Any, shape: Shape, timestep: float) -> nir.NIRNode:
    tau = module.tau if isinstance(module, neuron.LIFNode) else 1 / module.w.sigmoid().item()
    return nir.LIF(
        tau=np.full(shape, tau * timestep),
        r=np.full(shape, 1.0 if module.decay_input else tau),
        v_leak=np.full(shape, module.v_reset or 0.0),
        **_firing(module, shape),
    )


def _cuba_lif(module: neuron.CUBALIFNode, shape: Shape, timestep: float) -> nir.NIRNode:
    if not 0 <= module.c_decay < 1 or not 0 <= module.v_decay < 1:
        raise NIRError("only decay factors from 0 to below 1 work")
    synapse, membrane = 1 / (1 - module.c_decay), 1 / (1 - module.v_decay)  # time constants in steps
    return nir.CubaLIF(
        tau_syn=np.full(shape, synapse * timestep),
        tau_mem=np.full(shape, membrane * timestep),
        r=np.full(shape, membrane),
        v_leak=np.zeros(shape),
        w_in=np.full(shape, synapse),
        **_firing(module, shape),
    )


def _firing(module: Any, shape: Shape) -> dict[str, Any]:
    subtracts = module.v_reset is None
    return {
        "v_threshold": np.full(shape, module.v_threshold),
        "v_reset": np.full(shape, 0.0 if subtracts else module.v_reset),
        "metadata": {"reset": "subtract" if subtracts else "value"},
    }


CONVERTERS: dict[type[nn.Module], Callable[[Any, Shape, float], nir.NIRNode]] = {
    **dict.fromkeys((nn.Linear, layer.Linear), _linear),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, layer.Conv1d, layer.Conv2d), _convolution),
    **dict.fromkeys((nn.AvgPool2d, layer.AvgPool2d), _pool),
    **dict.fromkeys((nn.Flatten, layer.Flatten), _flatten),
    layer.SeqToANNContainer: _container,
    Scale: _scale,
    neuron.IFNode: _if,
    neuron.LIFNode: _lif,
    neuron.ParametricLIFNode: _lif,
    neuron.CUBALIFNode: _cuba_lif,
}
"""How each kind of module becomes a node; exact kinds, since a subclass may compute something else."""
