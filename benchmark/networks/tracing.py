"""A network's forward pass as a graph of operations, for whoever writes or rebuilds it operation by operation."""

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

    Raises:
        NetworkError: control flow that depends on data.
    """
    try:
        return fx.GraphModule(network, _Tracer().trace(network))
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise NetworkError(f"the network's forward pass is no fixed graph: {str(error).splitlines()[0]}") from error


def is_addition(node: fx.Node) -> bool:
    """Whether an operation adds its arguments as they are (``torch.add`` can multiply one of them by ``alpha``)."""
    function = describe(node.target) if callable(node.target) else None
    return function is not None and function.kind is Kind.ADDITION and bool(node.kwargs.get("alpha", 1) == 1)
