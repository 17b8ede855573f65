"""Event files of every format the sets come in -> one checked form (the only module of the product that imports tonic).

tonic 1.7 reads N-MNIST's format and AEDAT 4. Its readers of AEDAT 2.0 and 3.1 stop on their own header parser, and
skip neither special events nor invalid ones, so these two formats are read here, from their description
(https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html and .../aedat-3.1.html).
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tonic.io
from numpy.typing import NDArray

from datamodules.errors import DataCorrupt

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.int8)])
"""One event: column, row, time in microseconds, polarity (1 on, 0 off)."""

Events = NDArray[np.void]

NMNIST_EVENT_BYTES = 5
"""N-MNIST stores an event in 40 bits: x, y, polarity and a 23-bit time stamp."""

AEDAT3_PACKET_HEADER = np.dtype(
    [
        ("type", "<u2"),
        ("source", "<u2"),
        ("event_bytes", "<u4"),
        ("time_offset", "<u4"),
        ("time_overflow", "<u4"),
        ("capacity", "<u4"),
        ("number", "<u4"),
        ("valid", "<u4"),
    ]
)
AEDAT3_POLARITY_EVENT = 1


def read_nmnist(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a recording in N-MNIST's format. Arguments, result and errors: as `read_aedat2`."""
    content = _content(path)
    if len(content) % NMNIST_EVENT_BYTES:
        raise DataCorrupt(f"{path}: cut inside an event ({len(content)} bytes are no multiple of {NMNIST_EVENT_BYTES})")
    events = tonic.io.read_mnist_file(io.BytesIO(content), dtype=EVENT, is_stream=True)
    return checked(events, sensor_size, path)


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
    """Read a recording in AEDAT 4 through tonic. Arguments, result and errors: as `read_aedat2`."""
    try:
        decoded = tonic.io.read_aedat4(str(path))
    except (RuntimeError, ValueError) as error:  # the decoder's, and numpy's for a file without packets
        raise DataCorrupt(f"{path}: cannot be read as AEDAT 4: {error}") from error
    return _from_fields(decoded, dict(zip("txyp", decoded.dtype.names, strict=True)), sensor_size, path)


def read_arrays(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a NumPy file: arrays named t, x, y, p in an ``.npz``, or one record array with these fields.

    Arguments, result and errors: as `read_aedat2`; DataCorrupt also for an array without these names.
    """
    arrays = _load_numpy(path)
    names = arrays.dtype.names if isinstance(arrays, np.ndarray) else tuple(arrays)
    if not {"t", "x", "y", "p"} <= set(names or ()):
        raise DataCorrupt(f"{path}: expected arrays or fields t, x, y and p, found {names or 'none'}")
    return _from_fields(arrays, {name: name for name in "txyp"}, sensor_size, path)


def read_gesture_cut(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read one gesture as tonic distributes it: rows of x, y, polarity and milliseconds.

    Arguments, result and errors: as `read_aedat2`.
    """
    rows = _load_numpy(path)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 4:
        raise DataCorrupt(f"{path}: expected an array of rows x, y, polarity and time")
    columns = dict(zip("xypt", rows.astype(np.int64).T, strict=True))
    columns["t"] = columns["t"] * 1000
    return _from_fields(columns, {name: name for name in "txyp"}, sensor_size, path)


def read_mat(path: Path, sensor_size: tuple[int, int]) -> Events:
    """Read a MATLAB file as ``dat2mat.m`` writes them: matrix ``out1``, columns 1, 4, 5, 6 are t, x, y, p.

    Arguments, result and errors: as `read_aedat2`.
    """
    import scipy.io  # heavy, and for this format only

    try:
        matrix = scipy.io.loadmat(path).get("out1")
    except (OSError, ValueError, IndexError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise DataCorrupt(f"{path}: cannot be read as a MATLAB file (up to version 7.2): {error}") from error
    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != 6:
        raise DataCorrupt(f"{path}: expected a matrix out1 of 6 columns, as dat2mat.m writes it")
    columns = dict(zip("txyp", matrix[:, [0, 3, 4, 5]].astype(np.int64).T, strict=True))
    return _from_fields(columns, {name: name for name in "txyp"}, sensor_size, path)


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
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataCorrupt(f"{path}: cannot be read: {error.strerror}") from error


def _load_numpy(path: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    try:
        loaded = np.load(path)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataCorrupt(f"{path}: cannot be read as a NumPy file: {error}") from error


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
        body = position + AEDAT3_PACKET_HEADER.itemsize
        if body > len(content):
            raise DataCorrupt(f"{path}: cut inside the packet header at byte {position}")
        header = np.frombuffer(content, AEDAT3_PACKET_HEADER, count=1, offset=position)[0]
        end = body + int(header["capacity"]) * int(header["event_bytes"])
        if end > len(content) or header["number"] > header["capacity"]:
            raise DataCorrupt(f"{path}: cut inside, or damaged in, the packet at byte {position}")
        if header["type"] == AEDAT3_POLARITY_EVENT:
            events = np.frombuffer(content, "<u4", count=2 * int(header["number"]), offset=body)
            yield events.reshape(-1, 2).astype(np.int64), int(header["time_overflow"])
        position = end


def _from_fields(arrays: Any, names: dict[str, str], sensor_size: tuple[int, int], path: Path) -> Events:
    """Events from a mapping or record array; coordinates are checked before they are narrowed."""
    columns = {name: np.ravel(arrays[names[name]]).astype(np.int64) for name in "txyp"}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise DataCorrupt(f"{path}: t, x, y and p have different lengths: {sorted(lengths)}")
    events = np.empty(lengths.pop(), dtype=EVENT)
    limit = np.iinfo(np.int16)
    for name in "xy":
        events[name] = columns[name].clip(limit.min, limit.max)
    events["t"], events["p"] = columns["t"], columns["p"] > 0
    return checked(events, sensor_size, path)
