"""What an annotation admits: values are held against it by pydantic, and what it wants is said in plain words."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Seed = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
"""Of random numbers; as wide as NumPy's generators take."""

Number = Annotated[float, Field(strict=True)]
WholeNumber = Annotated[int, Field(strict=True)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Epoch = Annotated[int, Field(ge=0, strict=True)]
TimeConstant = Annotated[float, Field(gt=1)]  # of a neuron, in time steps

WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    NoneType: ("nothing", "nothing"),
}
"""Type -> one of it, and several."""

LIMITS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
"""Names of pydantic's limits -> what stands before the number."""

LONGEST = 60
"""Characters of a value that are shown."""

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Admitted:
    """The values that an annotation admits.

    They are those of its type, and what JSON or YAML have for it: a list for a tuple, a text for a path, a whole number
    for a number. True and false are no numbers, and numbers are finite. An annotation that is missing, or that cannot
    be understood, admits everything.
    """

    annotation: Any

    @property
    def words(self) -> str:
        """What it wants, for people: ``a whole number above 0, or nothing``."""
        return described(self.annotation)

    def admits(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return _passes(self._adapter.validate_python, value) or _passes(self._from_json, value)

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        unknown = isinstance(self.annotation, str) or self.annotation is Parameter.empty
        try:
            adapter = TypeAdapter(Any if unknown else self.annotation, config=_STRICT)
        except PydanticUserError:  # no type that values could be held against
            return TypeAdapter(Any)
        return adapter if adapter.pydantic_complete else TypeAdapter(Any)

    def _from_json(self, value: Any) -> Any:
        return self._adapter.validate_json(json.dumps(value))


def _passes(validate: Callable[[Any], Any], value: Any) -> bool:
    try:
        validate(value)
    except (ValidationError, TypeError, RecursionError):  # of what is no JSON, and of what holds itself
        return False
    return True


def described(annotation: Any, number: int = 0) -> str:
    """An annotation in words: ``a text, or a list of texts``; with ``number`` 1 those of several."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return described(arguments[0], number) + _limits(arguments[1:])
    if origin in (Union, UnionType):
        return ", or ".join(described(argument, number) for argument in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return ("a ", "")[number] + _container(origin, arguments)
    name = getattr(annotation, "__name__", str(annotation))
    return WORDS.get(annotation, (f"a {name}", f"{name} objects"))[number]


def _container(origin: type, arguments: tuple[Any, ...]) -> str:
    if issubclass(origin, Mapping):
        return "mapping of " + " to ".join(described(argument, 1) for argument in arguments)
    if issubclass(origin, Collection):
        inside = list(dict.fromkeys(described(argument, 1) for argument in arguments if argument is not ...))
        fixed = issubclass(origin, tuple) and ... not in arguments
        return "list of " + (f"{len(arguments)} " if fixed else "") + " and ".join(inside)
    return origin.__name__


def _limits(notes: Iterable[Any]) -> str:
    """The limits on a number that stand beside its type, each with a space before it."""
    limits = [limit for note in notes if isinstance(note, FieldInfo) for limit in note.metadata]
    told = [
        f" {word} {getattr(limit, name):,}" for limit in limits for name, word in LIMITS.items() if hasattr(limit, name)
    ]
    return " and".join(told)


def shown(value: Any) -> str:
    """A value on one line, as Python writes it, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
