"""Things named with options of their own: what a name may look like, what an option may hold, and who may say what.

A name that a user says, on the command line or in a suite, is a :class:`Named` and may be ``module:attribute``. One
that stands in a file, such as a checkpoint's header, is a :class:`Told`: it is looked up among what is registered,
and nowhere else. Which of the two it is goes with the name wherever it is used.
"""

import math
import os
import re
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator

from hardware.registry import Entry, Registry, UnknownName

NAME = r"^[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,99}$"
"""What a name may look like: it becomes a folder's name, and stands in tables and commands."""

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, turn its direction, steer a terminal, or cannot be written as UTF-8."""

LARGEST = 2**63 - 1
"""Of whole numbers: what fits in 64 bits also fits in a float."""

DEEPEST = 16
"""How many lists and mappings may stand in each other."""


def plain(value: Any) -> Any:
    """A value, if it is made of numbers, words, lists and mappings; for pydantic.

    Raises:
        ValueError: something else, or a number or text that cannot be written down everywhere; says which.
    """
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, (int, float)):
            _check_number(item)
        elif isinstance(item, (dict, list, tuple)):
            if depth > DEEPEST:
                raise ValueError(f"lists and mappings stand in each other more than {DEEPEST} deep")
            children = (*item.keys(), *item.values()) if isinstance(item, dict) else item
            pending += [(child, depth + 1) for child in children]
        elif item is not None:
            raise ValueError(f"a {type(item).__name__} is no number and no text: quote it to make it a text")
    return value


def showable(text: str) -> str:
    """A text of any number of lines without other characters that steer a terminal or cannot be written."""
    lines = text.expandtabs().splitlines()
    return "\n".join(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", line) for line in lines)


def _check_text(text: str) -> None:
    if not (text.isascii() and text.isprintable()) and (found := UNPRINTABLE.search(text)):
        raise ValueError(f"a text holds the character {found.group()!a}, which no table or command can show")


def _check_number(number: float) -> None:
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    if not -LARGEST <= number <= LARGEST and isinstance(number, int):
        raise ValueError("a whole number has more than 64 bits")


def no_negative(value: Any) -> Any:
    """A value, if it is no whole number below zero: those of networks and data are sizes; for pydantic.

    Raises:
        ValueError: it is.
    """
    if isinstance(value, int) and value < 0:
        raise ValueError(f"{value} is below 0, and no size or number of something can be")
    return value


Plain = Annotated[Any, AfterValidator(plain)]
Size = Annotated[Any, AfterValidator(plain), AfterValidator(no_negative)]


class Named(BaseModel):
    """Something from a registry with options of its own, as a user names it: ``conv``, ``{name: conv, width: 16}``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Plain] = Field(init=False)
    name: str = Field(pattern=NAME)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside ``name``."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """``name`` or ``name[option,...]``, for people; words stand alone, numbers with their option's name."""
        shown = [value if isinstance(value, str) else f"{key}={value}" for key, value in sorted(self.options.items())]
        return f"{self.name}[{','.join(shown)}]" if shown else self.name

    def found_in(self, registry: Registry) -> Entry:
        """What the name stands for.

        Raises:
            UnknownName: nothing is registered under it, and it is no ``module:attribute``.
        """
        return registry.by_user(self.name)


class NamedNetwork(Named):
    """A network, to be trained, or with the weights of a ``checkpoint``.

    That is a file (see :func:`benchmark.networks.weights.checkpoints.load`), in whose path variables of the
    environment are replaced, or the name of a published one. A NIR file brings its network with it, under
    the name ``nir``.
    """

    __pydantic_extra__: dict[str, Size] = Field(init=False)
    checkpoint: str | None = None

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialize: Any) -> dict[str, Any]:
        """Leaves out a checkpoint where there is none, so that networks that are trained read as they always did."""
        return {key: value for key, value in serialize(self).items() if (key, value) != ("checkpoint", None)}

    @property
    def weights(self) -> Path | None:
        """The checkpoint's place on this machine."""
        return None if self.checkpoint is None else Path(os.path.expandvars(self.checkpoint)).expanduser()

    @property
    def label(self) -> str:
        """As of any name with options, and the checkpoint by its file's name."""
        return super().label if self.checkpoint is None else f"{super().label} of {PurePath(self.checkpoint).stem}"


class Data(Named):
    """A data set and how it is shown: ``timesteps`` frames a sample."""

    __pydantic_extra__: dict[str, Size] = Field(init=False)
    timesteps: int = Field(default=10, ge=1, le=1_000_000, strict=True)


class Told(Named):
    """A name that stands in a file that somebody else may have written: one that is registered, or none.

    What opens other files by its options, as a NIR network does, is none either: a file names no further files.
    """

    __pydantic_extra__: dict[str, Size] = Field(init=False)

    def found_in(self, registry: Registry) -> Entry:
        """What the name stands for.

        Raises:
            UnknownName: nothing is registered under it, or what reads other files.
        """
        remedy = f"if you trust it, name it yourself with --{registry.kind.split()[0]}"
        if self.name not in registry and ":" in self.name:
            raise UnknownName(
                f"the file names the {registry.kind} {self.name!r}, which is not registered and is not run: {remedy}"
            )
        entry = registry[self.name]
        if entry.reads_files:
            raise UnknownName(
                f"the file names the {registry.kind} {self.name!r}, which reads another file: {remedy} and its options"
            )
        return entry


class ToldData(Told, Data):
    """A data set that a file names."""
