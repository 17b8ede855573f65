"""Files written byte by byte from the descriptions of their formats, with nothing of the code under test."""

import struct

import numpy as np


def random_events(count, *, size=128, span_us=1_000_000, seed=0, start_us=0):
    """Columns x, y, t, p of `count` events in order of time."""
    random = np.random.default_rng(seed)
    return {
        "x": random.integers(0, size, count),
        "y": random.integers(0, size, count),
        "t": start_us + np.sort(random.integers(0, span_us, count)),
        "p": random.integers(0, 2, count),
    }


def rows(events):
    return list(zip(*(events[name].tolist() for name in "xytp"), strict=True))


def write_nmnist(path, events):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, t, p in rows(events)))


def write_aedat2(path, events, special=()):
    """AEDAT 2.0 of a DVS128 that lies on its side: big-endian (address, time stamp) pairs after '#' lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# 32-bit address, then time stamp\r\n"
    pairs = [((127 - x) << 8 | (127 - y) << 1 | (1 - p), t % 2**32) for x, y, t, p in rows(events)]
    path.write_bytes(header + b"".join(struct.pack(">II", *pair) for pair in [*pairs, *special]))


def polarity_packet(events, *, overflow=0, invalid=()):
    """One AEDAT 3.1 packet of polarity events; those at positions `invalid` have their valid bit cleared."""
    body = b"".join(
        struct.pack("<II", x << 17 | y << 2 | p << 1 | (position not in invalid), t)
        for position, (x, y, t, p) in enumerate(rows(events))
    )
    count = len(events["t"])
    return struct.pack("<HHIIIIII", 1, 0, 8, 4, overflow, count, count, count - len(invalid)) + body


def special_packet(count=2):
    """One packet of special events, of a size of their own, as recordings have between the others."""
    return struct.pack("<HHIIIIII", 0, 0, 12, 4, 0, count, count, count) + bytes(12 * count)


def write_aedat3(path, *packets):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = (
        b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#Start-Time: 2016-10-01 10:00:00\r\n#!END-HEADER\r\n"
    )
    path.write_bytes(header + b"".join(packets))


def concatenated(*parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in "xytp"}


def assert_same(events, expected):
    """Recorded events are the expected columns, in order."""
    for name in "xytp":
        np.testing.assert_array_equal(events[name], expected[name], err_msg=name)
