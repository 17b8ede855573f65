"""Networks in NIR files (neuromorphic intermediate representation) as networks of SpikingJelly's layers and neurons."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from graphlib import CycleError, TopologicalSorter
from operator import add
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from benchmark.networks.errors import NIRError
from benchmark.networks.nir.content import Content, read_content
from benchmark.networks.nir.converters import RESETS, Reading, Reset, converted

LARGEST_OUTPUT = 2**26
"""Entries of a node's output for one sample and time step."""


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
        steps: of all modules and, last, the output.
        source: name of the input, which is no module.
        sink: name of the output, which is no module.
        timestep: length of a time step in the graph's unit of time, for writing it as NIR again.
        reset: how its neurons are reset, and what says so, for people.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        steps: Sequence[_Step],
        source: str,
        sink: str,
        timestep: float,
        reset: str = "",
    ) -> None:
        super().__init__()
        self.source, self.sink, self.timestep, self.reset = source, sink, timestep, reset
        self._steps = steps
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
    """The nodes behind the source in an order in which every node follows those it takes its input from.

    Raises:
        NIRError: a cycle, or a node that no path from the input to the output leads through.
    """
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
    """A network in a NIR file, with its weights: a feed-forward graph of nodes that :data:`CONVERTERS` knows.

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
    steps = _schedule([*inner, source, sink], content.edges, source, sink)
    resets = {
        name: _Reset(reset, "as asked for") if reset else _reset_of(name, node, content)
        for name, node in inner.items()
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF)
    }
    modules = {
        name: converted(name, node, Reading(step, stated is not None, resets[name].kind if name in resets else ""))
        for name, node in inner.items()
    }
    said = "; ".join(sorted({f"{found.kind} ({found.reason})" for found in resets.values()}))
    network = Graph(modules, steps, source, sink, step, said)
    functional.set_step_mode(network, "m")
    _check_run(network, input_shape, classes, content.nodes[sink])
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


def _check_run(network: Graph, input_shape: tuple[int, int, int], classes: int, sink: nir.Output) -> None:
    """Run one step without numbers, so that nodes that do not fit each other are found before any work."""
    shapes = copy.deepcopy(network).to("meta")
    for name, module in shapes.named_children():
        module.register_forward_hook(partial(_check_size, name))
    try:
        with torch.no_grad():
            outputs = shapes(torch.zeros(1, 1, *input_shape, device="meta")).shape[2:]
    except NIRError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:  # what torch makes of sizes that do not fit
        raise NIRError(f"the graph's nodes do not fit each other: {str(error).splitlines()[0]}") from error
    if tuple(outputs) != (classes,):
        raise NIRError(f"the graph has outputs of shape {tuple(outputs)}, the data set {classes} classes")
    declared = tuple(int(size) for size in sink.output_type["output"])
    if declared != tuple(outputs):
        raise NIRError(f"node {network.sink!r} says that outputs have the shape {declared}, they have {tuple(outputs)}")


def _check_size(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.numel() > LARGEST_OUTPUT:
        raise NIRError(f"node {name!r} has {output.numel():,} outputs a sample and step: more than {LARGEST_OUTPUT:,}")


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
