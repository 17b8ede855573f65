"""Networks in files of ``torch.save``: the one dictionary of tensors in what people keep; nothing of a file is run."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights.pickles import refuse_swollen

SMALL_BYTES = 2**26
"""Of all tensors together, which are made whatever the size of the file."""

LARGEST_RATIO = 16
"""Bytes of tensors, which may show one memory several times, for a byte of the file."""

ZIP = b"PK\x03\x04"
"""How a file of today's ``torch.save`` begins; others are pickles one after another, and then bytes of tensors."""

OLD_PICKLES = 5

LARGEST_NUMBER = 100
"""Dictionaries, lists and tuples that are looked into."""


class _Beside:
    """Stands for a value beside the weights, such as an argument of the script or a number of NumPy's."""

    def __init__(self, *described: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _dictionary(*factory: Any) -> dict[Any, Any]:
    """Stands for a dictionary with a default: an empty one, which gets its entries afterwards."""
    return {}


def _list(*described: Any) -> list[Any]:
    """Stands for a queue: an empty list, which gets its entries afterwards."""
    return []


CONTAINERS = ((_dictionary, "collections.defaultdict"), (_list, "collections.deque"))

BESIDE = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "decimal.Decimal",
    "uuid.UUID",
    *(f"datetime.{kind}" for kind in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"builtins.{kind}" for kind in ("bool", "dict", "float", "frozenset", "int", "list", "range", "str", "tuple")),
    "_codecs.encode",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.numeric._frombuffer",
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{kind}" for kind in ("PosixPath", "WindowsPath")),
)
"""What training scripts keep beside the weights; none of it is made, a :class:`_Beside` takes its place."""


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The one dictionary of tensors in a file of ``torch.save``, by itself or beside an optimizer and other things.

    Raises:
        CheckpointError: a damaged file; an object of a class that cannot be made without running its code; no
            dictionary of tensors, or several of them; tensors that are larger than the file. Names the file.
    """
    try:
        content = _unpickled(path)
    except Exception as error:  # whatever the bytes lead torch to
        raise CheckpointError(f"{path} is not a checkpoint that can be read safely: {_reason(error)}") from error
    states = dict(_states(content, "", {}))
    pure = {name: state for name, state in states.items() if all(isinstance(value, Tensor) for value in state.values())}
    state = _only(path, pure or states)
    declared = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    most = max(SMALL_BYTES, LARGEST_RATIO * path.stat().st_size)
    if declared > most:
        raise CheckpointError(f"{path} declares {declared:,} bytes of tensors, and at most {most:,} are read of it")
    return state


def _unpickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
        if expanded > path.stat().st_size:  # torch.save compresses nothing
            raise CheckpointError(f"its parts would be {expanded:,} bytes, more than the file")
    with path.open("rb") as file:
        if file.read(len(ZIP)) == ZIP:
            refuse_swollen(BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
        else:
            file.seek(0)
            refuse_swollen(file, OLD_PICKLES)
    with torch.serialization.safe_globals([*CONTAINERS, *((_Beside, name) for name in BESIDE)]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """What is wrong, in our words: those of torch tell how to switch its safety off."""
    message = str(error)
    if isinstance(error, CheckpointError):
        return message
    if isinstance(error, OSError):
        return error.strerror or "it cannot be opened"
    if refused := re.search(r"GLOBAL ([\w.]+)", message):
        return f"it contains an object of class {refused[1]}: save net.state_dict() instead"
    if "TorchScript" in message:
        return "it is a program in TorchScript: save net.state_dict() instead"
    return "it is damaged, or no file of torch.save"


def _states(content: Any, name: str, seen: dict[int, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary with weights in there, by the keys that lead to it; an optimizer's are behind numbers.

    ``seen`` are the containers that were looked into, by their identity.
    """
    if not isinstance(content, dict | list | tuple) or id(content) in seen or len(seen) > LARGEST_NUMBER:
        return
    seen[id(content)] = content
    if isinstance(content, dict):
        named = {key: value for key, value in content.items() if isinstance(key, str)}
    else:
        named = {str(place): value for place, value in enumerate(content)}
    if isinstance(content, dict) and len(named) == len(content) and any(map(_is_weight, named.values())):
        yield name, named
    for key, value in named.items():
        yield from _states(value, f"{name}/{key}" if name else key, seen)


def _is_weight(value: Any) -> bool:
    """Whether it may be a weight, and no state of a random generator and no single figure."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _only(path: Path, states: Mapping[str, dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of the dictionary that lies less deep than all others.

    Raises:
        CheckpointError: there is none, or more than one, or tensors of another kind than networks compute with.
    """
    depths = {name: name.count("/") + 1 if name else 0 for name in states}
    names = [name for name, depth in depths.items() if depth == min(depths.values())]
    if not names:
        raise CheckpointError(f"{path} holds no state dict (names -> tensors): save net.state_dict()")
    if len(names) > 1:
        raise CheckpointError(
            f"{path} holds {len(names)} state dicts ({', '.join(map(repr, names[:6]))}): save the one that is meant "
            "in a file of its own"
        )
    state = {name: value for name, value in states[names[0]].items() if isinstance(value, Tensor)}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: {name!r} is no plain tensor of numbers")
    return state
