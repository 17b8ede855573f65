"""Names of things that can be plugged in, resolved lazily: listing them imports nothing heavy."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class UnknownName(KeyError):
    """A name that nothing is registered under; the message suggests the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Entry:
    """One registered thing: ``target`` is ``"module:attribute"``, ``summary`` one line for people."""

    target: str
    summary: str
    origin: str = "snnbench"

    def load(self) -> Any:
        """Import the module and return the attribute."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"unknown ...: did you mean ...?"``'s second half: the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


class Registry(Mapping[str, Entry]):
    """Names of one kind of thing -> :class:`Entry`, from the built-in table and from other packages' entry points.

    Args:
        kind: what the names stand for, for messages ("compressor").
        group: the entry-point group in which other packages register theirs.
        entries: the built-in ones.
    """

    def __init__(self, kind: str, group: str, entries: dict[str, Entry]) -> None:
        self.kind, self.group = kind, group
        self._builtin = entries
        self._all: dict[str, Entry] | None = None

    def _entries(self) -> dict[str, Entry]:
        if self._all is None:
            self._all = self._builtin | {point.name: self._plugin(point) for point in entry_points(group=self.group)}
        return self._all

    def _plugin(self, point: EntryPoint) -> Entry:
        origin = point.dist.name if point.dist else "unknown package"
        if point.name in self._builtin:
            raise ValueError(
                f"the package {origin!r} registers the {self.kind} {point.name!r}, a name that snnbench uses itself: "
                f"rename its entry point in the group {self.group!r}, or uninstall it"
            )
        return Entry(point.value, f"from the package {origin}", origin)

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries()[name]
        except KeyError:
            raise UnknownName(f"unknown {self.kind} {name!r}: {suggestion(name, self._entries())}") from None

    def __iter__(self) -> Any:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())

    def __contains__(self, name: object) -> bool:
        return name in self._entries()


COMPRESSORS = Registry(
    "compressor",
    "snnbench.compressors",
    {
        "identity": Entry("compressors.identity:Identity", "the dense network, unchanged (control)"),
        "random": Entry("compressors.random_pruning:RandomPruning", "weights removed at random (control)"),
        "magnitude": Entry("compressors.magnitude:Magnitude", "the smallest weights removed (control)"),
        "obc": Entry("compressors.obc:OBC", "Optimal Brain Compression: exact second-order pruning on input currents"),
        "sbc": Entry("compressors.sbc:SBC", "Spiking Brain Compression: OBC on membrane potentials"),
    },
)
