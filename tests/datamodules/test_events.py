"""Every format: written by the tests and read back; real files beside independent readings; faults."""

import io
import os
import struct
import time
import zipfile

import numpy as np
import pytest
import scipy.io
import tonic.io
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import DataCorrupt
from datamodules.events import (
    EVENT,
    read_aedat2,
    read_aedat3,
    read_aedat4,
    read_arrays,
    read_gesture_cut,
    read_mat,
    read_nmnist,
)
from tests.datamodules.formats import (
    assert_same,
    concatenated,
    polarity_packet,
    random_events,
    special_packet,
    write_aedat2,
    write_aedat3,
    write_aedat4,
    write_nmnist,
)
from tests.fuzz.mutations import bounded

SENSOR = (128, 128)


def test_nmnist_is_read_back(tmp_path):
    events = random_events(300, size=34)
    write_nmnist(tmp_path / "a.bin", events)
    assert_same(read_nmnist(tmp_path / "a.bin", (34, 34)), events)


def test_aedat2_is_read_upright_and_without_special_events(tmp_path):
    events = random_events(300)
    write_aedat2(tmp_path / "a.aedat", events, special=[(1 << 15, 5), (1 << 31, 6)])
    assert_same(read_aedat2(tmp_path / "a.aedat", SENSOR), events)


@pytest.mark.parametrize("start", [2**31 - 500_000, 2**32 - 500_000])
def test_aedat2_time_goes_on_beyond_the_range_of_its_stamps(tmp_path, start):
    events = random_events(300, start_us=start)
    write_aedat2(tmp_path / "a.aedat", events)
    assert_same(read_aedat2(tmp_path / "a.aedat", SENSOR), events)


def test_events_out_of_order_are_put_in_order(tmp_path):
    events = random_events(300)
    order = np.random.default_rng(1).permutation(300)
    write_aedat2(tmp_path / "a.aedat", {name: column[order] for name, column in events.items()})
    read = read_aedat2(tmp_path / "a.aedat", SENSOR)
    assert sorted(read.tolist()) == sorted(zip(*(events[name].tolist() for name in "xytp"), strict=True))
    assert (np.diff(read["t"]) >= 0).all()


def test_aedat3_passes_over_other_packets_and_invalid_events(tmp_path):
    first, second = random_events(40), random_events(30, seed=1, start_us=2_000_000)
    packets = [
        special_packet(),
        polarity_packet(first, invalid={3, 39}),
        special_packet(3),
        polarity_packet(second),
    ]
    write_aedat3(tmp_path / "a.aedat", *packets)
    kept = {name: np.delete(column, [3, 39]) for name, column in first.items()}
    assert_same(read_aedat3(tmp_path / "a.aedat", SENSOR), concatenated(kept, second))


def test_aedat3_time_goes_on_beyond_the_range_of_its_stamps(tmp_path):
    first, second = random_events(40), random_events(40, seed=1)
    write_aedat3(tmp_path / "a.aedat", polarity_packet(first), polarity_packet(second, overflow=1))
    second = second | {"t": second["t"] + 2**31}
    assert_same(read_aedat3(tmp_path / "a.aedat", SENSOR), concatenated(first, second))


def test_aedat4_is_read_back(tmp_path):
    first, second = random_events(40), random_events(30, seed=1, start_us=2_000_000)
    write_aedat4(tmp_path / "a.aedat4", first, second)
    assert_same(read_aedat4(tmp_path / "a.aedat4", SENSOR), concatenated(first, second))


def test_arrays_of_spikingjelly_and_record_arrays(tmp_path):
    events = random_events(100)
    np.savez(tmp_path / "a.npz", **events)
    records = np.empty(100, dtype=[("t", "u8"), ("x", "u2"), ("y", "u2"), ("p", "?")])
    for name in "txyp":
        records[name] = events[name]
    np.save(tmp_path / "a.npy", records)
    assert_same(read_arrays(tmp_path / "a.npz", SENSOR), events)
    assert_same(read_arrays(tmp_path / "a.npy", SENSOR), events)


def test_matlab_columns_of_dat2mat(tmp_path):
    events = random_events(100)
    polarity = 2 * events["p"] - 1
    ones = np.ones(100)
    matrix = np.stack([events["t"], ones, ones, events["x"], events["y"], polarity], axis=1)
    scipy.io.savemat(tmp_path / "a.mat", {"out1": matrix})
    assert_same(read_mat(tmp_path / "a.mat", SENSOR), events)


def test_gesture_cut_is_in_milliseconds(tmp_path):
    events = random_events(100, span_us=1000)
    np.save(tmp_path / "3.npy", np.stack([events[name] for name in "xypt"], axis=1).astype(np.int16))
    assert_same(read_gesture_cut(tmp_path / "3.npy", SENSOR), events | {"t": events["t"] * 1000})


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 299 * 5))
def test_a_cut_nmnist_file_is_either_whole_events_or_named(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "a.bin"
    events = random_events(300, size=34)
    write_nmnist(path, events)
    path.write_bytes(path.read_bytes()[:-cut])
    if cut % 5:
        with pytest.raises(DataCorrupt, match=f"{path}.*cut"):
            read_nmnist(path, (34, 34))
    else:
        assert_same(read_nmnist(path, (34, 34)), {name: column[: 300 - cut // 5] for name, column in events.items()})


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 70 * 8 + 27))
def test_a_cut_aedat3_file_is_named_wherever_it_ends(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "a.aedat"
    write_aedat3(path, polarity_packet(random_events(10)), polarity_packet(random_events(70)))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataCorrupt, match=str(path)):
        read_aedat3(path, SENSOR)


def test_a_cut_aedat2_file_is_named(tmp_path):
    path = tmp_path / "a.aedat"
    write_aedat2(path, random_events(10))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataCorrupt, match=f"{path}.*cut"):
        read_aedat2(path, SENSOR)


READERS = [read_nmnist, read_aedat2, read_aedat3, read_aedat4, read_arrays, read_gesture_cut, read_mat]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"abcd", b"#!AER-DAT9.0\r\n" + bytes(26)], ids=["empty", "short", "other"])
def test_what_is_no_recording_is_named(tmp_path, read, content):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=str(path)):
        read(path, (34, 34))


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    with pytest.raises(DataCorrupt, match=str(tmp_path / "absent")):
        read(tmp_path / "absent", SENSOR)


def test_recordings_without_events_are_named(tmp_path):
    write_aedat2(tmp_path / "a.aedat", random_events(0), special=[(1 << 15, 1)])
    write_aedat3(tmp_path / "b.aedat", special_packet())
    for read, name in ((read_aedat2, "a.aedat"), (read_aedat3, "b.aedat")):
        with pytest.raises(DataCorrupt, match=f"{tmp_path / name}: no events"):
            read(tmp_path / name, SENSOR)


def test_events_off_the_sensor_are_named(tmp_path):
    events = random_events(50, size=30)
    events["x"][7] = 34
    write_nmnist(tmp_path / "a.bin", events)
    with pytest.raises(DataCorrupt, match=r"a\.bin: 1 of 50 events.*number 7\) at x=34"):
        read_nmnist(tmp_path / "a.bin", (34, 34))
    far = random_events(50) | {"y": np.full(50, 70_000)}
    np.savez(tmp_path / "a.npz", **far)
    with pytest.raises(DataCorrupt, match=r"a\.npz: 50 of 50 events"):
        read_arrays(tmp_path / "a.npz", SENSOR)


def test_real_nmnist_files_agree_with_tonic(real_nmnist):
    for path in sorted(real_nmnist.glob("T*/*/*.bin"))[::20]:
        ours, theirs = read_nmnist(path, (34, 34)), tonic.io.read_mnist_file(str(path), dtype=EVENT)
        np.testing.assert_array_equal(ours, theirs)
        assert 1000 < len(ours) < 8000


def test_real_aedat2_files_agree_with_an_independent_reading(real_dvs128):
    paths = sorted(real_dvs128.glob("aedat2/*/*.aedat"))
    assert len(paths) == 6
    for path in paths:
        version, start, _ = tonic.io.read_aedat_header_from_file(str(path))
        raw = tonic.io.get_aer_events_from_file(str(path), version, start)
        assert version == 2.0
        pairs = struct.iter_unpack(">II", path.read_bytes()[start:])
        sums = {"x": 0, "y": 0, "p": 0}
        for address, _ in pairs:
            sums["x"] += 127 - (address // 256) % 128
            sums["y"] += 127 - (address // 2) % 128
            sums["p"] += address % 2 == 0
        events = read_aedat2(path, SENSOR)
        assert len(events) == len(raw)
        assert {name: events[name].sum(dtype=np.int64) for name in sums} == sums
        np.testing.assert_array_equal(events["t"], raw["timeStamp"])
    assert read_aedat2(paths[-1], SENSOR)["t"][0] > 2**31


def test_real_aedat4_files_agree_with_tonic(real_dvs128):
    for path in sorted(real_dvs128.glob("aedat4/redpob/*/*.aedat4")):
        ours, theirs = read_aedat4(path, SENSOR), tonic.io.read_aedat4(str(path))
        for mine, name in zip("txyp", theirs.dtype.names, strict=True):
            np.testing.assert_array_equal(ours[mine], theirs[name])
    with pytest.raises(DataCorrupt, match=r"sample\.aedat4.*outside the 128x128 sensor"):
        read_aedat4(real_dvs128 / "aedat4/tonic/sample.aedat4", SENSOR)


def test_a_cut_aedat4_file_is_named(real_dvs128, tmp_path):
    whole = next(iter(sorted(real_dvs128.glob("aedat4/redpob/*/*.aedat4")))).read_bytes()
    path = tmp_path / "cut.aedat4"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataCorrupt, match=str(path)):
        read_aedat4(path, SENSOR)


def test_nmnist_overflows_move_the_time_on_as_tonic_reads_them(tmp_path):
    content = np.random.default_rng(0).integers(0, 34, (200, 5), dtype=np.uint8)
    content[::7, 1] = 240
    (tmp_path / "a.bin").write_bytes(content.tobytes())
    ours, theirs = read_nmnist(tmp_path / "a.bin", (34, 34)), tonic.io.read_mnist_file(str(tmp_path / "a.bin"), EVENT)
    np.testing.assert_array_equal(ours, theirs[np.argsort(theirs["t"], kind="stable")])


def many_headers(event_bytes, capacity=0, count=1_000_000):
    return struct.pack("<HHIIIIII", 1, 0, event_bytes, 4, 0, capacity, 0, 0) * count


@pytest.mark.parametrize(
    "packets",
    [
        *(many_headers(size, 40, 1) + bytes(40 * size) for size in (0, 1, 4)),
        *(struct.pack("<HHIIIIII", 1, 0, size, 4, 0, 40, 40, 40) + bytes(40 * size) for size in (0, 1, 4)),
        struct.pack("<HHiiiiii", 1, 0, 8, 4, -1, 1, 1, 1) + bytes(8),
        struct.pack("<HHiiiiii", 2, 0, -8, 4, 0, 4, 0, 0) + bytes(8),
        many_headers(8),
    ],
)
def test_aedat3_packets_that_lie_are_named_at_once(tmp_path, packets):
    write_aedat3(tmp_path / "a.aedat", packets)
    started = time.process_time()
    with pytest.raises(DataCorrupt, match=r"a\.aedat: (damaged in the packet|no events)"):
        read_aedat3(tmp_path / "a.aedat", SENSOR)
    assert time.process_time() - started < 4


def npy(shape, dtype="<i8", content=bytes(64)):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def archive(content, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as members:
        for name in "txyp":
            members.writestr(f"{name}.npy", content)
    return file.getvalue()


def encrypted():
    content = bytearray(archive(npy((8,)), zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + flags] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        npy((1 << 40,)),
        npy((1 << 70, 0)),
        npy((1 << 40,), "|V0"),
        npy((8,), "|O"),
        npy((8,), [("t", "<M8[us]"), ("x", "i1"), ("y", "i1"), ("p", "i1")], bytes(88)),
        npy((8,), [(name, "<f8") for name in "txyp"], struct.pack("<32d", *[float("nan")] * 32)),
        npy((8,), [(name, "<i8") for name in "txyp"], struct.pack("<32q", *[1 << 62] * 32)),
        encrypted(),
        archive(bytes(1 << 29)),
        archive(npy((8,))).replace(b"\x08\x00", b"\x63\x00"),
    ],
    ids=["huge", "huge and empty", "no bytes", "objects", "dates", "nan", "late", "encrypted", "bomb", "compression"],
)
def test_numpy_files_that_lie_are_named_and_reserve_nothing(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with bounded(), pytest.raises(DataCorrupt, match=r"a\.npz: ") as refused:
        read_arrays(tmp_path / "a.npz", SENSOR)
    assert not isinstance(refused.value.__cause__, MemoryError)


def test_a_folder_or_pipe_in_place_of_a_recording_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in READERS:
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(DataCorrupt, match=f"{path}: cannot be read: it is no file"):
                read(path, SENSOR)
