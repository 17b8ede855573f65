"""Event files of every format the sets come in -> one checked form.

tonic 1.7's readers of AEDAT 2.0 and 3.1 stop on their own header parser, and skip neither special events nor invalid
ones; its reader of N-MNIST's format takes quadratic time for a file of overflow events. These formats are read here,
from their description (https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html and
.../aedat-3.1.html), and the tests hold the readings against tonic's. Whatever the bytes of a file, a reader gives
events or DataCorrupt, in time and memory that follow the file's size.
"""

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataCorrupt, decoding
from datamodules.isolation import decode

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.int8)])
"""One event: column, row, time in microseconds, polarity (1 on, 0 off)."""

Events = NDArray[np.void]

NMNIST_EVENT_BYTES = 5
"""N-MNIST stores an event in 40 bits: x, y, polarity and a 23-bit time stamp."""

NMNIST_OVERFLOW_ROW = 240
"""An event in this row is none: from there on, time stamps are 2^13 us later."""

LATEST_US = 1 << 52
"""Times beyond 142 years are damage; below, sums and differences of times are exact."""

AEDAT3_PACKET_HEADER = struct.Struct("<HHiiiiii")
"""Type and source of the events, bytes of one, where its time is, overflows of time, room, events, valid events."""

AEDAT3_POLARITY_EVENT = 1
AEDAT3_POLARITY_BYTES = 8

LARGEST_PACKED_BYTES = 1 << 28
"""Longest array that is unpacked from an archive: 33 million values of 8 bytes, in one recording."""


def read_nmnist(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a recording in N-MNIST's format. Arguments, result and errors: as `read_aedat2`."""
    return decode_nmnist(_content(path), sensor_size, path)


def decode_nmnist(content: bytes, sensor_size: tuple[int, int], source: Path | str) -> Events:
    """The events of bytes in N-MNIST's format; ``source`` says where they are from. The rest: as `read_aedat2`."""
    if len(content) % NMNIST_EVENT_BYTES:
        raise DataCorrupt(
            f"{source}: cut inside an event ({len(content)} bytes are no multiple of {NMNIST_EVENT_BYTES})"
        )
    x, y, high, middle, low = np.frombuffer(content, np.uint8).reshape(-1, NMNIST_EVENT_BYTES).T.astype(np.int64)
    is_overflow = y == NMNIST_OVERFLOW_ROW
    time = ((high & 0x7F) << 16 | middle << 8 | low) + (np.cumsum(is_overflow) << 13)
    events = np.empty(len(content) // NMNIST_EVENT_BYTES, dtype=EVENT)
    events["x"], events["y"], events["t"], events["p"] = x, y, time, high >> 7
    return checked(events[~is_overflow], sensor_size, source)


def encode_nmnist(events: Events) -> NDArray[np.uint8]:
    """N-MNIST's five bytes for each event (x, y, polarity and 23 bits of time, high byte first), [n, 5]."""
    time = events["t"]
    polarity_and_time = (events["p"].astype(np.int64) << 7) | (time >> 16)
    columns = (events["x"], events["y"], polarity_and_time, time >> 8 & 255, time & 255)
    return np.stack(columns, axis=1).astype(np.uint8)


def read_aedat2(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a DVS128 recording in AEDAT 2.0, upright as SpikingJelly turns CIFAR10-DVS.

    An event is a big-endian address and time stamp, 32 bits each. Address bits 1 to 7 and 8 to 14 count the
    pixels of a camera lying on its side, bit 0 is 0 for on; addresses with a higher bit are no pixel events. Time
    stamps are unsigned and may pass 2^32 once or more.

    Args:
        path: the file.
        sensor_size: (width, height) in pixels.

    Returns:
        Events in order of time, shape [n], n > 0.

    Raises:
        DataCorrupt: the file cannot be read, is cut inside an event, is empty, or has events off the sensor.
    """
    content = _content(path)
    if not content.startswith(b"#!AER-DAT2"):
        raise DataCorrupt(f"{path}: no AEDAT 2.0 file, it does not begin with '#!AER-DAT2'")
    raw = content[_header_length(content) :]
    if len(raw) % 8:
        raise DataCorrupt(f"{path}: cut inside an event ({len(raw)} bytes of events are no multiple of 8)")
    address, time = np.frombuffer(raw, dtype=">u4").reshape(-1, 2).astype(np.int64).T
    is_pixel = address < 1 << 15
    address, time = address[is_pixel], _unwrapped(time)[is_pixel]
    events = np.empty(len(address), dtype=EVENT)
    events["x"], events["y"] = 127 - (address >> 8 & 127), 127 - (address >> 1 & 127)
    events["t"], events["p"] = time, 1 - (address & 1)
    return checked(events, sensor_size, path)


def read_aedat3(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read the valid polarity events of a recording in AEDAT 3.1 (IBM's DVS128 Gesture).

    Packets of other events are passed over. Arguments, result and errors: as `read_aedat2`.
    """
    content = _content(path)
    if not content.startswith(b"#!AER-DAT3"):
        raise DataCorrupt(f"{path}: no AEDAT 3.1 file, it does not begin with '#!AER-DAT3'")
    packets = list(_polarity_packets(content, path))
    data = np.concatenate([packet[:, 0] for packet, _ in packets] or [np.empty(0, dtype=np.int64)])
    time = np.concatenate([packet[:, 1] + (overflow << 31) for packet, overflow in packets] or [data])
    is_valid = (data & 1).astype(bool)
    data, time = data[is_valid], time[is_valid]
    events = np.empty(len(data), dtype=EVENT)
    events["x"], events["y"] = data >> 17 & 0x7FFF, data >> 2 & 0x7FFF
    events["t"], events["p"] = time, data >> 1 & 1
    return checked(events, sensor_size, path)


def read_aedat4(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a recording in AEDAT 4, with the library aedat. Arguments, result and errors: as `read_aedat2`."""
    return _from_columns(dict(zip("txyp", decode("aedat4", path, "AEDAT 4"), strict=True)), sensor_size, path)


def read_arrays(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a NumPy file: arrays named t, x, y, p in an ``.npz``, or one record array with these fields.

    Arguments, result and errors: as `read_aedat2`; DataCorrupt also for an array without these names.
    """
    arrays = _record_or_archive(path)
    names = arrays.dtype.names if isinstance(arrays, np.ndarray) else tuple(arrays)
    if not {"t", "x", "y", "p"} <= set(names or ()):
        raise DataCorrupt(f"{path}: expected arrays or fields t, x, y and p, found {names or 'none'}")
    return _from_columns({name: arrays[name] for name in "txyp"}, sensor_size, path)


def read_gesture_cut(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read one gesture as tonic distributes it: rows of x, y, polarity and milliseconds.

    Arguments, result and errors: as `read_aedat2`.
    """
    rows = _array(_content(path), path)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise DataCorrupt(f"{path}: expected an array of rows x, y, polarity and time")
    return _from_columns(dict(zip("xypt", rows.T, strict=True)), sensor_size, path, microseconds=1000)


def read_mat(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a MATLAB file as ``dat2mat.m`` writes them: matrix ``out1``, columns 1, 4, 5, 6 are t, x, y, p.

    Arguments, result and errors: as `read_aedat2`.
    """
    columns = decode("dat2mat", path, "a MATLAB file (up to version 7.2)")
    return _from_columns(dict(zip("txyp", columns, strict=True)), sensor_size, path)


def checked(events: Events, sensor_size: tuple[int, int], source: Path | str) -> Events:
    """Return the events in order of time.

    Raises:
        DataCorrupt: there are none, or one lies outside the sensor; a run never trains on silence.
    """
    if len(events) == 0:
        raise DataCorrupt(f"{source}: no events; get the file again, or remove it from the set")
    width, height = sensor_size
    x, y, t = events["x"], events["y"], events["t"]
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        first = int(outside.argmax())
        raise DataCorrupt(
            f"{source}: {outside.sum()} of {len(events)} events lie outside the {width}x{height} sensor,"
            f" the first (number {first}) at x={x[first]}, y={y[first]}"
        )
    return events if (np.diff(t) >= 0).all() else events[np.argsort(t, kind="stable")]


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise DataCorrupt(f"{path}: cannot be read: it is no file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataCorrupt(f"{path}: cannot be read: {error.strerror}") from error


def _record_or_archive(path: Path) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    """The array of an ``.npy``, or the arrays t, x, y and p of an ``.npz``, as far as they are there."""
    content = _content(path)
    if not content.startswith(b"PK"):
        return _array(content, path)
    with decoding(path, "a NumPy archive"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in "txyp" if f"{name}.npy" in archive.namelist()]
        return {name: _array(_unpacked(archive, f"{name}.npy"), path) for name in names}


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of an archive; it is unpacked to the length that is declared, and no recording's is above the limit."""
    size = archive.getinfo(name).file_size
    if size > LARGEST_PACKED_BYTES:
        raise ValueError(f"{name} unpacks to {size} bytes, and {LARGEST_PACKED_BYTES} are the limit")
    return archive.read(name)


def _array(content: bytes, path: Path) -> NDArray[Any]:
    """The array of an ``.npy``, in the file's own bytes: a shape that lies reserves nothing."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with decoding(path, "a NumPy file"):
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"its format is {version}; expected one of {', '.join(map(str, readers))}")
        shape, is_fortran, dtype = readers[version](file)
        array = np.frombuffer(content, dtype, count=prod(shape), offset=file.tell())
        return array.reshape(shape, order="F" if is_fortran else "C")


def _header_length(content: bytes) -> int:
    """Length of the leading lines that begin with '#'."""
    position = 0
    while content[position : position + 1] == b"#":
        end_of_line = content.find(b"\n", position)
        position = len(content) if end_of_line < 0 else end_of_line + 1
    return position


def _unwrapped(time: NDArray[np.int64]) -> NDArray[np.int64]:
    """32-bit time stamps made to go on where they fell back by more than half their range."""
    wraps = np.diff(time, prepend=time[:1]) < -(1 << 31)
    return time + (np.cumsum(wraps) << 32)


def _polarity_packets(content: bytes, path: Path) -> Iterator[tuple[NDArray[np.int64], int]]:
    """(data and time stamp of each event, [n, 2]; overflows of the time stamp) of each polarity packet."""
    position = _header_length(content)
    while position < len(content):
        body = position + AEDAT3_PACKET_HEADER.size
        if body > len(content):
            raise DataCorrupt(f"{path}: cut inside the packet header at byte {position}")
        header = AEDAT3_PACKET_HEADER.unpack_from(content, position)
        kind, _, event_bytes, _, overflow, capacity, number, _ = header
        end = body + capacity * event_bytes
        is_polarity = kind == AEDAT3_POLARITY_EVENT
        if min(header) < 0 or number > capacity or (is_polarity and event_bytes != AEDAT3_POLARITY_BYTES):
            raise DataCorrupt(f"{path}: damaged in the packet header at byte {position}")
        if end > len(content):
            raise DataCorrupt(f"{path}: cut inside, or damaged in, the packet at byte {position}")
        if is_polarity and number:
            events = np.frombuffer(content, "<u4", count=2 * number, offset=body)
            yield events.reshape(-1, 2).astype(np.int64), overflow
        position = end


def _from_columns(
    columns: Mapping[str, NDArray[Any]], sensor_size: tuple[int, int], path: Path, microseconds: int = 1
) -> Events:
    """Events from columns t (in so many microseconds), x, y and p; all is checked before it is narrowed."""
    whole = {name: _whole(column, name, path) for name, column in columns.items()}
    lengths = {len(column) for column in whole.values()}
    if len(lengths) != 1:
        raise DataCorrupt(f"{path}: t, x, y and p have different lengths: {sorted(lengths)}")
    events = np.empty(lengths.pop(), dtype=EVENT)
    limit = np.iinfo(np.int16)
    for name in "xy":
        events[name] = whole[name].clip(limit.min, limit.max)
    events["t"], events["p"] = whole["t"] * microseconds, whole["p"] > 0
    return checked(events, sensor_size, path)


def _whole(column: NDArray[Any], name: str, path: Path) -> NDArray[np.int64]:
    """A column as whole numbers, shape [n]."""
    flat = np.ravel(column)
    if flat.dtype.kind not in "biuf":
        raise DataCorrupt(f"{path}: {name} holds {flat.dtype} in place of numbers")
    if flat.dtype.kind != "b" and not (np.abs(flat.astype(np.float64)) < LATEST_US).all():
        raise DataCorrupt(f"{path}: {name} holds numbers that are not finite, or beyond 2^52")
    return flat.astype(np.int64)
