"""What is wrong with an author's compressor whose hooks break the life of a fit."""

import inspect
from typing import Any

from lightning.pytorch import Callback


class CompressorError(RuntimeError):
    """A compressor that does not keep to the order of its hooks: a mistake in its code."""

    exit_status = 1


def hooks_without_super(method: type) -> list[str]:
    """The hooks, as ``Class.hook``, that classes of other packages override without a call of what they replace."""
    missing = []
    for place, owner in enumerate(method.__mro__):
        if owner.__module__.partition(".")[0] in ("compressors", "lightning"):
            continue
        parents = [vars(base) for base in method.__mro__[place + 1 :] if base.__module__.startswith("compressors.")]
        for name, function in vars(owner).items():
            hook = hasattr(Callback, name) and not name.startswith("__")
            if hook and any(name in parent for parent in parents) and _forgets(function, name):
                missing.append(f"{owner.__name__}.{name}")
    return missing


def _forgets(function: Any, name: str) -> bool:
    """Whether a function never calls anything by this name, so neither ``super().name()``."""
    return inspect.isfunction(function) and name not in function.__code__.co_names
