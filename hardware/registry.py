"""Names of things that can be plugged in, resolved lazily: listing them imports nothing heavy."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

OWN = "snnbench"


class UnknownName(KeyError):
    """A name that nothing is registered under; the message suggests the nearest ones."""

    exit_status = 2

    def __str__(self) -> str:
        return str(self.args[0])


class PluginError(RuntimeError):
    """Something registered by another package, or named as ``module:attribute``, that cannot be loaded."""

    exit_status = 2


@dataclass(frozen=True)
class Requirement:
    """What the entries of a registry must be: classes derived from ``base``, or with ``instances`` objects of it.

    ``base`` is named as ``"module:attribute"``, and imported when an entry is.
    """

    base: str
    instances: bool = False

    def is_met_by(self, thing: Any) -> bool:
        """Whether ``thing`` is such a class or object."""
        base = _imported(self.base)
        return isinstance(thing, base) if self.instances else isinstance(thing, type) and issubclass(thing, base)

    def __str__(self) -> str:
        name = self.base.replace(":", ".")
        return f"an object of {name}" if self.instances else f"a class derived from {name}"


@dataclass(frozen=True)
class Entry:
    """One registered thing: ``target`` is ``"module:attribute"``, ``summary`` one line for people.

    ``origin`` is the package that registers it, None for what was named as ``module:attribute``. ``requirement`` is
    what it must be, if it is not of this package. ``reads_files``: it opens files that its options name.
    """

    target: str
    summary: str
    origin: str | None = OWN
    requirement: Requirement | None = None
    reads_files: bool = False

    def load(self) -> Any:
        """Import the module and return the attribute.

        Raises:
            PluginError: another package's module does not import, has no such attribute, or one of the wrong kind.
        """
        if self.origin == OWN:
            return self._import()
        remedy = f"mend or uninstall the package {self.origin!r}" if self.origin else "mend the module or its name"
        try:
            thing = self._import()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # another package's code may raise anything, SystemExit too
            raise PluginError(f"{self.target} cannot be loaded ({type(error).__name__}: {error}): {remedy}") from error
        if self.requirement is not None and not self.requirement.is_met_by(thing):
            kind = f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"
            raise PluginError(f"{self.target} is {kind}, but must be {self.requirement}: {remedy}")
        return thing

    def _import(self) -> Any:
        return _imported(self.target)


def _imported(target: str) -> Any:
    """The thing that ``"module:attribute"`` names."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """Arguments by name of a function, or of a class's constructor and those of its bases: what may be an option.

    Annotations that are written as texts are those that they stand for, where that can be found out.
    """
    if not inspect.isclass(target):
        functions = [target if inspect.isfunction(target) else vars(type(target)).get("__call__")]
    else:
        functions = [vars(kind).get("__init__") for kind in reversed(target.__mro__)]
    signatures = [_signature(function) for function in functions if inspect.isfunction(function)]
    named = {name: parameter for signature in signatures for name, parameter in signature.parameters.items()}
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: parameter for name, parameter in named.items() if name != "self" and parameter.kind not in variable}


@lru_cache(maxsize=1024)
def _signature(function: Any) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):  # of a text that says something to type checkers only
        return inspect.signature(function)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"unknown ...: did you mean ...?"``'s second half: the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def says(file: Path, key: str) -> str:
    """What a YAML file says of itself under a key, on that line, read as text so that listing it costs nothing."""
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    return next((text.strip() for word, _, text in lines if word == key), "")


class Registry(Mapping[str, Entry]):
    """Names of one kind of thing -> :class:`Entry`, from the built-in table and from other packages' entry points.

    Looking a name up (``registry[name]``) finds what is registered and nothing else, so that a name which came out of
    a file runs no code of the file's choosing. What a user says, on the command line, in a suite or in Python, goes
    through :meth:`by_user`, for which ``module:attribute`` is a name too, of anything that can be imported.

    Args:
        kind: what the names stand for, for messages ("compressor").
        group: the entry-point group in which other packages register theirs.
        entries: the built-in ones.
        requirement: what those of other packages must be.
    """

    def __init__(
        self, kind: str, group: str, entries: dict[str, Entry], requirement: Requirement | None = None
    ) -> None:
        self.kind, self.group, self.requirement = kind, group, requirement
        self._builtin = entries

    @cached_property
    def _found(self) -> tuple[dict[str, Entry], dict[str, str]]:
        """The entries, and by name what is wrong with those that cannot be among them."""
        entries, clashes = dict(self._builtin), {}
        for point in sorted(entry_points(group=self.group), key=lambda point: (point.name, _origin(point))):
            origin = _origin(point)
            entry = Entry(point.value, f"from the package {origin}", origin, self.requirement)
            if entries.setdefault(point.name, entry) != entry:
                clashes[point.name] = (
                    f"the package {origin!r} registers the {self.kind} {point.name!r}, a name that "
                    f"{entries[point.name].origin!r} uses already: rename its entry point in the group {self.group!r}, "
                    "or uninstall it"
                )
        return entries, clashes

    def problems(self) -> dict[str, str]:
        """Name -> what is wrong with it, of the plug-ins that clash or do not load. Imports all plug-ins."""
        entries, clashes = self._found
        broken = dict(clashes)
        for name, entry in entries.items():
            if entry.origin == OWN:
                continue
            try:
                entry.load()
            except PluginError as error:
                broken[name] = str(error)
        return broken

    def __getitem__(self, name: str) -> Entry:
        entries, _ = self._found
        if name in entries:
            return entries[name]
        raise UnknownName(f"unknown {self.kind} {name!r}: {suggestion(name, entries)}")

    def by_user(self, name: str) -> Entry:
        """What a user means by a name: something registered, or ``module:attribute``.

        Raises:
            UnknownName: nothing is registered under it, and it names no module.
        """
        if name in self:
            return self[name]
        if ":" in name:
            return Entry(name, "named by its module", None, self.requirement)
        raise UnknownName(f"unknown {self.kind} {name!r}: {suggestion(name, self)} (or name it as module:attribute)")

    def __iter__(self) -> Any:
        return iter(self._found[0])

    def __len__(self) -> int:
        return len(self._found[0])

    def __contains__(self, name: object) -> bool:
        return name in self._found[0]


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown package"
