"""What was counted layer by layer, as Weights & Biases shows it: a table, bars, and histograms of the activity."""

from typing import Any

import numpy as np

from benchmark.records import NeuronSpikes, SpikeAccount
from hardware.energy import energy
from hardware.report import CostReport
from hardware.table import COLUMNS, table_rows

BARS = {
    "energy_share": "share of the energy by layer",
    "memory_bits": "memory by layer, in bits",
    "density": "share of the weights that is left by layer",
}
"""Column of the table of layers -> the title of its chart, longest bar as it comes."""

RATE_BINS = 20
"""Of the histogram of firing rates, from no spike to one in every step."""

HISTOGRAMS = ("operations over time", "firing rates")


SPIKES = ("mismatch", "van_rossum", "earth_mover")
"""What has a bar of each layer of neurons, of :class:`benchmark.records.NeuronSpikes`."""


def spike_charts(account: SpikeAccount) -> dict[str, Any]:
    """Keys and charts of what compression did to spikes: the table ``spikes``, and ``spikes/...``, bars of it."""
    import wandb

    columns = [*NeuronSpikes.model_fields]
    rows = [layer.model_dump() for layer in account.layers]
    table = wandb.Table(columns=[*columns], data=[[row[name] for name in columns] for row in rows])
    bars = {
        f"spikes/{column}": _bar([[row["name"], row[column]] for row in rows], column, f"{column} by layer of neurons")
        for column in SPIKES
    }
    return {"spikes": table, **bars}


def layer_charts(cost: CostReport) -> dict[str, Any]:
    """Keys and charts of what was counted.

    ``layers`` is the table that ``snnbench profile`` shows; ``layers/...`` are bars of it. ``operations over time`` is
    a histogram of the synaptic operations over the time steps, ``firing rates`` one of the neuron layers' spikes per
    neuron and step.
    """
    import wandb

    rows = table_rows(cost, energy(cost))
    table = wandb.Table(columns=list(COLUMNS), data=[list(row.values()) for row in rows])
    return {"layers": table, **_bars(rows[:-1]), **_histograms(cost, rows)}


def _bars(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        f"layers/{column}": _bar([[row["layer"], row[column]] for row in rows], column, title)
        for column, title in BARS.items()
    }


def _bar(cells: list[list[Any]], column: str, title: str) -> Any:
    """Bars of a column, of the layers that have it."""
    import wandb

    known = [cell for cell in cells if cell[1] is not None]
    return wandb.plot.bar(wandb.Table(columns=["layer", column], data=known), "layer", column, title=title)


def _histograms(cost: CostReport, rows: list[dict[str, Any]]) -> dict[str, Any]:
    import wandb

    per_step = np.array(cost.synops_per_step, dtype=np.float64) / cost.samples
    names = {neuron.name for neuron in cost.neurons}
    rates = [row["rate"] for row in rows if row["layer"] in names and row["rate"] is not None]
    shown: dict[str, Any] = {}
    if per_step.any():
        shown[HISTOGRAMS[0]] = wandb.Histogram(np_histogram=(per_step, np.arange(per_step.size + 1)))
    if rates:
        shown[HISTOGRAMS[1]] = wandb.Histogram(np_histogram=np.histogram(rates, RATE_BINS, (0, 1)))
    return shown
