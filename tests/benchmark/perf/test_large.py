"""The measurement of large networks prunes them as any run does, and does without ImageNet by saying so."""

import numpy as np
import pytest
from PIL import Image

from benchmark.perf import large
from benchmark.perf.__main__ import large_networks
from datamodules.imagenet import wnids


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    for part in ("train", "val"):
        for label, wnid in enumerate(wnids()[:6]):
            path = tmp_path / "imagenet" / part / wnid / f"{label}.JPEG"
            path.parent.mkdir(parents=True)
            coarse = np.random.default_rng(label).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((256, 256)).save(path)
    monkeypatch.setenv("SNNBENCH_DATA", str(tmp_path))


@pytest.mark.slow
def test_a_large_network_is_pruned_to_the_density(photographs, monkeypatch):
    monkeypatch.setattr(large, "PRUNED", [("sew_resnet18", 4)])
    monkeypatch.setattr(large, "RECONSTRUCTED", [])
    (row,) = large_networks()
    assert (row["layers"], row["weights"]) == (21, 11_678_912)
    assert row["density"] == pytest.approx(0.35, abs=1e-4)
    assert 0 < row["longest_s"] < row["solving_s"] < row["seconds"]


@pytest.mark.slow
def test_a_large_network_learns_what_the_dense_one_does(photographs, monkeypatch):
    monkeypatch.setattr(large, "PRUNED", [])
    monkeypatch.setattr(large, "RECONSTRUCTED", [("sew_resnet18", 4)])
    (row,) = large_networks()
    assert (row["method"], row["steps"]) == ("Magnitude reconstruct", 2)
    assert row["density"] == pytest.approx(0.35, abs=1e-4)


def test_without_imagenet_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SNNBENCH_DATA", str(tmp_path))
    assert large_networks() == []
    assert "not measured: imagenet" in capsys.readouterr().err
