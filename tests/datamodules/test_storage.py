"""Folders are whole or absent, whoever is killed or comes at the same time; fingerprints say what is in files."""

import errno
import multiprocessing
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import DataMissing, storage
from datamodules import fingerprint as fingerprint_module
from datamodules.errors import CacheUnwritable
from datamodules.fingerprint import fingerprint_files
from datamodules.storage import build_once, data_folder


def write_two(folder):
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")


def test_a_folder_is_built_once(tmp_path):
    calls = []
    for _ in range(2):
        build_once(tmp_path / "set", lambda folder: (calls.append(folder), write_two(folder)))
    assert len(calls) == 1
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["one", "two"]


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "one").write_text("1")
        raise OSError(errno.ENOSPC, "no space left on device")

    with pytest.raises(CacheUnwritable, match=rf"cannot write {tmp_path / 'set'}: no space.*set SNNBENCH_CACHE to"):
        build_once(tmp_path / "set", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    build_once(tmp_path / "set", write_two)
    assert (tmp_path / "set/two").read_text() == "2"


def _build_and_die(folder):
    def die(unfinished):
        (unfinished / "one").write_text("half")
        os._exit(9)

    build_once(folder, die)


def test_a_killed_build_leaves_nothing_that_looks_finished(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_build_and_die, args=(tmp_path / "set",))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert not (tmp_path / "set").exists()
    build_once(tmp_path / "set", write_two)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["one", "two"]


def _build_slowly(folder, log):
    def build(unfinished):
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        write_two(unfinished)

    assert (build_once(folder, build) / "two").read_text() == "2"


def test_two_builders_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    builders = [context.Process(target=_build_slowly, args=(tmp_path / "set", tmp_path / "log")) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(30)
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SNNBENCH_DATA", str(tmp_path))
    assert data_folder("nmnist") == tmp_path / "nmnist"
    monkeypatch.delenv("SNNBENCH_DATA")
    assert data_folder("nmnist").parts[-2:] == ("snnbench", "nmnist")


def write_set(root):
    root.mkdir()
    for name, content in (("a", b"first"), ("b", b"second"), ("c", b"third")):
        (root / name).write_bytes(content)
    return root


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(["a", "b", "c"]))
def test_a_fingerprint_depends_on_content_alone(tmp_path_factory, order):
    here, there = (write_set(tmp_path_factory.mktemp("set") / "root") for _ in range(2))
    assert fingerprint_files(here, order) == fingerprint_files(there, ["a", "b", "c"])


def test_a_fingerprint_changes_with_any_byte_and_name(tmp_path):
    root = write_set(tmp_path / "root")
    seen = {fingerprint_files(root, ["a", "b", "c"]), fingerprint_files(root, ["a", "b"])}
    (root / "b").write_bytes(b"Second")
    seen.add(fingerprint_files(root, ["a", "b", "c"]))
    (root / "b").rename(root / "d")
    seen.add(fingerprint_files(root, ["a", "c", "d"]))
    assert len(seen) == 4


def test_a_second_fingerprint_reads_no_content(tmp_path, monkeypatch):
    root = write_set(tmp_path / "root")
    first = fingerprint_files(root, ["a", "b", "c"])
    monkeypatch.setattr(fingerprint_module, "hash_files", lambda *_: pytest.fail("read the files again"))
    assert fingerprint_files(root, ["a", "b", "c"]) == first


def test_a_cache_in_a_place_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheUnwritable, match=r"cannot write .*file/cache/set: Not a directory; free space, or set"):
        build_once(tmp_path / "file/cache/set", write_two)


def test_missing_data_are_not_taken_for_a_full_disk(tmp_path):
    def miss(folder):
        raise DataMissing("no recordings")

    with pytest.raises(DataMissing, match="no recordings"):
        build_once(tmp_path / "set", miss)


def test_a_fingerprint_that_cannot_be_kept_is_said_once_and_made_all_the_same(tmp_path, monkeypatch, caplog):
    root = write_set(tmp_path / "root")
    expected = fingerprint_files(root, ["a", "b"])
    (tmp_path / "file").touch()
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "file"))
    storage._say_once.cache_clear()
    assert [fingerprint_files(root, ["a", "b"]) for _ in range(3)] == [expected] * 3
    [said] = caplog.messages
    assert said.startswith(f"cannot write {tmp_path / 'file'}")
    assert said.endswith("going on without the cache")
