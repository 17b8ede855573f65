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


AEDAT4_INFO = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">
<node name="0" path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr>
<attr key="typeIdentifier" type="string">EVTS</attr><node name="info" path="/mainloop/Recorder/outInfo/0/info/">
<attr key="sizeX" type="int">128</attr><attr key="sizeY" type="int">128</attr>
<attr key="source" type="string">DVS128</attr></node></node></node></dv>"""


def flatbuffer(identifier, fields, rest):
    """One table whose fields (offset in it) are at its end, and what the last of them points to."""
    vtable = struct.pack(f"<{2 + len(fields)}H", 4 + 2 * len(fields), 4 + len(rest), *fields).ljust(16, b"\0")
    return struct.pack("<I4s", 24, identifier) + vtable + struct.pack("<i", 16) + rest


def write_aedat4(path, *parts):
    """AEDAT 4 without compression: a header, then packets of events, each a flatbuffer with its size before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = AEDAT4_INFO.encode()
    header = flatbuffer(b"IOHE", [4, 8, 16], struct.pack("<iqII", 0, -1, 4, len(info)) + info + b"\0")
    packets = b""
    for events in parts:
        body = b"".join(struct.pack("<qhh?3x", t, x, y, bool(p)) for x, y, t, p in rows(events))
        packet = flatbuffer(b"EVTS", [4], struct.pack("<II", 4, len(events["t"])) + body)
        packets += struct.pack("<iiI", 0, 4 + len(packet), len(packet)) + packet
    path.write_bytes(b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + packets)


def concatenated(*parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in "xytp"}


def assert_same(events, expected):
    """Recorded events are the expected columns, in order."""
    for name in "xytp":
        np.testing.assert_array_equal(events[name], expected[name], err_msg=name)
