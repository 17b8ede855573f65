"""What a NIR file says, read as data: by a process beside this one, within its declared size, and checked by kind."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import nir
import numpy as np

from benchmark.networks.errors import NIRError
from datamodules.errors import DataCorrupt
from datamodules.isolation import decode

KINDS: Mapping[str, type[nir.NIRNode]] = {
    kind.__name__: kind
    for kind in (
        *(nir.Input, nir.Output, nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d),
        *(nir.Flatten, nir.Scale, nir.IF, nir.LIF, nir.CubaLIF),
    )
}
"""Kinds of nodes by the name that files give them."""

SIZES = {
    *("shape", "input_shape", "input_type", "start_dim", "end_dim", "groups"),
    *("kernel_size", "stride", "padding", "dilation"),
}
"""Fields that are whole numbers; the other ones are weights and parameters."""

LARGEST_SIZE = 2**31

Tree = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """A graph as it stands in a file.

    Args:
        nodes: by name.
        edges: from node to node, each of them a name among the nodes.
        timestep: length of a time step in the graph's unit of time, if its metadata say one.
        has_reset_potentials: whether any node has a ``v_reset`` in the file (``nir`` fills in what is not there).
    """

    nodes: Mapping[str, nir.NIRNode]
    edges: Sequence[tuple[str, str]]
    timestep: float | None
    has_reset_potentials: bool


def read_content(path: Path) -> Content:
    """Read a NIR file.

    Raises:
        NIRError: no such file; no HDF5, or one that declares more than it can hold, or whose content is elsewhere; no
            graph, or a node that is none of its kind. Names the file and the node.
    """
    try:
        return _content(_tree(path))
    except DataCorrupt as error:  # which names the file
        raise NIRError(str(error)) from error
    except NIRError as error:
        raise NIRError(f"{path}: {error}") from error


def _tree(path: Path) -> Tree:
    """The file's groups as dictionaries, with arrays and texts in them."""
    described, *arrays = decode("hdf5", path, "a NIR file")
    rest = iter(arrays)
    tree: Tree = {}
    for name, text in json.loads(described.tobytes()).items():
        *groups, last = name.split("/")[1:]
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[last] = next(rest) if text is None else text
    return tree


def _content(tree: Tree) -> Content:
    graph = _group(tree, "node")
    if graph.get("type") != "NIRGraph":
        raise NIRError(f"it holds no graph, but {graph.get('type')!r}")
    groups = {name: _group(graph["nodes"], name) for name in _group(graph, "nodes")}
    return Content(
        nodes={name: _node(name, group) for name, group in groups.items()},
        edges=list(_edges(graph.get("edges"), groups)),
        timestep=_timestep(_metadata(graph).get("timestep")),
        has_reset_potentials=any("v_reset" in group for group in groups.values()),
    )


def _group(tree: Tree, name: str) -> Tree:
    group = tree.get(name, {})
    if not isinstance(group, dict):
        raise NIRError(f"{name!r} is an array or a text, where a group is expected")
    return group


def _edges(stored: Any, nodes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seen = set()
    for edge in stored if isinstance(stored, list) else [stored]:
        if not isinstance(edge, list) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):
            raise NIRError("its edges are no pairs of names")
        for end in edge:
            if end not in nodes:
                raise NIRError(f"an edge from {edge[0]!r} to {edge[1]!r}: there is no node {end!r}")
        if tuple(edge) in seen:
            raise NIRError(f"there are two edges from {edge[0]!r} to {edge[1]!r}")
        seen.add(tuple(edge))
        yield edge[0], edge[1]


def _metadata(group: Tree) -> Tree:
    """A group's metadata, numbers as such."""
    return {
        key: value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
        for key, value in _group(group, "metadata").items()
    }


def _timestep(stated: Any) -> float | None:
    if stated is None:
        return None
    if not isinstance(stated, int | float) or not 0 < stated < math.inf:
        raise NIRError(f"its metadata say timestep {stated!r:.40}: a number above 0 is expected; give timestep")
    return float(stated)


def _node(name: str, group: Tree) -> nir.NIRNode:
    kind = KINDS.get(group["type"]) if isinstance(group.get("type"), str) else None
    if kind is None:
        known = ", ".join(sorted(KINDS))
        raise NIRError(f"node {name!r} is a {group.get('type')!r:.40}, which cannot be imported; known: {known}")
    try:
        given = {key: _field(key, value) for key, value in group.items() if key not in ("type", "metadata")}
        missing = _required(kind) - given.keys()
        if missing:
            raise NIRError(f"it has no {', '.join(sorted(missing))}")
        if issubclass(kind, nir.Conv1d | nir.Conv2d):
            given.setdefault("input_shape", None)
        with np.errstate(all="ignore"):
            return nir.dict2NIRNode(given | {"type": kind.__name__, "metadata": _metadata(group)})
    except (NIRError, TypeError, ValueError, AssertionError, LookupError, ArithmeticError) as error:
        raise NIRError(f"node {name!r} ({kind.__name__}): {(str(error).splitlines() or ['damaged'])[0]}") from error


def _required(kind: type[nir.NIRNode]) -> set[str]:
    """Names of the fields that a file must have of a node."""
    if issubclass(kind, nir.Input | nir.Output):
        return {"shape"}
    without_default = {
        field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING
    }
    return without_default - {"input_shape", "input_type", "output_type"}


def _field(name: str, value: Any) -> Any:
    """A field's value: finite numbers, whole ones where they are sizes; ``padding`` may be a word.

    Raises:
        NIRError: it is something else.
    """
    if not isinstance(value, np.ndarray):
        if name == "padding" and value in ("same", "valid"):
            return value
        raise NIRError(f"its {name} is {value!r:.40} instead of numbers")
    if name not in SIZES:
        if not np.isfinite(value).all():
            raise NIRError(f"its {name} is not finite")
        return value
    if value.dtype.kind not in "iu" or value.ndim > 1 or (np.abs(value.astype(np.float64)) > LARGEST_SIZE).any():
        raise NIRError(f"its {name} is no whole number, or no list of whole numbers, up to {LARGEST_SIZE:,}")
    return value.astype(np.int64) if value.ndim else int(value)
