"""Records are whole or absent, and say what is wrong with them."""

import errno
import json
import os
from pathlib import Path

import pytest

from benchmark import records
from benchmark.files import StoreError, write_atomically
from benchmark.records import RecordError, RecordStore, read_record
from hardware import CostReport
from tests.benchmark.factory import make_record

FIXTURES = Path(__file__).parent / "fixtures"


def same(found, expected):
    """Equal as JSON: tuples come back as lists."""
    return found.model_dump_json() == expected.model_dump_json()


def test_what_is_saved_is_read_back(tmp_path):
    store, record = RecordStore(tmp_path), make_record()
    path = store.save(record)
    assert path == tmp_path / "records" / record.question.data.name / record.question.model.name / f"{record.id}.json"
    assert same(read_record(path), record)
    assert [same(found, record) for found in store] == [True]
    assert same(store.find(record.question, record.id), record)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_run_is_kept_but_asked_again(tmp_path):
    store = RecordStore(tmp_path)
    failed = make_record().model_copy(update={"status": "failed", "error": "ValueError: no"})
    store.save(failed)
    assert store.find(failed.question, failed.id) is None
    assert [record.error for record in store] == ["ValueError: no"]


@pytest.mark.parametrize("fault", ["write", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, fault):
    path = tmp_path / "folder" / "file.json"
    write_atomically(path, "before")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, {"write": "fsync", "replace": "replace"}[fault], full)
    with pytest.raises(StoreError, match=r"cannot write .*file\.json: No space left.*--results"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_a_results_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="results"):
        RecordStore(tmp_path / "results").writable()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a run record.*delete it"),
        (lambda text: "[]", "not a run record"),
        (lambda text: json.dumps(json.loads(text) | {"schema_version": 99}), "schema 99 is newer.*update snnbench"),
        (lambda text: json.dumps(json.loads(text) | {"status": "maybe"}), "not a run record"),
        (lambda text: json.dumps(json.loads(text) | {"surprise": 1}), "not a run record"),
    ],
)
def test_bad_records_are_named_and_the_others_read(tmp_path, spoil, message):
    store = RecordStore(tmp_path)
    good, bad = make_record(), make_record(seed=1)
    store.save(good)
    path = store.save(bad)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(RecordError, match=message):
        read_record(path)
    assert [same(found, good) for found in store] == [True]
    assert [str(path) in problem for problem in store.problems()] == [True]


def test_partial_files_are_not_records(tmp_path):
    store, record = RecordStore(tmp_path), make_record()
    path = store.save(record)
    partial = path.parent / ".partial-x" / path.name
    partial.parent.mkdir()
    partial.write_text("{")
    assert [same(found, record) for found in store] == [True]


def test_new_records_are_of_the_present_schema():
    assert make_record().schema_version == records.SCHEMA


def test_records_of_schema_1_are_read_and_answer_their_questions(tmp_path):
    """The fixture was written by the last revision of schema 1."""
    old = read_record(FIXTURES / "record-schema-1.json")
    assert old.schema_version == 1
    assert old.peak_memory_bytes is None
    assert old.question.id(old.data["fingerprint"], old.version) == old.id, "the question still has its id"
    store = RecordStore(tmp_path)
    store.save(old)
    assert same(store.find(old.question, old.id), old)
    assert CostReport.from_dict(old.cost).synops_per_sample > 0
