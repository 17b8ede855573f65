"""What is checked of records that come from elsewhere: every fault is found, and told in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.boards.repeatable import REPORTED, is_report, obstacles, origin
from benchmark.files import sha256
from benchmark.networks.weights import checkpoints
from benchmark.records import RecordStore, RunRecord, Submission, read_record
from benchmark.runs.dense import dense_path
from benchmark.single_network.compression_map import write_map
from benchmark.submissions.checks import Checked, agree, check_all
from compressors.compression import Compression, LayerCompression
from tests.benchmark.factory import make_failed, make_record

LATER = "2026-01-03T03:04:05+00:00"


def record(**changes: Any) -> RunRecord:
    return make_record("sbc", 0.1, version=version("sbc"), **changes)


def version(name: str) -> int:
    from compressors.registry import COMPRESSORS

    return int(COMPRESSORS[name].load().version_with({}))


def stored(folder: Path, one: RunRecord, **changes: Any) -> Path:
    return RecordStore(folder).save(one.model_copy(update=changes))


def twice(folder: Path, one: RunRecord, **second: Any) -> list[Path]:
    return [stored(folder / "one", one), stored(folder / "two", one, **{"created": LATER, **second})]


def only(found: list[Checked]) -> Checked:
    assert len(found) == 1
    return found[0]


def told(found: Checked) -> dict[str, tuple[bool | None, str]]:
    return {check.name: (check.passed, check.found) for check in found.checks}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_two_runs_that_agree_pass(tmp_path: Path) -> None:
    found = only(check_all(twice(tmp_path, record()), [record(seed=1)]))
    assert found.passed, told(found)
    assert found.second is not None
    assert found.second.created == LATER
    assert {name for name, (passed, _) in told(found).items() if passed is None} == {"options", "map", "checkpoint"}


def spoil(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoilt(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoilt


def first_layer(content: dict[str, Any]) -> dict[str, Any]:
    return content["cost"]["layers"][0]


FAULTS = {
    "another budget": (lambda c: c["question"].update(density=0.2), "run id"),
    "another fingerprint": (lambda c: c["data"].update(fingerprint="a" * 64), "run id"),
    "another version": (lambda c: c.update(version=99), "version"),
    "an accuracy between two samples": (lambda c: c["metrics"].update(accuracy=0.905), "accuracy"),
    "density": (lambda c: c["compression"].update(density=0.05), "counts"),
    "kept weights": (lambda c: c["compression"]["layers"][0].update(kept=1), "counts"),
    "nonzero weights": (lambda c: first_layer(c).update(nonzero=287), "counts"),
    "operations": (lambda c: first_layer(c).update(mac=first_layer(c)["mac"] + 1), "counts"),
    "operations of a step": (lambda c: first_layer(c)["synops_per_step"].__setitem__(0, 0), "counts"),
    "shape": (lambda c: c["compression"]["layers"][0].update(shape=[16, 18]), "counts"),
    "width": (lambda c: c["compression"]["layers"][0].update(bits=4), "counts"),
    "an uncounted layer": (lambda c: c["cost"]["layers"].pop(), "counts"),
    "the dense network's id": (lambda c: c["dense"].update(id="0" * 12), "dense network"),
    "options": (lambda c: c.update(options={"damping": 0.5}), "options"),
    "a broken file": (lambda c: c.pop("question"), "schema"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(tmp_path: Path, fault: str) -> None:
    change, name = FAULTS[fault]
    paths = twice(tmp_path, record())
    for path in paths:
        spoil(change)(path)
    found = check_all(paths, [])
    assert not any(one.passed for one in found)
    failed = [check for one in found for check in one.checks if check.passed is False]
    assert name in [check.name for check in failed]
    assert all("\n" not in check.found for check in failed)


def test_right_options_pass(tmp_path: Path) -> None:
    (path, _) = twice(tmp_path, record(options={"damping": 0.01, "variant": "exact", "include": ["*"]}))
    assert told(only(check_all([path], [])))["options"][0] is True


def test_data_of_another_content_are_found(tmp_path: Path) -> None:
    paths = twice(tmp_path, record())
    other = record(seed=1, fingerprint="a" * 64)
    assert told(only(check_all(paths, [other])))["data"][0] is False
    assert told(only(check_all(paths, [record(seed=1, data="digits_dvs")])))["data"][0] is None


def test_a_file_of_another_name_and_a_failed_run_do_not_pass(tmp_path: Path) -> None:
    path = stored(tmp_path, record())
    renamed = path.rename(path.with_name("0123456789ab.json"))
    assert told(only(check_all([renamed], [])))["run id"][0] is False
    failed = stored(tmp_path, make_failed("sbc", 0.1, error="ValueError: broken"))
    assert told(only(check_all([failed], []))) == {"result": (False, "the run failed: ValueError: broken")}


def test_a_method_that_is_not_here_is_not_looked_at(tmp_path: Path) -> None:
    found = only(check_all(twice(tmp_path, make_record("elsewhere", 0.1)), []))
    assert told(found)["version"][0] is None
    assert found.passed


# two runs ------------------------------------------------------------------------------------------------------------


def test_one_run_is_not_enough_and_neither_is_one_run_twice(tmp_path: Path) -> None:
    path = stored(tmp_path, record())
    passed, reason = told(only(check_all([path], [])))["two runs"]
    assert not passed
    assert "--results and SNNBENCH_CACHE" in reason
    copy = stored(tmp_path / "copy", record())
    assert told(only(check_all([path, copy], [])))["two runs"] == (
        False,
        "the same run twice: give the record of another one",
    )


@pytest.mark.parametrize(
    ("machine", "accuracy", "agreed"),
    [
        (None, 0.90, True),
        (None, 0.91, False),  # one sample on one machine
        ("another", 0.91, True),
        ("another", 0.75, False),  # more than noise
    ],
)
def test_runs_agree_to_the_bit_on_one_machine_and_within_noise_on_two(
    machine: str | None, accuracy: float, agreed: bool
) -> None:
    one = record()
    environment = one.environment | ({"processor": machine} if machine else {})
    other = record(accuracy=accuracy).model_copy(update={"created": LATER, "environment": environment})
    assert agree(one, other).passed is agreed


def test_runs_that_keep_other_numbers_of_weights_disagree() -> None:
    one = record()
    other = make_record("sbc", 0.2).model_copy(update={"created": LATER, "environment": {"processor": "another"}})
    assert "other numbers of weights" in agree(one, other).found


def test_the_second_run_is_remembered(tmp_path: Path) -> None:
    submission = Submission(by="me", hardware="a machine", repeated=LATER)
    path = stored(tmp_path, record(), submission=submission)
    passed, reason = told(only(check_all([path], [])))["two runs"]
    assert passed
    assert LATER in reason
    assert read_record(path).submission == submission


# maps and checkpoints ------------------------------------------------------------------------------------------------


def masks(one: RunRecord) -> list[LayerCompression]:
    layers = []
    for layer in one.answer.compression.layers:
        mask = torch.zeros(layer.shape, dtype=torch.bool)
        mask.view(-1)[: layer.kept] = True
        layers.append(LayerCompression(f"network.{layer.name}", tuple(layer.shape), mask))
    return layers


def test_counts_are_recomputed_from_the_map(tmp_path: Path) -> None:
    one, maps = record(), tmp_path / "maps"
    maps.mkdir()
    paths, path = twice(tmp_path, one), maps / f"{one.id}.map.json"
    write_map(path, Compression(tuple(masks(one))))
    assert told(only(check_all(paths, [], maps)))["map"] == (True, "its counts are the record's")
    first, *others = masks(one)
    first.mask.view(-1)[-1] = True
    write_map(path, Compression((first, *others)))
    assert told(only(check_all(paths, [], maps)))["map"] == (
        False,
        f"differs in {one.answer.compression.layers[0].name}",
    )
    path.write_text("{}")
    assert told(only(check_all(paths, [], maps)))["map"][0] is False


def test_the_checkpoints_hash_is_compared_where_the_file_is(tmp_path: Path, cache: Path) -> None:
    one = record()
    kept = dense_path(cache, one.answer.dense.id)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert told(only(check_all(twice(tmp_path, one), [])))["checkpoint"][0] is False
    right = one.model_copy(update={"dense": one.answer.dense.model_copy(update={"sha256": sha256(kept)})})
    assert told(only(check_all(twice(tmp_path, right), [])))["checkpoint"][0] is True


def test_a_network_that_was_trained_once_more_is_the_same_by_its_tensors(tmp_path: Path, cache: Path) -> None:
    one = record()
    path = dense_path(cache, one.answer.dense.id)
    path.parent.mkdir(parents=True)
    made = checkpoints.save(path, nn.Linear(2, 2), {"seconds": 1.0})
    for tensors, passed in ((made.tensors_sha256, True), ("0" * 64, False)):
        dense = one.answer.dense.model_copy(update={"tensors_sha256": tensors})
        again = one.model_copy(update={"dense": dense})
        assert told(only(check_all(twice(tmp_path, again), [])))["checkpoint"][0] is passed


# origin --------------------------------------------------------------------------------------------------------------


def submitted(method: Any = "sbc", *, code: str = "", **changes: Any) -> RunRecord:
    submission = Submission(by="me", hardware="a laptop", code=code, repeated=LATER)
    return make_record(method, 0.1, submission=submission, **changes)


@pytest.mark.parametrize(
    ("one", "lacking"),
    [
        (submitted(), ""),
        (submitted("theirs"), "the compressor theirs is not snnbench's"),
        (submitted("theirs", code="github.com/them/theirs"), ""),
        (submitted("theirs:Method"), "the compressor theirs:Method"),
        (submitted(model="theirs:build"), "the model theirs:build"),
        (submitted(data="theirs"), "the data set theirs"),
        (submitted(model={"name": "conv", "checkpoint": "mine.ckpt"}), "are in a file of its author's"),
        (submitted(model={"name": "conv", "checkpoint": "mine.ckpt"}, code="x"), "are in a file of its author's"),
        (submitted(model={"name": "sew_resnet18", "checkpoint": "sew_resnet18_imagenet"}), ""),
        (submitted(environment={"git": "0123+changes"}), "changes that are in no revision"),
        (submitted(environment={}), "changes that are in no revision"),
    ],
)
def test_what_others_cannot_make_again_is_its_authors_report(one: RunRecord, lacking: str) -> None:
    assert is_report(one) == bool(lacking)
    assert lacking in " ".join(obstacles(one))
    facts = origin(one)
    assert facts["submitted by"] == "me"
    assert facts["on hardware"] == "a laptop"
    assert (REPORTED in facts["to be made again"]) == bool(lacking)


def test_the_projects_own_records_are_no_reports_and_plugins_are_named() -> None:
    own = make_record("theirs", 0.1)
    assert not is_report(own)
    assert origin(own) == {}
    one = submitted("theirs", code="x", environment={"git": "0", "packages": {"torch": "2", "theirs": "0.3"}})
    assert origin(one)["plug-ins"] == "theirs 0.3"
    assert origin(one)["code of others"] == "x"
