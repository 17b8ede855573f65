"""The comparison of simulated and real recordings that the documentation shows."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from datamodules.events import EVENT, encode_nmnist
from datamodules.mnist_dvs import CAMERA
from tests.datamodules.pictures import digit_like, write_mnist

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def likeness(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("likeness", DOCS / "likeness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FIGURES", tmp_path / "likeness.json")
    monkeypatch.setattr(module, "PICTURE", tmp_path / "likeness.png")
    return module


def recording(*events):
    return np.array(sorted(events, key=lambda event: event[2]), dtype=EVENT)


def test_figures_of_recordings_made_by_hand(likeness):
    busy = [(5, 6, 1000 * k, k % 2) for k in range(10)]
    found = likeness.measured([recording(*busy, (0, 0, 7, 1)), recording(*busy, *((9, 9, t, 0) for t in (1, 2, 3)))])
    assert (found["events"], found["events_sd"]) == (12, 1)
    assert found["on"] == pytest.approx((6 / 11 + 5 / 13) / 2)
    assert found["background"] == pytest.approx(1 / 24)
    assert (found["pixels"], found["events_per_pixel"]) == (1.5, pytest.approx(23 / 3))
    ticking = recording(*((3, 3, 1000 * t + 10, 1) for t in range(0, 315, 5)))
    assert likeness.rate([ticking], 1) == pytest.approx([0.2] * 63)
    assert likeness.rate([ticking], 0) == pytest.approx([0.0] * 63)
    assert (likeness.spectrum([ticking]).argmax() + 1) % 63 == 0  # multiples of 200 Hz


@pytest.fixture
def folders(tmp_path):
    """MNIST, and "real" recordings of the same images that the same camera made with other random numbers."""
    mnist = write_mnist(tmp_path / "mnist", 80, 30)
    for part, count in (("Train", 80), ("Test", 30)):
        for number in range(count):
            label = number * 7 % 10
            path = tmp_path / f"nmnist/{part}/{label}/{number + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_nmnist(CAMERA.record(digit_like(label, number), 9, number)).tobytes())
    return ["--nmnist", str(tmp_path / "nmnist"), "--mnist", str(mnist)]


def test_the_page_shows_what_the_commands_keep(likeness, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    for command in (["rates"], ["transfer", "--samples", "40", "--epochs", "1"]):
        result = CliRunner().invoke(likeness.main, [*command, *folders], catch_exceptions=False)
        assert result.exit_code == 0
    kept = json.loads((tmp_path / "likeness.json").read_text())
    assert kept["rates"]["recordings"] == 110
    assert kept["transfer"]["unseen"] == 110 - 36  # all but those of the images trained on
    assert kept["rates"]["alike"]["pixels"] > 0.9
    assert Image.open(tmp_path / "likeness.png").width > 500
    assert {len(values) for values in kept["transfer"]["accuracy"].values()} == {1}
    sys.path.append(str(DOCS / "hooks"))
    import figures

    monkeypatch.setattr(figures, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "likeness.json").rename(tmp_path / "docs/likeness.json")
    assert f"| events of a recording | {kept['rates']['real']['events']:,.0f} |" in figures.likeness("rates")
    share = kept["transfer"]["accuracy"]["real on real"][0]
    assert f"{100 * share:.1f} %" in figures.likeness("transfer").splitlines()[-1]
    assert "(of 30)" in figures.likeness("transfer").splitlines()[-1]
