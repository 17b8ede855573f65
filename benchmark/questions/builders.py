"""Functions that build networks: what one has to take, and what one that takes something else is answered.

A function is looked at in the source of its module, which is not run for it: whoever misspells an argument need not
wait for torch.
"""

import ast
import inspect
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hardware.registry import suggestion

GIVEN = ("input_shape", "classes")
"""What every builder is called with: the shape of one time step ``(C, H, W)``, and the number of classes."""

EXAMPLE = """\
def {name}(input_shape, classes, *, width=16):
    channels, height, side = input_shape  # of one time step
    return nn.Sequential(...)  # maps [T, B, channels, height, side] to [T, B, classes] or [B, classes]"""


class BuilderError(ValueError):
    """A function that cannot build a network here; says what it takes, and shows one that can."""

    exit_status = 2


def check_builder(target: str, signature: inspect.Signature, options: Mapping[str, Any]) -> None:
    """Refuse a builder that cannot be called with :data:`GIVEN` and the options of its network.

    Args:
        target: what it is called by, such as ``my_net:build``.
        signature: of the builder.
        options: by name.

    Raises:
        BuilderError: it takes something else, or needs more.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = {name: taken for name, taken in signature.parameters.items() if taken.kind in named}
    anything = any(taken.kind is inspect.Parameter.VAR_KEYWORD for taken in signature.parameters.values())
    foreign = [] if anything else [name for name in GIVEN if name not in known]
    positional = [taken for taken in signature.parameters.values() if taken.kind is inspect.Parameter.POSITIONAL_ONLY]
    if foreign or any(taken.default is inspect.Parameter.empty for taken in positional):
        name = target.rpartition(":")[2]
        raise BuilderError(
            f"the model {target!r} takes {_shown(signature)}, and is called with input_shape=(C, H, W) and classes=N: "
            f"let it take them, as in\n\n{EXAMPLE.format(name=name)}"
        )
    _check_options(target, known, anything, options)


def _check_options(
    target: str, known: Mapping[str, inspect.Parameter], anything: bool, options: Mapping[str, Any]
) -> None:
    own = {name: taken for name, taken in known.items() if name not in GIVEN}
    for option in options:
        if option not in own and not anything:
            hint = suggestion(option, own) if own else "it has no options"
            raise BuilderError(f"the model {target!r} has no option {option!r}: {hint}")
    missing = [n for n, taken in own.items() if taken.default is inspect.Parameter.empty and n not in options]
    if missing:
        given = " ".join(f"--model-option {name}=..." for name in missing)
        raise BuilderError(f"the model {target!r} needs {', '.join(missing)}: give {given}, or the arguments a default")


def _shown(signature: inspect.Signature) -> str:
    plain = [taken.replace(annotation=inspect.Parameter.empty) for taken in signature.parameters.values()]
    return str(inspect.Signature(plain)) if plain else "no arguments"


def signature_of(target: str, decorated: bool = False) -> inspect.Signature | None:
    """What ``module:function`` takes, as its source says; None where that does not tell.

    It does not where the module has no source, the function comes from elsewhere, or a decorator may change it.

    Args:
        target: the function, or a class.
        decorated: its decorators are known to leave alone what it takes.

    Raises:
        BuilderError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = target.partition(":")
    spec = _found(module)
    if spec is None:
        raise BuilderError(
            f"the model {target!r}: there is no module {module!r}; it is looked for in the current folder "
            f"({Path.cwd()}), on PYTHONPATH and among the installed packages"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except (OSError, SyntaxError) as error:
        raise BuilderError(f"the model {target!r}: {spec.origin} cannot be read: {error}") from error
    return _in_source(target, attribute, tree, decorated)


def _in_source(target: str, attribute: str, tree: ast.Module, decorated: bool) -> inspect.Signature | None:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    function = functions.get(attribute)
    if isinstance(function, ast.ClassDef):
        own = {node.name: node for node in function.body if isinstance(node, ast.FunctionDef)}
        function = own.get("__init__") if not function.decorator_list else None
        return None if function is None else _signature(function, skipped=1)
    if isinstance(function, ast.FunctionDef):
        return None if function.decorator_list and not decorated else _signature(function)
    plain = all(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Expr) or _imports(node) for node in tree.body)
    if plain and attribute not in _imported(tree):
        raise BuilderError(f"the model {target!r}: its module has no {attribute!r}: {suggestion(attribute, functions)}")
    return None


def _imports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom) and all(alias.name != "*" for alias in node.names)


def _imported(tree: ast.Module) -> set[str]:
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names}


def _found(module: str) -> ModuleSpec | None:
    """Where a module is, found without running the packages that it is in."""
    top, *inner = module.split(".")
    spec = sys.modules[top].__spec__ if top in sys.modules else find_spec(top)
    name = top
    for part in inner:
        if spec is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, [*(spec.submodule_search_locations or ())])
    return spec


def _signature(function: ast.FunctionDef, skipped: int = 0) -> inspect.Signature:
    """A function's arguments; ``skipped`` of the first are left out, such as ``self``. Defaults are as written."""
    kinds, arguments = inspect.Parameter, function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[Any] = [kinds.empty] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    places = [kinds.POSITIONAL_ONLY] * len(arguments.posonlyargs) + [kinds.POSITIONAL_OR_KEYWORD] * len(arguments.args)
    found = [_parameter(*each) for each in zip(plain, places, defaults, strict=True)][skipped:]
    if arguments.vararg is not None:
        found.append(kinds(arguments.vararg.arg, kinds.VAR_POSITIONAL))
    for keyword, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(_parameter(keyword, kinds.KEYWORD_ONLY, kinds.empty if default is None else default))
    if arguments.kwarg is not None:
        found.append(kinds(arguments.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(found)


class _Written:
    """A default as it stands in the source."""

    def __init__(self, node: ast.expr) -> None:
        self.text = ast.unparse(node)

    def __repr__(self) -> str:
        return self.text


def _parameter(argument: ast.arg, kind: Any, default: Any) -> inspect.Parameter:
    written = _Written(default) if isinstance(default, ast.expr) else default
    return inspect.Parameter(argument.arg, kind, default=written)
