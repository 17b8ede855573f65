"""The picture of a table: accuracy over operations and over memory, with each Pareto front."""

import io
from collections.abc import Collection, Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmark.boards.measures import COSTS
from benchmark.boards.reported import marks
from benchmark.boards.standings import DENSE, Row, Table
from benchmark.boards.styles import Style, style
from benchmark.wording import count

_LABELS = {"synops": "synaptic operations per sample", "stored_bits": "stored weights [KiB]"}
_SCALES = {"synops": 1.0, "stored_bits": 1 / 8192}


def plot(table: Table) -> bytes:
    """A PNG of a table: a curve a compressor and kind of budget, with the spread over seeds.

    Variants are thin and hollow in the colour of their method, which alone is named. Budgets of bits are joined by
    dotted lines. Controls are grey and dashed, the dense network is a dotted line, the
    Pareto front a broad pale one. Grey pentagons are what papers report, where they give both measures.
    """
    figure = Figure(figsize=(12, 5), dpi=110)
    left, right = figure.subplots(1, 2, sharey=True)
    plain = {label for family, label in table.plain.items() if family != DENSE}
    legend_rows = ceil((2 + len(plain)) / 6)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.92, bottom=0.13 + 0.05 * legend_rows, wspace=0.04)
    for axes, cost in zip((left, right), COSTS, strict=True):
        _draw(axes, table.rows, cost, plain)
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


def _draw(axes: Axes, rows: Sequence[Row], cost: str, plain: Collection[str]) -> None:
    _draw_front(axes, rows, cost)
    for row in rows:
        if row.dense:
            axes.axhline(100 * row.measured["accuracy"].mean, color="black", linestyle=":", linewidth=1)
            _draw_curve(axes, [row], cost, label="dense", color="black", marker="*", markersize=11)
    for label, look in _styles(rows, plain).items():
        own = [row for row in rows if row.label == label]
        for place, kind in enumerate(sorted({row.budget.kind for row in own}, key=lambda kind: ("bits" in kind, kind))):
            joined = {"linestyle": ":"} if "bits" in kind else {}
            points = [row for row in own if row.budget.kind == kind]
            _draw_curve(axes, points, cost, label=None if place or label not in plain else label, **(look | joined))
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
    """Hollow pentagons: what papers report of the same data set, on networks of their own."""
    points = {name: marks(table.setup.data_name, table.division, name, "accuracy") for name in COSTS}
    if not any(points.values()):
        return
    x, y = [point[0] * _SCALES[cost] for point in points[cost]], [100 * point[1] for point in points[cost]]
    look: dict[str, Any] = {"marker": "p", "markersize": 7, "color": "#808080", "fillstyle": "none", "linestyle": ""}
    axes.plot(x, y, label="reported", zorder=1, **look)


def _styles(rows: Sequence[Row], plain: Collection[str]) -> dict[str, dict[str, Any]]:
    """Curve label -> how it is drawn, families together: variants as their method, but thin and hollow."""
    looks = {row.label: (style(row.family, row.control), row) for row in rows if not row.dense}
    order = sorted(looks, key=lambda label: (looks[label][1].control, looks[label][0].family, label))
    return {label: _drawn(*looks[label], label in plain) for label in order}


def _drawn(look: Style, row: Row, plain: bool) -> dict[str, Any]:
    variant = {} if plain else {"markerfacecolor": "none", "linewidth": 0.8, "markersize": 4.5}
    dashed = {"linestyle": "--"} if row.control else {}
    return {"color": look.colour, "marker": look.mark, **variant, **dashed}
