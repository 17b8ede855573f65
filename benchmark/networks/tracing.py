"""A network's forward pass as a graph of operations, for whoever writes or rebuilds it operation by operation."""

from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch import fx, nn

from benchmark.networks.errors import NetworkError
from hardware.functions import Kind, describe
from hardware.neurons import is_neuron, is_unknown_neuron


class _Tracer(fx.Tracer):
    """Looks into containers only."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        neurons = is_neuron(m) or is_unknown_neuron(m)
        return neurons or isinstance(m, layer.SeqToANNContainer) or not any(m.children())


def traced(network: nn.Module) -> fx.GraphModule:
    """The network's operations in order, over its own layers and neurons.

    What it does by ``x.flatten(2)`` to values ``[T, B, ...]``, a layer does in the graph.

    Raises:
        NetworkError: control flow that depends on data.
    """
    try:
        return _with_flattening_layers(fx.GraphModule(network, _Tracer().trace(network)))
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise NetworkError(f"the network's forward pass is no fixed graph: {str(error).splitlines()[0]}") from error


def _with_flattening_layers(operations: fx.GraphModule) -> fx.GraphModule:
    flattening = [node for node in operations.graph.nodes if _flattens_features(node)]
    for node in flattening:
        name = f"{node.name}_features"
        operations.add_submodule(name, layer.Flatten(step_mode="m"))
        with operations.graph.inserting_before(node):
            node.replace_all_uses_with(operations.graph.call_module(name, tuple(node.all_input_nodes)))
        operations.graph.erase_node(node)
    if flattening:
        operations.recompile()
    return operations


def _flattens_features(node: fx.Node) -> bool:
    """Whether an operation flattens what follows time and batch."""
    if (node.op, node.target) not in (("call_method", "flatten"), ("call_function", torch.flatten)):
        return False
    given: dict[str, Any] = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | dict(node.kwargs)
    return bool(given.get("start_dim") == 2 and given.get("end_dim", -1) == -1)


def is_addition(node: fx.Node) -> bool:
    """Whether an operation adds its arguments as they are (``torch.add`` can multiply one of them by ``alpha``)."""
    function = describe(node.target) if callable(node.target) else None
    return function is not None and function.kind is Kind.ADDITION and bool(node.kwargs.get("alpha", 1) == 1)
