"""Records are whole or absent, and say what is wrong with them."""

import copy
import errno
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmark import records
from benchmark.files import StoreError, write_atomically
from benchmark.records import NeuronSpikes, NoAnswer, RecordError, RecordStore, read_record
from hardware import CostReport
from tests.benchmark.factory import make_failed, make_record

FIXTURES = Path(__file__).parent / "fixtures"
COMMITTED = sorted(Path(__file__).parents[2].glob("results/records/*/*/*.json"))


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
    failed = make_failed("obc", 0.5, error="ValueError: no")
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
        RecordStore(tmp_path / "results").prepare()


def test_preparing_a_store_writes_nothing_and_sweeps_what_was_left(tmp_path):
    RecordStore(tmp_path / "results").prepare()
    assert list(tmp_path.iterdir()) == []
    left = [tmp_path / name for name in ("records/.probe", "records/a/b/.partial-x/0123456789ab.json", ".locks/a.lock")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for touched in (path, path.parent):
            os.utime(touched, (0, 0))
    RecordStore(tmp_path).prepare()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a run record.*delete it"),
        (lambda text: "[]", "not a run record"),
        (lambda text: json.dumps(json.loads(text) | {"schema_version": 99}), "schema 99 is newer.*update snnbench"),
        (lambda text: json.dumps(json.loads(text) | {"status": "maybe"}), "not a run record"),
        (lambda text: json.dumps(json.loads(text) | {"surprise": 1}), r"not a run record \(surprise: "),
        (lambda text: json.dumps(json.loads(text) | {"cost": {}}), "a finished run without cost"),
        (lambda text: json.dumps(json.loads(text) | {"dense": None, "metrics": {}}), "without dense, metrics"),
        (lambda text: json.dumps(json.loads(text) | {"metrics": {"loss": 1.0}}), r"metrics\.accuracy: Field required"),
        (lambda text: text.replace('"samples": 100', '"samples": "many"'), r"cost\.samples: .*integer"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "cost report of schema 99: this version reads 1"),
        (lambda text: text.replace('"kept"', '"left"', 1), r"compression\.layers\.0\.kept: Field required"),
        (lambda text: "[" * 100_000, "not a run record"),
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
    found, problems = store.read()
    assert [record.id for record in found] == [good.id]
    assert [str(path) in problem for problem in problems] == [True]


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
    assert old.answer.cost.synops_per_sample > 0


def test_every_committed_record_is_read_and_written_to_the_same_bytes(tmp_path):
    assert COMMITTED
    store = RecordStore(tmp_path)
    changed = [path.name for path in COMMITTED if store.save(read_record(path)).read_bytes() != path.read_bytes()]
    assert changed == []


def test_the_account_of_a_run_is_typed_and_keeps_what_a_method_adds(tmp_path):
    added = {"name": "fc", "shape": [10, 64], "weights": 2560, "kept": 640, "density": 0.25, "loss": None, "bits": 4,
             "before": [10, 256], "solver": "exact", "change": {"spikes": 0.5}}  # fmt: skip
    account = {"density": 0.25, "seconds": 2.0, "layers": [added], "aftercare": {"means": ["fc"]},
               "stages": [{"timesteps": 2}], "left_alone": ["embed (Embedding)"]}  # fmt: skip
    path = RecordStore(tmp_path).save(make_record("obc", 0.25, compression=account))
    assert json.loads(path.read_text())["compression"] == account
    (layer,) = read_record(path).answer.compression.layers
    assert (layer.shape, layer.before, layer.kept, layer.bits) == ((10, 64), (10, 256), 640, 4)
    assert layer.model_extra == {"solver": "exact", "change": {"spikes": 0.5}}


@pytest.mark.parametrize(("dead", "saturated", "possible"), [(1, 1, True), (3, 0, False), (0, 3, False), (1, 2, False)])
def test_no_more_neurons_are_dead_or_saturated_than_there_are(dead, saturated, possible):
    distances = dict.fromkeys(("mismatch", "van_rossum", "lowest_potential", "highest_potential")) | {
        "earth_mover": 0.0
    }
    layer = {"name": "lif", "neurons": 2, "dead": dead, "saturated": saturated, **distances}
    with nullcontext() if possible else pytest.raises(ValidationError, match="of 2 neurons"):
        NeuronSpikes.model_validate(layer)


def test_a_cost_report_comes_back_as_it_was_counted(tmp_path):
    record = make_record("obc", 0.1)
    cost = read_record(RecordStore(tmp_path).save(record)).answer.cost
    assert cost == record.cost == CostReport.from_dict(json.loads(json.dumps(record.cost.to_dict())))


def test_a_failed_run_has_no_answer_and_its_file_says_so(tmp_path):
    path = RecordStore(tmp_path).save(make_failed("obc", 0.1, error="ValueError: broken"))
    content = json.loads(path.read_text())
    assert (content["metrics"], content["compression"], content["cost"]) == ({}, {}, {})
    failed = read_record(path)
    assert failed.cost is failed.compression is failed.metrics is None
    with pytest.raises(NoAnswer, match=rf"{failed.id} failed \(ValueError: broken\)"):
        failed.answer  # noqa: B018


FREE = {"options", "data", "environment"}
"""Parts of a record in which anything plain may stand; so it may as the options of what a question names."""

OTHERS = {int: (True, 5.0, "5"), float: (True, "0.5"), bool: (1, "true"), str: (1, True)}


def others(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Places in a record, each with a value of another type than stands there."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from others(value, (*place, key))
    else:
        yield from ((place, value) for value in OTHERS.get(type(content), ()))


def test_no_value_of_another_type_is_taken_for_one(tmp_path):
    good = make_record("obc", 0.1).model_dump(mode="json")
    wrong = [(place, value) for place, value in others(good) if place[0] not in FREE]
    assert {("cost", "samples"), ("cost", "layers", 0, "ac"), ("metrics", "accuracy")} <= {place for place, _ in wrong}
    for place, value in wrong:
        content = copy.deepcopy(good)
        inner = content
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        (tmp_path / "record.json").write_text(json.dumps(content))
        with pytest.raises(RecordError, match=r"record.json: not a run record"):
            read_record(tmp_path / "record.json")


def test_a_whole_number_may_stand_for_a_number(tmp_path):
    content = make_record().model_dump(mode="json")
    content["cost"]["layers"][0]["sample_mean"] = content["metrics"]["accuracy"] = 1
    (tmp_path / "record.json").write_text(json.dumps(content))
    record = read_record(tmp_path / "record.json")
    assert type(record.answer.metrics.accuracy) is type(record.answer.cost.layers[0].sample_mean) is float


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_answers_to_samples_come_back(correct):
    bits = records.answers_of(records.packed_answers(correct), len(correct))
    assert [bool(bits >> place & 1) for place in reversed(range(len(correct)))] == correct


def test_answers_are_a_bit_a_sample():
    assert len(records.packed_answers([True] * 10_000)) < 1_700


CORRECT = [True] * 90 + [False] * 10


def test_a_record_keeps_its_answers_and_older_ones_have_none(tmp_path):
    store = RecordStore(tmp_path)
    kept = make_record(correct=records.packed_answers(CORRECT))
    assert read_record(store.save(kept)).correct == kept.correct
    assert "correct" not in json.loads(store.save(make_record("sbc", 0.1)).read_text())


@pytest.mark.parametrize(
    ("correct", "message"),
    [
        (records.packed_answers(CORRECT[1:]), "another accuracy"),
        (records.packed_answers(CORRECT[:50]), "are not those to 100 samples"),
        (records.packed_answers([*CORRECT, True]), "more than 100 samples"),
        ("%%%", "not a run record"),
    ],
)
def test_answers_that_are_not_those_of_the_run_are_refused(tmp_path, correct, message):
    path = RecordStore(tmp_path).save(make_record())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"correct": correct}))
    with pytest.raises(RecordError, match=message):
        read_record(path)
