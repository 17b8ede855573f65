"""The notebooks run from their first cell to their last, each for one kind of user."""

import json
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs/notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.slow


def cells(notebook: Path) -> list[str]:
    """The code, cell by cell."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in code), "figures are not kept: whoever runs it has their own"
    return ["".join(cell["source"]) for cell in code]


def test_there_is_one_for_each_kind_of_user():
    assert [path.stem for path in NOTEBOOKS] == ["choose", "compress", "contribute"]


EXPECTED = {
    "choose": [
        "4 runs done, 0 failed",
        "Digits-DVS · MLP, 16 hidden neurons · T = 3",
        "within one point, least memory ->",
    ],
    "compress": ["expected loss", "loihi1: fits every known limit", "operations a sample:", "bytes"],
    "contribute": ["passed", "fan_out:FanOutMagnitude"],
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_to_its_end(notebook, environment, tmp_path, monkeypatch, capsys):
    """In this process, which has paid for the imports, as if each were a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fan_out", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    space: dict = {"__name__": notebook.stem}
    for number, cell in enumerate(cells(notebook)):
        exec(compile(cell, f"{notebook.name}, cell {number}", "exec"), space)
    printed = capsys.readouterr().out
    for words in EXPECTED[notebook.stem]:
        assert words in printed, printed
    assert "FAILED" not in printed
