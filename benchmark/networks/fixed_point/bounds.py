"""How large sums of whole numbers can become, whatever spikes come: what floats must hold to be exact."""

from collections.abc import Mapping
from typing import Any

from torch import fx

from benchmark.networks.fixed_point.choosing import LayerIntegers
from benchmark.networks.fixed_point.reading import MEANS, Structure
from benchmark.networks.fixed_point.scheme import EXACT_FLOAT32, LARGEST_CURRENT, FixedPointError

LEAST_ROOM = 15  # events in one place that every network takes

Bound = tuple[int, int]  # of a magnitude: so many times the input's, and so much more


def magnitudes(structure: Structure, largest: int) -> dict[str, int]:
    """The largest magnitude of each layer's input, by the layer's name, for a network that is to take ``largest``."""
    named, room = _bounds(structure, {}), _room(largest)
    sources = {layer.name: layer.node.all_input_nodes[0] for layer in structure.layers}
    bounds = {name: named[_name(source)] for name, source in sources.items()}
    return {name: by_input * room + more for name, (by_input, more) in bounds.items()}


def _room(largest: int) -> int:
    """Events in one place that a network is to take that saw ``largest`` of them on the calibration data."""
    return max(LEAST_ROOM, 4 * largest)


def limits(structure: Structure, layers: Mapping[str, LayerIntegers], largest: int) -> tuple[int, set[str]]:
    """The largest input for which all sums are exact, and the layers that need float64 for theirs.

    Raises:
        FixedPointError: a layer's currents may not fit 32 bits.
    """
    bounds = _bounds(structure, layers)
    room = _room(largest)
    wide = {name for name, (by_input, more) in bounds.items() if by_input * room + more >= EXACT_FLOAT32}
    for name in wide:
        by_input, more = bounds[name]
        if name not in layers or by_input * room + more >= LARGEST_CURRENT:
            raise FixedPointError(
                f"layer {name!r} may sum up to {by_input * room + more:,}, more than whole numbers hold here exactly: "
                "give fewer weight bits or potential bits"
            )
    limits = {name: LARGEST_CURRENT if name in wide else EXACT_FLOAT32 for name in bounds}
    fed = [(limits[name] - 1 - more) // by_input for name, (by_input, more) in bounds.items() if by_input]
    return min(fed, default=EXACT_FLOAT32), wide & layers.keys()


def _bounds(structure: Structure, layers: Mapping[str, LayerIntegers]) -> dict[str, Bound]:
    """What no magnitude on the way through an operation exceeds, by the module's or the operation's name."""
    bounds: dict[fx.Node, Bound] = {}
    named: dict[str, Bound] = {}
    neurons = set(structure.neurons)
    for node in structure.operations.graph.nodes:
        sources = [bounds[source] for source in node.all_input_nodes]
        total = (sum(bound[0] for bound in sources), sum(bound[1] for bound in sources))
        name = _name(node)
        if node.op == "placeholder":
            total = (1, 0)
        elif node in neurons:
            total = (0, 1)
        elif name in layers:
            total = _bound(layers[name], total)
        elif node.op == "call_module":
            module: Any = structure.operations.get_submodule(name)
            window = _window(module) if type(module) in MEANS else 1
            total = (window * total[0], window * total[1])
        bounds[node] = named[name] = total
    return named


def _bound(one: LayerIntegers, given: Bound) -> Bound:
    most = int(one.weight.abs().flatten(1).sum(1).max())
    bias = 0 if one.bias is None else int(one.bias.abs().max())
    return most * given[0], most * given[1] + bias


def _window(pool: Any) -> int:
    size = pool.kernel_size
    return int(size * size if isinstance(size, int) else size[0] * size[1])


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name
