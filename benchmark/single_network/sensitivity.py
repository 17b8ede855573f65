"""What ``snnbench sensitivity`` does: what each layer's density and width cost while all other layers stay dense."""

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmark.questions import build
from benchmark.questions.suite import Named
from benchmark.runs.run import silent
from benchmark.single_network.paired import CONFIDENCE, PairedChange
from benchmark.single_network.path import change_of, judged
from benchmark.single_network.search import Step, Wish, attempting
from benchmark.single_network.subject import Source, Subject, open_subject
from benchmark.single_network.trials import HELD_OUT, Bench, Candidate
from benchmark.wording import count, points
from compressors.base import Compressor
from compressors.budget import Budget, BudgetError
from compressors.calibration.network import open_network
from compressors.registry import COMPRESSORS

DENSITIES = (0.5, 0.2, 0.1, 0.05)
WIDTHS = (8, 4, 3, 2)
_FEW = 6
"""Budgets up to which columns at 80 characters may stand two spaces apart."""

Account = Mapping[str, Any]
Told = Callable[[str, Step], None]


@dataclass(frozen=True)
class Grid:
    """What is tried on every layer. Of what is not named, those that the method can do of a few by default."""

    densities: Sequence[float] = ()
    widths: Sequence[int] = ()

    def budgets(self, method: Named) -> list[Budget]:
        """The columns: densities, then widths.

        Raises:
            BudgetError: the method has no such budgets.
        """
        named = bool(self.densities or self.widths)
        kinds = method.found_in(COMPRESSORS).load().budgets
        densities = self.densities if named else DENSITIES if "density" in kinds else ()
        widths = self.widths if named else WIDTHS if "bits" in kinds else ()
        budgets = [*map(Budget, densities), *(Budget(bits=bits) for bits in widths)]
        if not budgets:
            raise BudgetError(f"{method.name!r} has neither a density nor a width to try: its budgets are {kinds}")
        return budgets


def sensitivity(
    source: Source,
    method: Mapping[str, Any],
    grid: Grid,
    *,
    samples: int = HELD_OUT,
    max_drop: float = 0.01,
    told: Told = lambda layer, step: None,
) -> dict[str, Any]:
    """Compress each layer by itself to each budget, and judge the network on held-out training samples.

    Args:
        source: the dense network and its data.
        method: the compressor's name and options; ``include`` and ``exclude`` choose the layers.
        grid: the budgets.
        samples: held-out samples to judge on, at most.
        max_drop: a layer that costs more accuracy by itself (a share) is named as one to exclude.
        told: hears of every trial.

    Returns:
        JSON-able: ``dense``, ``budgets``, ``layers`` (by name: a cell for each budget, with ``loss``, ``accuracy`` and
        its ``change``), and ``exclude``: a list of layers for each budget.

    Raises:
        BudgetError, OptionError: the method has no such budget or option.
        Whatever :func:`benchmark.single_network.subject.open_subject` and :class:`Bench` raise.
    """
    named = build.validated("compressor", Named, method)
    budgets = grid.budgets(named)
    subject = open_subject(source)
    bench = Bench(subject, samples, source.seed)
    chosen = [bench.compressor(Candidate(named, budget)) for budget in budgets]  # mistakes come before work
    attempt = attempting(bench.trial, bench.dense, Wish())
    layers = []
    for name, weights in _layers(subject, chosen[0]).items():
        alone = Named(**named.model_dump() | {"include": [glob.escape(name)]})
        cells = []
        for budget in budgets:
            step = attempt(Candidate(alone, budget))
            told(name, step)
            cells.append(_cell(step))
        layers.append({"name": name, "weights": weights, "cells": cells})
    return {
        "checkpoint": str(subject.path),
        "method": named.label,
        "samples": {"unseen": len(bench.held_out.unseen), "seen": len(bench.held_out.seen)},
        "confidence": CONFIDENCE,
        "dense": bench.dense.figures(),
        "budgets": [dict(budget.limits) for budget in budgets],
        "layers": layers,
        "max_drop": max_drop,
        "exclude": [_costly(layers, column, max_drop) for column in range(len(budgets))],
    }


def _layers(subject: Subject, compressor: Compressor) -> dict[str, int]:
    """Name -> weights of the layers that the compressor takes, in order of execution."""
    loader = subject.data.calibration_dataloader()
    network = open_network(subject.module().eval(), loader, compressor.include, compressor.exclude, silent, "")
    return {layer.name: layer.module.weight.numel() for layer in compressor.accepted(network.layers)}


def _cell(step: Step) -> dict[str, Any]:
    told = step.to_dict()
    return {name: told[name] for name in ("accuracy", "loss", "change", "stored_bits", "synops") if name in told} | (
        {} if step.error is None else {"error": step.error}
    )


def _costly(layers: Sequence[Account], column: int, max_drop: float) -> list[str]:
    """The layers that cost more accuracy than they may by themselves, or could not be compressed."""
    return [layer["name"] for layer in layers if _falls(layer["cells"][column], max_drop)]


def _falls(cell: Account, max_drop: float) -> bool:
    return "change" not in cell or change_of(cell).change < -max_drop


def tables(account: Account) -> list[Table]:
    """What each layer's budgets change: accuracy in points, and the loss."""
    title = f"{account['method']}, one layer at a time, {judged(account)}"
    dense = account["dense"]["loss"]

    def fall(cell: Account) -> str:
        return points(cell["change"]["change"]) + ("!" if _falls(cell, account["max_drop"]) else "")

    falls = f"{title}\nchange of accuracy in points; !: more than {100 * account['max_drop']:g} are lost"
    losses = f"change of the loss, {dense:.4f}"
    return [_table(account, falls, fall), _table(account, losses, lambda cell: _signed(cell["loss"] - dense))]


def _table(account: Account, title: str, shown: Callable[[Account], str]) -> Table:
    rows = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    rows.padding = (0, 1 if len(account["budgets"]) <= _FEW else 0, 0, 0)
    rows.add_column("layer", overflow="fold")
    for heading in ("weights", *map(heading_of, account["budgets"])):
        rows.add_column(heading, justify="right", no_wrap=True)
    for layer in account["layers"]:
        cells = [shown(cell) if "change" in cell else "failed" for cell in layer["cells"]]
        rows.add_row(layer["name"], count(layer["weights"]), *cells)
    return rows


def heading_of(limits: Account) -> str:
    """A budget as the heading of a column: ``0.2``, ``4 bit``."""
    return Budget(**limits).short


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def lines(account: Account) -> list[str]:
    """For each budget the layers to exclude, as an option to copy, with how sure that is."""
    return [
        line
        for column, (limits, names) in enumerate(zip(account["budgets"], account["exclude"], strict=True))
        if names
        for line in _advice(account, column, heading_of(limits), names)
    ] or [f"no layer by itself loses more than {100 * account['max_drop']:g} points: none is to be excluded"]


def _advice(account: Account, column: int, heading: str, names: Sequence[str]) -> list[str]:
    quoted = ",".join(f'"{glob.escape(name)}"' for name in names)
    cells = {layer["name"]: layer["cells"][column] for layer in account["layers"]}
    most = account["max_drop"]
    return [f"at {heading}: -o 'exclude=[{quoted}]'", *(f"  {name}: {_sure(cells[name], most)}" for name in names)]


def _sure(cell: Account, most: float) -> str:
    if "change" not in cell:
        return f"failed: {cell['error']}"
    change: PairedChange = change_of(cell)
    return f"{change}" + ("" if change.verdict(most) == "no" else ", which these samples cannot decide")


def draw(account: Account, path: Path) -> None:
    """Write a heat map: layers by budgets, on the left the change of accuracy, on the right that of the loss."""
    layers, dense = account["layers"], account["dense"]["loss"]
    falls = [[100 * cell["change"]["change"] if "change" in cell else np.nan for cell in x["cells"]] for x in layers]
    losses = [[cell["loss"] - dense if "change" in cell else np.nan for cell in x["cells"]] for x in layers]
    width = 4 + 1.1 * len(account["budgets"])
    figure = Figure(figsize=(width, 1.8 + 0.32 * len(layers)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, title, map_ in (
        (left, falls, "accuracy [points]", "magma"),
        (right, losses, "loss", "magma_r"),
    ):
        _heat(axes, np.array(values, dtype=float), title, map_, [heading_of(limits) for limits in account["budgets"]])
    left.set_yticks(range(len(layers)), [layer["name"] for layer in layers], parse_math=False)
    figure.suptitle(f"{account['method']}: change with one layer compressed", parse_math=False, fontsize=10)
    figure.savefig(path, format=path.suffix.removeprefix(".") or "png")


def _heat(axes: Any, values: np.ndarray, title: str, colours: str, headings: Sequence[str]) -> None:
    """One map with its figures; what failed is left white."""
    shown = axes.imshow(values, cmap=colours, aspect="auto")
    axes.set_xticks(range(len(headings)), headings, rotation=45, ha="right", fontsize=8)
    axes.set_title(title, fontsize=9)
    for row, column in np.ndindex(values.shape):
        dark = sum(shown.cmap(shown.norm(values[row, column]))[:3]) < 1.5
        told = f"{values[row, column]:+.2f}" if np.isfinite(values[row, column]) else "failed"
        axes.text(column, row, told, ha="center", va="center", fontsize=6, color="white" if dark else "black")
