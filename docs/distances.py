"""The picture on Mimic's page: how far each layer's spikes are from the dense network's, before and after it learns.

Drawn from the committed records: ``python docs/distances.py``.
"""

from pathlib import Path
from statistics import mean

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.records import RecordStore, RunRecord

PICTURE = Path(__file__).with_name("pictures") / "mimic.svg"
METHOD, DATA, MODEL, SAMPLES, DENSITY = "mimic", "nmnist", "conv", 100, 0.01
COLOURS = {"before": "#9aa0a6", "after": "#0072b2"}
LABELS = {"before": "after the cut", "after": "after it has learnt"}


def last_rounds(results: Path) -> list[dict[str, dict[str, list[float]]]]:
    """What the last round of each seed came to, by the newest version: distances on held-out samples."""
    meant = [record for record in RecordStore(results) if _is_meant(record)]
    newest = max(record.version for record in meant)
    records = sorted((record for record in meant if record.version == newest), key=lambda one: one.question.seed)
    return [record.answer.compression.stages[-1] for record in records]


def _is_meant(record: RunRecord) -> bool:
    question = record.question
    names = (question.compressor.label, question.data.name, question.model.name, question.calibration_samples)
    asked = question.budget.density == DENSITY and question.budget.bits is None
    return names == (METHOD, DATA, MODEL, SAMPLES) and asked and record.status == "done"


def draw(rounds: list[dict[str, dict[str, list[float]]]], picture: Path) -> None:
    """A pair of bars a layer, the mean over seeds, with a mark for each seed; the scores' divergence apart."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    layers = len(rounds[0]["before"]["spikes"])
    for place, name in enumerate(COLOURS):
        spikes = [[found[name]["spikes"][layer] for found in rounds] for layer in range(layers)]
        _bars(left, place, spikes, name)
        _bars(right, place, [[found[name]["output"] for found in rounds]], name)
    left.set_xticks(range(layers), [f"neurons {layer + 1}" for layer in range(layers)])
    left.set(ylabel="van Rossum distance,\nrelative to the dense spikes", title="Spikes of each layer")
    right.set_xticks([0], ["scores"])
    right.set(ylabel="divergence (nats)", title="What it answers")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, metadata={"Date": None})


def _bars(axes: Axes, place: int, values: list[list[float]], name: str) -> None:
    width = 0.38
    for number, seeds in enumerate(values):
        x = number + (place - 0.5) * width
        label = LABELS[name] if number == 0 else None
        axes.bar(x, mean(seeds), width * 0.95, color=COLOURS[name], label=label)
        axes.plot([x] * len(seeds), seeds, "o", color="#202124", ms=3)


@click.command()
@click.option("--results", type=click.Path(path_type=Path, exists=True), default=Path("results"), show_default=True)
def main(results: Path) -> None:
    """Draw the picture."""
    draw(last_rounds(results), PICTURE)


if __name__ == "__main__":
    main()
