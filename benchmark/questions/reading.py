"""YAML from anybody: plain values of a bounded size, or an error that names the line."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

LARGEST_TEXT = 2**18
"""Characters. Thousands of runs are asked for on one page."""

MOST_VALUES = 100_000
"""Values of a document with every alias written out."""

DEEPEST = 50
"""How many lists and mappings may stand in each other."""

WORDS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "merge")}
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 has them: ``2:4`` is a text and not a number to the base of 60, ``1e-3`` a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # declared so by PyYAML
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_DIGITS = list("-+.0123456789")
FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    _DIGITS,
)
"""What is read as a number with a fraction or exponent: whoever writes YAML has to quote texts that look like it."""

_Loader.add_implicit_resolver(*FLOAT)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"), _DIGITS
)


class YAMLFault(ValueError):
    """A document that is not read.

    Attributes:
        line: where, from 1.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """A document's nodes, which know their lines, and its value: numbers, texts, truth values, lists, mappings.

    Raises:
        YAMLFault: it is no YAML, too large, or says what no option can be: a date, a key twice, infinity.
    """
    if len(text) > LARGEST_TEXT:
        raise YAMLFault(1, f"it has more than {LARGEST_TEXT} characters")
    loader = _Loader(text) if not _unreadable(text) else None
    if loader is None:
        raise YAMLFault(1, "it holds characters that YAML does not have")
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _measure(root, {}, [])
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YAMLFault(mark.line + 1 if mark else 1, error.problem or "it is no YAML") from error
    except RecursionError as error:
        raise YAMLFault(1, f"lists and mappings stand in each other more than {DEEPEST} deep") from error
    finally:
        loader.dispose()


def _unreadable(text: str) -> bool:
    return yaml.reader.Reader.NON_PRINTABLE.search(text) is not None


def _measure(node: yaml.Node, known: dict[int, int], above: list[yaml.Node]) -> int:
    """Number of values in a node with its aliases written out; every node is looked at once.

    Args:
        node: of the document.
        known: numbers by node, as far as found.
        above: the nodes that this one stands in.

    Raises:
        YAMLFault: see :func:`read_yaml`.
    """
    if id(node) in known:
        return known[id(node)]
    if any(node is outer for outer in above):
        raise _fault(node, "a list or mapping holds itself")
    if len(above) > DEEPEST:
        raise _fault(node, f"lists and mappings stand in each other more than {DEEPEST} deep")
    number = 1 + sum(_measure(child, known, [*above, node]) for child in _children(node))
    if number > MOST_VALUES:
        raise _fault(node, f"with its aliases written out it has more than {MOST_VALUES} values")
    known[id(node)] = number
    return number


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
    elif isinstance(node, yaml.MappingNode):
        if node.tag != "tag:yaml.org,2002:map":
            raise _fault(node, f"{node.tag} is no list or mapping of plain values")
        _check_keys(node)
        for pair in node.value:
            yield from pair
    else:
        if node.tag != "tag:yaml.org,2002:seq":
            raise _fault(node, f"{node.tag} is no list or mapping of plain values")
        yield from node.value


def _check_scalar(node: yaml.ScalarNode) -> None:
    if node.tag not in WORDS:
        kind = node.tag.rpartition(":")[2].replace("timestamp", "date")
        raise _fault(node, f"{node.value!r} is a {kind}, and no number or text: quote it to make it a text")
    try:
        value = None if node.tag == _MERGE else _Loader("").construct_object(node)
    except (ValueError, OverflowError, LookupError) as error:
        raise _fault(node, f"{node.value[:40]!r} is no value that can be read") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _fault(node, f"{node.value} is no finite number")


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault(key, "a key is a list or a mapping: give a word")
        if key.value in seen:
            raise _fault(key, f"the key {key.value!r} is there twice: leave one of them out")
        seen.add(key.value)


def _fault(node: yaml.Node, reason: str) -> YAMLFault:
    return YAMLFault(node.start_mark.line + 1, reason)


def line_of(node: yaml.Node | None, place: Iterable[int | str]) -> int:
    """The line (from 1) in the file of the key or item at ``place``, or of the nearest thing that encloses it."""
    line = 1 if node is None else node.start_mark.line + 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == step), None)
            if entry is None:
                return line
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line
