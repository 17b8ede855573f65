"""What each layer costs by itself: the cells, the layers that are named, the tables and the heat map."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from benchmark.questions.suite import Named
from benchmark.single_network import sensitivity
from benchmark.single_network.paired import PairedChange
from benchmark.single_network.sensitivity import DENSITIES, WIDTHS, Grid
from benchmark.single_network.trials import Bench, Candidate
from compressors.budget import Budget, BudgetError
from compressors.network.layers import LayerError
from tests.benchmark.single_network.test_search import Judged
from tests.compressors.networks import classifier

SOURCE = SimpleNamespace(seed=0)


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """A network whose file nobody needs to read."""
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path))
    opened = SimpleNamespace(
        data=Judged(), module=classifier, description={}, checkpoint=SimpleNamespace(sha256="0"), path="mine.ckpt"
    )
    monkeypatch.setattr(sensitivity, "open_subject", lambda source: opened)
    return opened


def layers(module) -> dict[str, int]:
    return {
        name: part.weight.numel()
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)
    }


def test_each_cell_is_the_network_with_that_layer_alone_compressed(subject):
    heard = []
    grid = Grid((0.3,), (2,))
    account = sensitivity.sensitivity(
        SOURCE, {"name": "sbc"}, grid, samples=8, told=lambda layer, step: heard.append((layer, step))
    )
    expected = layers(classifier())
    assert {layer["name"]: layer["weights"] for layer in account["layers"]} == expected
    assert account["budgets"] == [{"density": 0.3}, {"bits": 2}]
    bench = Bench(subject, 8)
    name = list(expected)[1]
    for budget, cell in zip((Budget(0.3), Budget(bits=2)), account["layers"][1]["cells"], strict=True):
        trial = bench.trial(Candidate(Named(name="sbc", include=[name]), budget))
        assert trial.reused
        assert (cell["loss"], cell["accuracy"]) == (trial.loss, trial.accuracy)
        assert cell["change"] == PairedChange.of(bench.dense.correct, trial.correct).to_dict()
        touched = {layer.name for layer in trial.cost.layers if layer.density < 1 or layer.bits < 32}
        assert touched == {name}
    assert len(heard) == 2 * len(expected)
    assert subject.data.tests == 0


def test_layers_are_chosen_by_the_options_of_the_method(subject):
    names = list(layers(classifier()))
    method = {"name": "magnitude", "include": names[:2], "exclude": names[:1]}
    account = sensitivity.sensitivity(SOURCE, method, Grid((0.5,)), samples=8)
    assert [layer["name"] for layer in account["layers"]] == [names[1]]
    with pytest.raises(LayerError, match="convv"):
        sensitivity.sensitivity(SOURCE, {"name": "magnitude", "include": "convv"}, Grid((0.5,)), samples=8)


def test_columns_are_what_is_named_or_what_the_method_can_do():
    def columns(name, grid=None):
        return (grid or Grid()).budgets(Named(name=name))

    assert columns("sbc") == [*map(Budget, DENSITIES), *(Budget(bits=bits) for bits in WIDTHS)]
    assert columns("magnitude") == [*map(Budget, DENSITIES)]
    assert columns("rtn") == [Budget(bits=bits) for bits in WIDTHS]
    assert columns("sbc", Grid(widths=(5,))) == [Budget(bits=5)]
    with pytest.raises(BudgetError, match="neither a density nor a width"):
        columns("identity")


def test_a_budget_that_the_method_refuses_is_found_before_any_trial(subject, tmp_path):
    with pytest.raises(ValueError, match="does not prune"):
        sensitivity.sensitivity(SOURCE, {"name": "rtn"}, Grid((0.5,), (4,)), samples=8)
    assert not list(tmp_path.glob("trials/*"))


def told(changes: dict[str, list[PairedChange | None]]) -> dict:
    """An account in which the layers did so, in columns of densities 0.5, 0.2, ..."""
    budgets = [{"density": density} for density in DENSITIES[: len(next(iter(changes.values())))]]
    rows = []
    for name, row in changes.items():
        cells = [
            {"error": "weights are nan"}
            if change is None
            else {"change": change.to_dict(), "loss": 0.25, "accuracy": 0.9}
            for change in row
        ]
        rows.append({"name": name, "weights": 1200, "cells": cells})
    account = {"budgets": budgets, "layers": rows, "max_drop": 0.01, "method": "sbc", "dense": {"loss": 0.2}}
    account["samples"] = {"unseen": 1000, "seen": 0}
    account["exclude"] = [sensitivity._costly(rows, column, 0.01) for column in range(len(budgets))]
    return account


KEPT, UNSURE, LOST = PairedChange(1000, 5, 6), PairedChange(1000, 5, 17), PairedChange(1000, 0, 80)


def test_the_layers_to_exclude_are_named_with_what_the_samples_can_tell(tmp_path):
    account = told({"conv[1]": [KEPT, UNSURE, None], "fc": [KEPT, KEPT, LOST]})
    assert account["exclude"] == [[], ["conv[1]"], ["conv[1]", "fc"]]
    lines = sensitivity.lines(account)
    assert lines[0] == "at 0.2: -o 'exclude=[\"conv[[]1]\"]'"
    assert lines[1].endswith("which these samples cannot decide")
    assert lines[2] == 'at 0.1: -o \'exclude=["conv[[]1]","fc"]\''
    assert lines[3] == "  conv[1]: failed: weights are nan"
    assert lines[4].startswith("  fc: −8.00 points")
    assert not lines[4].endswith("decide")
    (nothing,) = sensitivity.lines(told({"fc": [KEPT]}))
    assert nothing == "no layer by itself loses more than 1 points: none is to be excluded"

    console = Console(width=80, file=io.StringIO())
    for table in sensitivity.tables(account):
        console.print(table)
    rows = [line.split() for line in console.file.getvalue().splitlines() if line.startswith(("conv", "fc"))]
    assert rows[0] == ["conv[1]", "1.2", "k", "−0.10", "−1.20!", "failed"]
    assert rows[3] == ["fc", "1.2", "k", "+0.050", "+0.050", "+0.050"]

    picture = tmp_path / "heat.svg"
    sensitivity.draw(account, picture)
    drawn = picture.read_text()
    assert "<svg" in drawn


def test_no_figure_is_cut_at_80_columns_whatever_a_layer_is_called():
    """Eight budgets are those that are tried by default."""
    name = "network.blocks.11.attention.projection"
    account = told({name: [LOST] * 8})
    account["budgets"] = [
        *({"density": share} for share in sensitivity.DENSITIES),
        *({"bits": bits} for bits in (8, 4, 3, 2)),
    ]
    for table in sensitivity.tables(account):
        console = Console(width=80, file=io.StringIO())
        console.print(table)
        words = console.file.getvalue()
        assert "…" not in words
        assert words.count("−8.00!") + words.count("+0.050") == 8
        assert name in "".join(line.split(" ")[0] for line in words.splitlines())
