"""The cost report for people: one row per layer, totals, and the same as CSV and as a picture."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from hardware.energy import STATIC, EnergyReport
from hardware.report import CostReport, LayerCost, NeuronCost, OtherCost
from hardware.units import count, joules

Row = dict[str, Any]

COLUMNS = {
    "layer": "qualified module name",
    "kind": "operation or neuron class",
    "shape": "shape of the weight, or number of neurons",
    "density": "nonzero weights / weights",
    "bits": "bits per weight, or per state variable",
    "inputs": "values received: silent, spikes, ternary, graded, scaled, real",
    "rate": "events / entries received, or spikes / (neurons x steps)",
    "ac": "accumulates per sample: (event, nonzero weight) pairs of spike inputs",
    "mac": "multiply-accumulates per sample: the same pairs of real inputs",
    "dense": "pairs per sample if each entry were an event and no weight zero",
    "operations": "neuron updates, pooling pairs, additions or normalised entries per sample",
    "format": "memory format with the fewest bits",
    "memory_bits": "weights in that format with index, scales and biases, or neuron state",
    "energy_j": "joules per sample under the profile",
    "energy_share": "share of the energy of the whole network",
}
"""Columns of the table and what they mean."""

DISPENSABLE = ("operations", "format", "dense", "inputs", "energy_j", "shape", "bits", "rate", "density", "kind", "mac")
"""Columns that a narrow terminal goes without, the first of them first; CSV and JSON have all of them."""
WIDE = 160
GAP = 2
"""Characters between two columns of a terminal's table."""


def columns_that_fit(widths: Mapping[str, int], dispensable: Sequence[str], room: int, gap: int = GAP) -> list[str]:
    """The columns of a terminal's table without the first of the dispensable ones, so that the others are whole.

    Args:
        widths: column -> characters of its longest cell, heading included.
        dispensable: columns that can be left out, the first of them first.
        room: characters of a line.
        gap: characters between two columns.
    """
    kept = list(widths)
    for name in dispensable:
        if sum(widths[column] for column in kept) + gap * (len(kept) - 1) <= room:
            break
        if name in widths:
            kept.remove(name)
    return kept


def table_rows(report: CostReport, energy: EnergyReport) -> list[Row]:
    """Return one row per layer, neuron layer and other operation, and the totals as the last row.

    Args:
        report: what was counted.
        energy: the same report priced.
    """
    joules = energy.joules_by("layer")
    whole = energy.joules
    rows = [
        *(_layer_row(layer, report.samples) for layer in report.layers),
        *(_neuron_row(neuron, report.samples) for neuron in report.neurons),
        *(_other_row(other, report.samples) for other in report.others),
        *([{"layer": STATIC, "kind": "power"}] if STATIC in joules else []),
        _totals_row(report),
    ]
    seen: set[str] = set()
    for row in rows[:-1]:
        # Rows of one module (its product and its additions, say) share one energy entry: the first shows it.
        row["energy_j"] = 0.0 if row["layer"] in seen else joules.get(row["layer"], 0.0)
        seen.add(row["layer"])
    rows[-1]["energy_j"] = whole
    return [
        {column: row.get(column) for column in COLUMNS} | {"energy_share": row["energy_j"] / whole if whole else 0.0}
        for row in rows
    ]


def to_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(inert, rows))
    return text.getvalue()


def inert(row: Row) -> Row:
    """A row of CSV in which no text begins as a formula of a spreadsheet does; an apostrophe marks it as text."""
    begins = ("=", "+", "-", "@", "\t", "\r")
    return {
        name: f"'{cell}" if isinstance(cell, str) and cell.startswith(begins) else cell for name, cell in row.items()
    }


def to_table(report: CostReport, energy: EnergyReport, width: int = WIDE) -> Table:
    """Return the rows as a table for a terminal of ``width`` characters: the columns that have room, each whole."""
    table = Table(
        title=f"{report.samples} samples, {report.timesteps} steps; operations per sample, memory in bits",
        caption=_note(energy),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    rows = table_rows(report, energy)
    cells = {column: [_text(column, row[column]) for row in rows] for column in COLUMNS}
    longest = {column: max(map(cell_len, [_heading(column), *texts])) for column, texts in cells.items()}
    shown = columns_that_fit(longest, DISPENSABLE, width)
    for column in shown:
        words = column in ("layer", "kind", "inputs", "format")
        table.add_column(
            _heading(column), justify="left" if words else "right", no_wrap=True, min_width=longest[column]
        )
    for place, row in enumerate(rows):
        table.add_row(*(escape(cells[column][place]) for column in shown), end_section=row is rows[-2])
    return table


def _heading(column: str) -> str:
    return column.removesuffix("_bits").removesuffix("_share").replace("_", " ")


def _note(energy: EnergyReport) -> str:
    """What the energy is worth, in a line or two; the whole of it is in the profile, in JSON and on the page."""
    low, high = energy.joules_range
    span = "" if low == high else f", {joules(low)} to {joules(high)} by its sources"
    dynamic = f", dynamic only: {energy.dynamic_only}" if energy.dynamic_only else ""
    first = energy.uncertainty.partition(". ")[0].rstrip(".")
    worth = f"{joules(energy.joules)} per sample under {energy.profile} ({energy.status} constants{span}){dynamic}"
    return f"{worth}. {first}."


def draw(report: CostReport, energy: EnergyReport, path: Path) -> None:
    """Save bars per layer: synaptic operations per sample, stored bits, and energy per sample.

    Args:
        report: what was counted.
        energy: the same report priced.
        path: picture file; its suffix gives the format.
    """
    rows = [row for row in table_rows(report, energy)[:-1] if row["ac"] or row["mac"] or row["memory_bits"]]
    names = [f"{row['layer']} ({row['kind']})" for row in rows]
    operations = [(row["ac"] or 0) + (row["mac"] or 0) for row in rows]
    panels: list[tuple[str, Sequence[float], Callable[[float], str]]] = [
        ("synaptic operations", operations, count),
        ("memory (bits)", [row["memory_bits"] or 0 for row in rows], count),
        (f"energy, {energy.profile}", [row["energy_j"] for row in rows], joules),
    ]
    figure = Figure(figsize=(12, 1.5 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (title, values, form) in zip(axes, panels, strict=True):
        axis.barh(range(len(rows)), values)
        axis.xaxis.set_major_formatter(_ticks(form))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_title(title)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), names, parse_math=False)
    axes[0].invert_yaxis()
    figure.suptitle("per sample")
    figure.savefig(path)


def _ticks(form: Callable[[float], str]) -> FuncFormatter:
    return FuncFormatter(lambda value, _: form(value))


def _layer_row(layer: LayerCost, samples: int) -> Row:
    return {
        "layer": layer.name,
        "kind": layer.kind if layer.called else f"{layer.kind} (never called)",
        "shape": "x".join(map(str, layer.weight_shape)),
        "density": layer.density if layer.weights else None,
        "bits": layer.bits if layer.weights else None,
        "inputs": layer.inputs,
        "rate": layer.event_rate,
        "ac": layer.ac / samples,
        "mac": layer.mac / samples,
        "dense": layer.dense / samples,
        "format": layer.best_format,
        "memory_bits": layer.stored_bits,
    }


def _neuron_row(neuron: NeuronCost, samples: int) -> Row:
    variables = neuron.neurons * neuron.states
    return {
        "layer": neuron.name,
        "kind": neuron.kind,
        "shape": str(neuron.neurons),
        "bits": neuron.state_bits // variables if variables else None,
        "rate": neuron.firing_rate,
        "operations": neuron.updates / samples,
        "memory_bits": neuron.state_bits,
    }


def _other_row(other: OtherCost, samples: int) -> Row:
    return {
        "layer": other.name,
        "kind": other.kind,
        "operations": other.operations / samples,
        "memory_bits": other.parameter_bits,
    }


def _totals_row(report: CostReport) -> Row:
    weights = sum(layer.weights for layer in report.layers)
    entries = sum(layer.input_entries for layer in report.layers)
    return {
        "layer": "total",
        "shape": str(weights),
        "density": sum(layer.nonzero for layer in report.layers) / weights if weights else None,
        "rate": sum(layer.input_events for layer in report.layers) / entries if entries else None,
        "ac": report.ac / report.samples,
        "mac": report.mac / report.samples,
        "dense": report.dense / report.samples,
        "memory_bits": report.total_bits,
    }


def _text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column in ("density", "rate", "energy_share"):
        return f"{value:.1%}"
    if column == "energy_j":
        return joules(value)
    return count(value) if isinstance(value, int | float) else str(value)
