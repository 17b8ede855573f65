"""Files are whole or absent, whatever happens while they are written."""

import hashlib
import os
import time

import pytest
from filelock import FileLock

from datamodules import DataCorrupt
from datamodules.files import checksum, file_in, files_in, replacing, sweep


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "folder" / "report.json"
    with replacing(path) as partial:
        partial.write_text("whole")
        assert partial.name == path.name, "libraries judge a file by the end of its name"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("before")

    def break_off():
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("bad day")

    with pytest.raises(RuntimeError, match="bad day"):
        break_off()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_the_content_is_on_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    steps = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    with replacing(path) as partial:
        partial.write_text("whole")
    assert steps == ["sync", "replace"]


def test_checksums_are_those_of_the_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert checksum(path, "md5") == hashlib.md5(b"content").hexdigest()
    assert checksum(path, "sha256") == hashlib.sha256(b"content").hexdigest()


def test_only_what_killed_processes_left_a_day_ago_is_swept(tmp_path):
    left = [tmp_path / ".partial-abc/record.json", tmp_path / ".probe", tmp_path / ".locks/a.lock"]
    kept = [tmp_path / ".partial-new/record.json", tmp_path / ".locks/held.lock", tmp_path / "uv.lock"]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with FileLock(tmp_path / ".locks/held.lock"):
        yesterday = time.time() - 25 * 3600
        for path in (*left, *kept[1:], left[0].parent):
            os.utime(path, (yesterday, yesterday))
        sweep(tmp_path, ".partial-*", ".probe", ".locks/*.lock")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not left[0].parent.exists()


def test_a_file_is_found_by_its_name(tmp_path):
    (tmp_path / "list.txt").touch()
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "list.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    assert [file_in(tmp_path, name) for name in ("list.txt", "link.txt")] == [
        tmp_path / "list.txt",
        tmp_path / "link.txt",
    ]
    assert file_in(tmp_path, "other.txt") is None
    assert file_in(tmp_path / "no folder", "list.txt") is None
    for name, nature in (("folder.txt", "a folder"), ("gone.txt", "a link to nowhere")):
        with pytest.raises(DataCorrupt, match=f"{tmp_path / name}: is {nature}, where a file was expected"):
            file_in(tmp_path, name)


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "train").touch()
    with pytest.raises(DataCorrupt, match="train: is no folder, where one was expected"):
        files_in(tmp_path / "train", {".bin"})
