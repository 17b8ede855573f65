"""Decoders that no file of a stranger may be given to in one's own process; :mod:`datamodules.isolation` runs them.

A damaged file makes some of them end the interpreter or ask for all memory, and a pickle is a program. This module is
started as a script, imports nothing of the project, and answers requests, one a line, until there are no more.
"""

import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]

LIMIT_S = 60
"""CPU time for one file, and a second more for each MB of it."""

SHORTER_S = {"hdf5": 10}
"""By decoder, where damaged files are known to keep the library busy for ever."""

LIMIT_BYTES = 1 << 30
"""Memory for one file, and `BYTES_PER_BYTE` more for each byte of it."""

BYTES_PER_BYTE = 32

ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
"""All that an array of bytes needs to be unpickled."""


def aedat4(path: str) -> Arrays:
    """Columns t, x, y, p of the first event stream of a recording in AEDAT 4."""
    import aedat

    decoder = aedat.Decoder(path)
    streams = [number for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
    if not streams:
        raise ValueError("it has no stream of events")
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == min(streams)]
    if not packets:
        raise ValueError("it has no events")
    events = np.concatenate(packets)
    return [events[name] for name in events.dtype.names or ()]


def dat2mat(path: str) -> Arrays:
    """Columns t, x, y, p, of a MATLAB file as ``dat2mat.m`` writes them: 1, 4, 5 and 6 of the matrix ``out1``."""
    import scipy.io

    matrix = scipy.io.loadmat(path, variable_names=["out1"]).get("out1")
    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != 6:
        raise ValueError("expected a matrix out1 of 6 columns, as dat2mat.m writes it")
    return list(matrix[:, [0, 3, 4, 5]].T)


def synsets(path: str) -> Arrays:
    """Numbers and WordNet identifiers of ImageNet's classes, from the development kit's table of them."""
    import scipy.io

    table = scipy.io.loadmat(path, squeeze_me=True, variable_names=["synsets"]).get("synsets")
    if table is None:
        raise ValueError("it has no table synsets")
    return [np.array(table["ILSVRC2012_ID"], dtype=np.int64), np.array(table["WNID"], dtype="U9")]


def cifar10_images(path: str) -> Arrays:
    """Pixels [n, 3072] and labels [n] of a file of CIFAR-10."""
    return _images(path, "labels")


def cifar10_names(path: str) -> Arrays:
    """Names of the classes of CIFAR-10."""
    return _names(path, "label_names")


def cifar100_images(path: str) -> Arrays:
    """Pixels [n, 3072] and fine labels [n] of a file of CIFAR-100."""
    return _images(path, "fine_labels")


def cifar100_names(path: str) -> Arrays:
    """Names of the fine classes of CIFAR-100."""
    return _names(path, "fine_label_names")


HDF5_BYTES = 1 << 31
"""Of all arrays of an HDF5 file together."""

HDF5_SMALL = 1 << 26
"""Bytes of arrays that are read whatever the size of the file; other files hold no more than deflate makes of them."""

HDF5_RATIO = 1032
"""Bytes that deflate makes of one, at most."""

HDF5_DEPTH = 6
"""Groups within groups."""

HDF5_FILTERS = {1, 2, 3, 32000}
"""Deflate, shuffle, checksums, LZF; others are libraries that HDF5 would look for."""


def hdf5(path: str) -> Arrays:
    """All arrays of numbers and texts in an HDF5 file; those of texts as JSON.

    The first array is JSON in UTF-8: path -> text, list of texts (of lists), or null: then the next array is meant.
    """
    import h5py

    with h5py.File(path, "r") as file:
        datasets = dict(_datasets(file, {file.id}, 0))
        declared = sum(_declared(name, dataset) for name, dataset in datasets.items())
        most = min(HDF5_BYTES, max(HDF5_SMALL, HDF5_RATIO * os.stat(path).st_size))
        if declared > most:
            raise ValueError(f"it declares {declared:,} bytes of arrays, and at most {most:,} are read of such a file")
        contents = {name: _content(name, dataset) for name, dataset in datasets.items() if dataset.shape is not None}
    arrays = [content for content in contents.values() if isinstance(content, np.ndarray)]
    texts = {name: None if isinstance(content, np.ndarray) else content for name, content in contents.items()}
    return [np.frombuffer(json.dumps(texts).encode(), np.uint8), *arrays]


def _datasets(group: Any, passed: set[Any], depth: int) -> Iterator[tuple[str, Any]]:
    """The datasets below a group, each by its path; `passed` are the groups that were visited before."""
    import h5py

    for key in group:
        name = f"{group.name.rstrip('/')}/{key}"
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name!r} is a link to elsewhere ({type(link).__name__}), which is not followed")
        member = group[key]
        if isinstance(member, h5py.Dataset):
            yield name, member
        elif not isinstance(member, h5py.Group) or member.id in passed or depth == HDF5_DEPTH:
            raise ValueError(f"{name!r} is no group of its own, or one of more than {HDF5_DEPTH} within each other")
        else:
            passed.add(member.id)
            yield from _datasets(member, passed, depth + 1)


def _declared(name: str, dataset: Any) -> int:
    """Bytes that a dataset declares, or one of its chunks if that is more.

    Raises:
        ValueError: its content is elsewhere, or no numbers and texts.
    """
    settings = dataset.id.get_create_plist()
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"the content of {name!r} is in another file, which is not opened")
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    if not filters <= HDF5_FILTERS:
        raise ValueError(f"{name!r} is compressed by a filter that is not used here ({max(filters)})")
    if dataset.dtype.kind not in "biuf" and not _is_text(dataset):
        raise ValueError(f"{name!r} holds {dataset.dtype} instead of numbers or text")
    return dataset.dtype.itemsize * max(prod(dataset.shape or ()), prod(dataset.chunks or ()))


def _is_text(dataset: Any) -> bool:
    import h5py

    return h5py.check_string_dtype(dataset.dtype) is not None


def _content(name: str, dataset: Any) -> Any:
    """Numbers as an array, of a kind that every machine has; text as such, in lists."""
    if not _is_text(dataset):
        return np.asarray(dataset[()])
    texts = dataset.asstr()[()]
    return texts.tolist() if isinstance(texts, np.ndarray) else texts


DECODERS: dict[str, Callable[[str], Arrays]] = {
    decode.__name__: decode
    for decode in (aedat4, dat2mat, synsets, cifar10_images, cifar10_names, cifar100_images, cifar100_names, hdf5)
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays, containers, numbers and text: a data file has no business running code."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # its name before NumPy 2
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is no plain data")
        return super().find_class(module, name)


def _images(path: str, labels_key: str) -> Arrays:
    content = _unpickled(path)
    pixels, labels = np.asarray(content.get("data")), np.asarray(content.get(labels_key))
    if pixels.dtype != np.uint8 or labels.ndim != 1 or pixels.shape != (len(labels), 3072) or not len(labels):
        raise ValueError(f"expected data [n, 3072] of bytes and n {labels_key}")
    return [pixels, labels.astype(np.int64, casting="same_kind")]


def _names(path: str, names_key: str) -> Arrays:
    return [np.array([str(name) for name in _unpickled(path)[names_key]])]


def _unpickled(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = _ArraysOnly(file, encoding="latin1").load()
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} instead of a dictionary")
    return content


def _limit(file_bytes: int, most_s: int) -> None:
    """From now on this process is ended by the system, or gets no memory, where a decoder asks for too much."""
    if sys.platform != "linux":
        return
    seconds = int(sum(os.times()[:2])) + most_s + (file_bytes >> 20)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, held + LIMIT_BYTES + BYTES_PER_BYTE * file_bytes),
    ):
        most = resource.getrlimit(what)[1]
        resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _answer(request: bytes, answers: BinaryIO) -> None:
    """Write a line about the arrays, or what is wrong with the file, and the arrays' bytes."""
    name, path = json.loads(request)
    arrays: Arrays = []
    problem = None
    try:
        _limit(os.stat(path).st_size, SHORTER_S.get(name, LIMIT_S))
        arrays = [np.asarray(array, order="C") for array in DECODERS[name](path)]
        if any(array.dtype.kind not in "biufU" for array in arrays):
            raise ValueError("its arrays hold other things than numbers and text")
    except BaseException as error:  # a panic in Rust is no Exception
        arrays, problem = [], (str(error).splitlines() or [""])[0] or type(error).__name__
    described = [[array.dtype.str, array.shape] for array in arrays]
    answers.write(json.dumps({"problem": problem, "arrays": described}).encode() + b"\n")
    for array in arrays:
        answers.write(array.tobytes())
    answers.flush()


def main() -> None:
    """Answer requests ``[decoder, path]`` on the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for request in sys.stdin.buffer:
        _answer(request, answers)


if __name__ == "__main__":
    main()
