"""What the page shows, as plain dicts and lists; every measure, name and number for people is worded here."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from benchmark.boards.columns import SUMMARY_HEADS, named, summary_cells, with_spread
from benchmark.boards.repeatable import origin
from benchmark.boards.reported import as_points, beside
from benchmark.boards.standings import Board, Row, Table
from benchmark.questions.reading import FLOAT
from benchmark.records import Answer, RunRecord
from benchmark.wording import count, joules, percent, points, rounded, seconds, size
from compressors.budget import Budget
from hardware.energy import load_profile
from hardware.report import LayerCost


class _YAML(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the compiled one is ten times as fast
    """Quotes every text that a suite would be read otherwise with."""


_YAML.add_implicit_resolver(*FLOAT)


@dataclass(frozen=True)
class _Measure:
    """How the page shows one of :data:`benchmark.boards.standings.MEASURES`.

    Args:
        label: heading of its column.
        form: words a value.
        axis: title of its axis in the plot; empty where it is none.
        scale: what turns a value into the unit of the axis: plotly shows plain numbers.
    """

    label: str
    form: Callable[[float], str]
    axis: str = ""
    scale: float = 1.0


_COSTS = {
    "synops": _Measure("synaptic operations", count, "synaptic operations per sample"),
    "synops_ac": _Measure("AC", count, "accumulates per sample"),
    "synops_mac": _Measure("MAC", count, "multiply-accumulates per sample"),
    "stored_bits": _Measure("memory", size, "memory as stored [KiB]", 2**-13),
    "weight_bits": _Measure("weights only", size, "nonzero weights [KiB]", 2**-13),
    "total_bits": _Measure("memory and state", size, "memory and neuron state [KiB]", 2**-13),
    "energy_j": _Measure("energy (estimate)", joules, "energy per sample, estimate [µJ]", 1e6),
    "density": _Measure("density", rounded, "density"),
    "compression_seconds": _Measure("time", seconds, "time to compress [s]"),
    "peak_memory_bytes": _Measure(
        "peak of the process", lambda value: size(8 * value), "peak memory of the process [MiB]", 2**-20
    ),
}
_GAINS = {
    "accuracy": _Measure("accuracy [%]", percent, "accuracy [%]", 100),
    "difference": _Measure("Δ dense [points]", points, "difference to dense [points]", 100),
}
_MEASURES = _GAINS | _COSTS | {"bits": _Measure("bits", rounded)}

_LAYER_BARS = {"AC": "ac", "MAC": "mac", "memory": "stored_bits"}
"""Columns of a run's layers that have a bar."""


def content(board: Board) -> dict[str, Any]:
    """Tables, runs and what stands apart. Environments, which many runs share, are listed once."""
    shown = _shown(board)
    environments = {repr(board.runs[run_id].environment): board.runs[run_id].environment for run_id in shown}
    places = {text: place for place, text in enumerate(environments)}
    runs = {run_id: _run(board.runs[run_id], places) for run_id in shown}
    return {
        "measures": {
            name: {"label": measure.label, "axis": measure.axis, "scale": measure.scale}
            for name, measure in _MEASURES.items()
        },
        "costs": [*_COSTS],
        "gains": [*_GAINS],
        "energy": {"profile": board.energy_profile, "uncertainty": load_profile(board.energy_profile).uncertainty},
        "tables": [_table(table) for table in board.tables],
        "runs": runs,
        "environments": [*environments.values()],
        "apart": [vars(item) for item in board.apart],
    }


def command(record: RunRecord) -> str:
    """Shell lines that ask a record's question again, into a results folder of their own."""
    question = record.question
    suite = {
        "name": record.suite,
        "data": [question.data.model_dump(mode="json")],
        "models": [question.model.model_dump(mode="json")],
        "compressors": [question.compressor.model_dump(mode="json")],
        **{kind: [_plain(budget) for budget in budgets] for kind, budgets in question.budgets().items() if budgets},
        "seeds": [question.seed],
        "calibration_samples": question.calibration_samples,
        "training": question.training.model_dump(mode="json"),
        **question.model_dump(mode="json", include={"aftercare", "finetuning"}, exclude_defaults=True),
    }
    text = "".join(_yaml(json.dumps({key: value})) for key, value in suite.items())
    name = f"run-{record.id}"
    return f"cat > {name}.yaml <<'{name}'\n{text}{name}\nsnnbench run {name}.yaml --results {name}"


@lru_cache(maxsize=1024)
def _yaml(text: str) -> str:
    """JSON as YAML; thousands of runs share what little there is."""
    return yaml.dump(json.loads(text), Dumper=_YAML, sort_keys=False, width=100)


def _shown(board: Board) -> list[str]:
    return sorted({run_id for table in board.tables for row in table.rows for run_id in row.runs.values()})


def _plain(budget: Budget | float) -> Any:
    return dict(budget.limits) if isinstance(budget, Budget) else budget


def _table(table: Table) -> dict[str, Any]:
    setup = table.setup
    published = beside(setup.data_name, table.division)
    return {
        **vars(setup),
        "title": table.title,
        "key": table.key,
        "division": table.division,
        "rows": [{**_row(row), "place": place} for place, row in enumerate(table.rows)],
        "summary": {"heads": SUMMARY_HEADS, "rows": summary_cells(table)},
        "reported": published,
        "marks": as_points(setup.data_name, table.division),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "method": row.label,
        "name": named(row.label, row.control, row.reported),
        "dense": row.dense,
        "control": row.control,
        "budget": row.budget.short,
        "kind": row.budget.kind,
        "calibration": row.calibration_samples,
        "runs": [[seed, run_id] for seed, run_id in row.runs.items()],
        "measured": {name: _measured(row, name) for name in row.measured},
        "fronts": sorted(row.fronts),
    }


def _measured(row: Row, name: str) -> tuple[float, float, str]:
    """Mean, standard deviation (0 for a single seed) and the two in words; of what is no gain, the mean alone."""
    spread, form = row.measured[name], _MEASURES[name].form
    words = with_spread(spread, form) if name in _GAINS else form(spread.mean)
    return _short(spread.mean), _short(spread.std or 0.0), words


def _short(value: float) -> float:
    """Eight digits are more than anyone reads, and less than half the bytes."""
    return float(f"{value:.8g}")


def _run(record: RunRecord, places: Mapping[str, int]) -> dict[str, Any]:
    """A run; ``places`` are those of the environments in their list, by their text."""
    answer = record.answer
    return {
        "label": record.question.label,
        "suite": record.suite,
        "facts": _facts(record, answer),
        "environment": places[repr(record.environment)],
        "layers": _layers(answer),
        "command": command(record),
    }


def _facts(record: RunRecord, answer: Answer) -> dict[str, Any]:
    return {
        "accuracy": answer.metrics.accuracy,
        "seed": record.question.seed,
        "calibration samples": record.question.calibration_samples,
        "compressor version": record.version,
        "data fingerprint": str(record.data["fingerprint"]),
        "dense network": answer.dense.id,
        **origin(record),
        "dense checkpoint (SHA-256)": answer.dense.sha256,
        **{f"seconds to {phase}": round(seconds, 3) for phase, seconds in record.seconds.items()},
        "made": record.created,
    }


def _layers(answer: Answer) -> dict[str, Any]:
    """A table of the layers, in words, and how long the bars of some columns are: percent of the longest."""
    loss = {layer.name: layer.loss for layer in answer.compression.layers}
    layers = answer.cost.layers
    costs = [_layer_costs(layer, answer.cost.samples) for layer in layers]
    cells = [_layer_cells(layer, cost, loss.get(layer.name)) for layer, cost in zip(layers, costs, strict=True)]
    return {
        "heads": [*(cells[0] if cells else ())],
        "rows": [[*row.values()] for row in cells],
        "bars": {head: _bars([cost[name] for cost in costs]) for head, name in _LAYER_BARS.items()},
    }


def _layer_costs(layer: LayerCost, samples: int) -> dict[str, float]:
    stored = layer.stored_bits if layer.memory_bits else layer.bias_bits
    return {"ac": layer.ac / samples, "mac": layer.mac / samples, "stored_bits": stored}


def _layer_cells(layer: LayerCost, cost: Mapping[str, float], loss: float | None) -> dict[str, str]:
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "input": layer.inputs,
        "weights": count(layer.weights),
        "kept": f"{percent(layer.nonzero / max(1, layer.weights))} %",
        "bits": str(layer.bits),
        "AC": count(cost["ac"]),
        "MAC": count(cost["mac"]),
        "memory": size(cost["stored_bits"]),
        "format": layer.best_format if layer.memory_bits else "",
        "loss estimate": "–" if loss is None else rounded(loss),
    }


def _bars(values: Sequence[float]) -> list[int]:
    longest = max(values, default=0)
    return [round(100 * value / longest) if longest else 0 for value in values]
