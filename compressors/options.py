"""Callbacks that are values: annotated attributes are their options, checked when they are made, and then fixed."""

import contextlib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from functools import cache
from typing import Any, dataclass_transform, get_type_hints

from lightning.pytorch import Callback

from compressors.annotations import Admitted, shown
from compressors.budget import OptionError
from compressors.registry import parameters_of, suggestion


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Configured(Callback):
    """A callback whose options are the annotated attributes of its class and of its bases, as of a dataclass.

    Subclasses need no decorator: ``seed: int = 0`` in the class body is an option, given by name and known to type
    checkers. Two callbacks of one class with equal options are equal, and ``repr`` shows the options that differ from
    their defaults. A value that its annotation does not admit is refused as it comes in, what contradicts in
    ``__post_init__``, which calls its base's; options cannot be set afterwards.
    Attributes that are no options can: Lightning sets some on every callback. An option declared with
    ``field(compare=False)`` has no say in the result (a folder, for example) and stays out of comparison and records.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        dataclass(kw_only=True, eq=False, repr=False)(cls)  # keeps a constructor that the class has of its own

    def __post_init__(self) -> None:
        """The end of the chain of checks."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _admitted(type(self)):  # type: ignore[arg-type]  # classes are hashable
            if name in vars(self):
                raise FrozenInstanceError(f"{name} is an option of {type(self).__name__}: make another one")
            self.check_option(name, value)
        super().__setattr__(name, value)

    @classmethod
    def check_option(cls, name: str, value: Any) -> None:
        """Refuse a value that the option's annotation does not admit.

        Raises:
            OptionError: names the option, the value, and what is expected.
        """
        admitted = _admitted(cls)[name]  # type: ignore[arg-type]
        if not admitted.admits(value):
            raise OptionError(f"{name} is {shown(value)}: give {admitted.words}")

    def _set(self, name: str, value: Any) -> None:
        """Bring an option into its one form, while the callback is made."""
        object.__setattr__(self, name, value)

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """The constructor's arguments by name, those of the base classes included."""
        return parameters_of(cls)

    def options_to_dict(self) -> dict[str, Any]:
        """Every option that may change the result, with its value (JSON-able)."""
        return {option.name: getattr(self, option.name) for option in _deciding(self)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Configured) or type(other) is not type(self):
            return NotImplemented
        return self.options_to_dict() == other.options_to_dict()

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        chosen = [option.name for option in _deciding(self) if getattr(self, option.name) != _default(option)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in chosen)})"


@cache
def _admitted(kind: type[Configured]) -> Mapping[str, Admitted]:
    """What each option of a class may be."""
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        with contextlib.suppress(NameError):  # an annotation of a name that is there for type checkers only
            hints |= get_type_hints(base, include_extras=True)
    options = [option.name for option in fields(kind) if option.init]  # type: ignore[arg-type]
    return {name: Admitted(hints.get(name, Any)) for name in options}


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()


def _deciding(configured: Configured) -> list[Field[Any]]:
    """The fields of the options that may change the result."""
    return [option for option in fields(configured) if option.init and option.compare]  # type: ignore[arg-type]


def require_known(name: str, value: Any, known: Collection[str]) -> None:
    """Refuse an option's value that is not among those known.

    Raises:
        OptionError: names the option, the value and the nearest known one.
    """
    if value not in known:
        raise OptionError(f"{name} is {value!r}: {suggestion(str(value), known)}")
