"""One dense network is one, whatever the file it was in."""

import pytest
import torch
from torch import nn

from benchmark.boards.compare import compare
from benchmark.boards.origins import origins
from benchmark.boards.standings import standings
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import Checkpoint
from tests.benchmark.factory import make_record


def known_by(record, file, tensors=None):
    """The record with a dense network of this file and these tensors."""
    dense = record.dense.model_copy(update={"sha256": file * 64, "tensors_sha256": tensors and tensors * 64})
    return record.model_copy(update={"dense": dense})


def test_the_hash_is_that_of_the_tensors_and_not_of_the_header(tmp_path):
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first = checkpoints.save(tmp_path / "a.safetensors", network, {"seconds": 1.5})
    second = checkpoints.save(tmp_path / "b.safetensors", network, {"seconds": 2.5})
    assert first.sha256 != second.sha256
    assert first.tensors_sha256 == second.tensors_sha256 == checkpoints.load(tmp_path / "b.safetensors").tensors_sha256


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([1.0, 3.0])},
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(1)},
        {},
    ],
    ids=["bytes", "name", "dtype", "shape", "more", "none"],
)
def test_other_tensors_are_others(other):
    one = {"a": torch.tensor([1.0, 2.0])}
    assert Checkpoint(one, {}, "").tensors_sha256 != Checkpoint(other, {}, "").tensors_sha256
    assert Checkpoint(one, {"b": 1}, "x").tensors_sha256 == Checkpoint({"a": one["a"].clone()}, {}, "").tensors_sha256


def test_the_same_weights_trained_twice_stand_in_one_table():
    runs = [known_by(make_record(), "1", "a"), known_by(make_record("sbc", 0.1), "2", "a")]
    board = standings(runs)
    assert board.apart == ()
    assert board.tables[0].rows[1].measured["difference"].n == 1
    other = known_by(make_record("obc", 0.1), "2", "b")
    assert [item.run for item in standings([runs[0], other]).apart] == [other.id]


def test_an_older_record_is_matched_by_its_file():
    """It has no hash of tensors; a newer one from the same file links it with those from other files."""
    old, between, new = (make_record(method, 0.1) for method in ("sbc", "obc", "lamp"))
    runs = [known_by(old, "1"), known_by(between, "1", "a"), known_by(new, "2", "a")]
    for order in (runs, runs[::-1], [runs[0], runs[2], runs[1]]):
        assert len(set(origins(order).values())) == 1
    assert len(set(origins([runs[0], runs[2]]).values())) == 2
    assert standings(runs).apart == ()


def test_a_network_that_came_with_its_weights_is_known_by_its_id():
    model = {"name": "nir", "checkpoint": "a.nir"}
    runs = [known_by(make_record("sbc", 0.1, model=model), "1"), known_by(make_record(model=model), "2", "a")]
    assert len(set(origins(runs).values())) == 1


def test_runs_of_the_same_weights_are_compared_in_pairs():
    a = [known_by(make_record("sbc", 0.1, seed), "1", "a") for seed in (0, 1)]
    b = [known_by(make_record("obc", 0.1, seed), "2", "a") for seed in (0, 1)]
    assert compare([*a, *b], a[0].id, b[0].id).significance.paired
    assert not compare([*a, known_by(b[0], "3", "c"), b[1]], a[0].id, b[0].id).significance.paired


def test_old_records_stay_as_they_are_written():
    record = make_record()
    assert "tensors_sha256" not in record.model_dump(mode="json")["dense"]
    assert known_by(record, "1", "a").model_dump(mode="json")["dense"]["tensors_sha256"] == "a" * 64
