"""The picture of a table: accuracy over operations and over memory, with each Pareto front."""

import io
from collections.abc import Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmark.boards.reported import marks
from benchmark.boards.standings import COSTS, Row, Table
from benchmark.wording import count

_LABELS = {"synops": "synaptic operations per sample", "stored_bits": "stored weights [KiB]"}
_SCALES = {"synops": 1.0, "stored_bits": 1 / 8192}

# Okabe and Ito's colours, which the colour-blind can tell apart; markers tell them apart in grey as well
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX*"
_GREYS = ("#505050", "#707070", "#909090", "#a8a8a8", "#c0c0c0")


def plot(table: Table) -> bytes:
    """A PNG of a table: a curve a compressor and kind of budget, with the spread over seeds.

    Budgets of bits are joined by dotted lines. Controls are grey and dashed, the dense network is a dotted line, the
    Pareto front a broad pale one. Hollow marks are what papers report, where they give both measures.
    """
    figure = Figure(figsize=(12, 5), dpi=110)
    left, right = figure.subplots(1, 2, sharey=True)
    legend_rows = ceil((2 + len(_styles(table.rows))) / 6)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.92, bottom=0.13 + 0.05 * legend_rows, wspace=0.04)
    for axes, cost in zip((left, right), COSTS, strict=True):
        _draw(axes, table.rows, cost)
        _draw_reported(axes, table, cost)
    left.set_ylabel("accuracy [%]")
    figure.suptitle(table.title, parse_math=False)
    handles, labels = left.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="lower center", ncols=min(len(labels), 6), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names are names, and no formulas
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # the same records give the same bytes
    return png.getvalue()


def _draw(axes: Axes, rows: Sequence[Row], cost: str) -> None:
    _draw_front(axes, rows, cost)
    for row in rows:
        if row.dense:
            axes.axhline(100 * row.measured["accuracy"].mean, color="black", linestyle=":", linewidth=1)
            _draw_curve(axes, [row], cost, label="dense", color="black", marker="*", markersize=11)
    for label, style in _styles(rows).items():
        own = [row for row in rows if row.label == label]
        for place, kind in enumerate(sorted({row.budget.kind for row in own}, key=lambda kind: ("bits" in kind, kind))):
            joined = {"linestyle": ":"} if "bits" in kind else {}
            points = [row for row in own if row.budget.kind == kind]
            _draw_curve(axes, points, cost, label=None if place else label, **(style | joined))
    axes.set_xscale("log")
    axes.set_xlabel(_LABELS[cost])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, rows: Sequence[Row], cost: str, **style: Any) -> None:
    points = sorted(
        (
            row.measured[cost].mean * _SCALES[cost],
            100 * row.measured["accuracy"].mean,
            100 * (row.measured["accuracy"].std or 0),
        )
        for row in rows
    )
    x, y, error = zip(*points, strict=True)
    axes.errorbar(x, y, error, capsize=2.5, elinewidth=1, **{"markersize": 5.5, "linewidth": 1.5, **style})


def _draw_front(axes: Axes, rows: Sequence[Row], cost: str) -> None:
    front = sorted(
        (row.measured[cost].mean * _SCALES[cost], 100 * row.measured["accuracy"].mean)
        for row in rows
        if cost in row.fronts
    )
    x, y = zip(*front, strict=True)
    axes.step(
        x,
        y,
        where="post",
        color="#F0E442",
        linewidth=4,
        alpha=0.55,
        zorder=0,
        label="Pareto front",
        solid_capstyle="round",
    )


def _draw_reported(axes: Axes, table: Table, cost: str) -> None:
    """Hollow marks: what papers report of the same data set, on networks of their own."""
    points = {name: marks(table.setup.data_name, table.division, name, "accuracy") for name in COSTS}
    if not any(points.values()):
        return
    x, y = [point[0] * _SCALES[cost] for point in points[cost]], [100 * point[1] for point in points[cost]]
    style: dict[str, Any] = {"marker": "o", "markersize": 7, "color": "#808080", "fillstyle": "none", "linestyle": ""}
    axes.plot(x, y, label="reported", zorder=1, **style)


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Curve label -> how it is drawn: fixed by the names in the table, whatever the order of its rows."""
    controls = sorted({row.label for row in rows if row.control and not row.dense})
    methods = sorted({row.label for row in rows if not row.control})
    styles = {}
    for i, label in enumerate(methods):
        styles[label] = {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
    for i, label in enumerate(controls):
        styles[label] = {"color": _GREYS[i % len(_GREYS)], "marker": _MARKERS[i % len(_MARKERS)], "linestyle": "--"}
    return styles
