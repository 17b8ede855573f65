"""What the page shows of a run: facts, layers, spikes, and the lines that ask its question again."""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import yaml

from benchmark.boards.repeatable import origin
from benchmark.boards.standings import DENSE
from benchmark.questions.reading import FLOAT
from benchmark.records import Answer, NeuronSpikes, RunRecord, SpikeAccount
from benchmark.wording import count, joules, percent, rounded, seconds, size
from compressors.budget import Budget
from hardware.energy import energy
from hardware.report import LayerCost


class _YAML(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the compiled one is ten times as fast
    """Quotes every text that a suite would be read otherwise with."""


_YAML.add_implicit_resolver(*FLOAT)


LAYER_BARS = {
    "kept": "kept",
    "bits": "bits",
    "AC": "ac",
    "MAC": "mac",
    "memory": "stored_bits",
    "energy": "joules",
    "energy share": "share",
}
"""Columns of a run's layers that have a bar."""


def run(record: RunRecord, places: Mapping[str, int], energy_profile: str) -> dict[str, Any]:
    """A run; ``places`` are those of the environments in their list, by their text."""
    answer, question = record.answer, record.question
    return {
        "name": "dense"
        if question.compressor.label == DENSE
        else f"{question.compressor.label} at {question.budget.short}",
        "family": question.compressor.name,
        "condition": question.condition,
        "suite": record.suite,
        "facts": _facts(record, answer),
        "environment": places[repr(record.environment)],
        "layers": _layers(answer, energy_profile),
        "spikes": None if record.spikes is None else _spikes(record.spikes),
        "command": command(record),
    }


def _facts(record: RunRecord, answer: Answer) -> dict[str, Any]:
    cost = answer.cost
    return {
        "accuracy": f"{percent(answer.metrics.accuracy)} % of {cost.samples:,} test samples",
        "loss": rounded(answer.metrics.loss),
        "density": rounded(answer.compression.density),
        "synaptic operations": f"{count(cost.synops / cost.samples)} a sample",
        "memory": size(cost.stored_bits),
        "seed": record.question.seed,
        "calibration samples": record.question.calibration_samples,
        "compressor version": record.version,
        "data fingerprint": str(record.data["fingerprint"]),
        "dense network": answer.dense.id,
        **origin(record),
        "dense checkpoint (SHA-256)": answer.dense.sha256,
        **{f"time to {phase}": seconds(spent) for phase, spent in record.seconds.items()},
        "made": record.created,
    }


def _layers(answer: Answer, energy_profile: str) -> dict[str, Any]:
    """A table of the layers, in words, and the values of those columns that have bars."""
    loss = {layer.name: layer.loss for layer in answer.compression.layers}
    priced = energy(answer.cost, energy_profile)
    layers, joules_of = answer.cost.layers, priced.joules_by("layer")
    densities = answer.densities
    costs = [
        _layer_costs(layer, answer.cost.samples, joules_of.get(layer.name, 0.0), priced.joules)
        | {"kept": densities[layer.name]}
        for layer in layers
    ]
    cells = [_layer_cells(layer, cost, loss.get(layer.name)) for layer, cost in zip(layers, costs, strict=True)]
    return {
        "heads": [*(cells[0] if cells else ())],
        "rows": [[*row.values()] for row in cells],
        "bars": {head: [short(cost[name]) for cost in costs] for head, name in LAYER_BARS.items()},
    }


def _layer_costs(layer: LayerCost, samples: int, joules_per_sample: float, whole: float) -> dict[str, float]:
    stored = layer.stored_bits if layer.memory_bits else layer.bias_bits
    return {
        "bits": layer.bits,
        "ac": layer.ac / samples,
        "mac": layer.mac / samples,
        "stored_bits": stored,
        "joules": joules_per_sample,
        "share": joules_per_sample / whole if whole else 0.0,
    }


def _layer_cells(layer: LayerCost, cost: Mapping[str, float], loss: float | None) -> dict[str, str]:
    return {
        "layer": layer.name,
        "kept": f"{percent(cost['kept'])} %",
        "bits": str(layer.bits),
        "AC": count(cost["ac"]),
        "MAC": count(cost["mac"]),
        "memory": size(cost["stored_bits"]),
        "energy": joules(cost["joules"]),
        "energy share": f"{percent(cost['share'])} %",
        "loss estimate": "–" if loss is None else rounded(loss),
        "kind": layer.kind,
        "input": layer.inputs,
        "weights": count(layer.weights),
        "format": layer.best_format if layer.memory_bits else "",
    }


def _spikes(account: SpikeAccount) -> dict[str, Any]:
    """A table of the layers of neurons, as :func:`_layers` makes one of those with weights."""
    bars = {
        "spikes that differ": [layer.mismatch or 0.0 for layer in account.layers],
        "van Rossum": [layer.van_rossum or 0.0 for layer in account.layers],
        "dead": [layer.dead / max(1, layer.neurons) for layer in account.layers],
    }
    cells = [_spike_cells(layer) for layer in account.layers]
    return {
        "samples": account.samples,
        "heads": [*(cells[0] if cells else ())],
        "rows": [[*row.values()] for row in cells],
        "bars": {head: [short(value) for value in values] for head, values in bars.items()},
    }


def _spike_cells(layer: NeuronSpikes) -> dict[str, str]:
    def worded(value: float | None, form: Callable[[float], str]) -> str:
        return "–" if value is None else form(value)

    lowest, highest = (worded(value, rounded) for value in (layer.lowest_potential, layer.highest_potential))
    return {
        "neurons": layer.name,
        "number": count(layer.neurons),
        "spikes that differ": worded(layer.mismatch, lambda share: f"{percent(share)} %"),
        "van Rossum": worded(layer.van_rossum, rounded),
        "rates, earth mover": rounded(layer.earth_mover),
        "dead": count(layer.dead),
        "saturated": count(layer.saturated),
        "potentials": f"{lowest} to {highest}" if layer.lowest_potential is not None else "–",
    }


def short(value: float) -> float:
    """Eight digits are more than anyone reads, and less than half the bytes."""
    return float(f"{value:.8g}")


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
        **question.model_dump(mode="json", include={"aftercare", "finetuning", "from_scratch"}, exclude_defaults=True),
    }
    text = "".join(_yaml(json.dumps({key: value})) for key, value in suite.items())
    name = f"run-{record.id}"
    return f"cat > {name}.yaml <<'{name}'\n{text}{name}\nsnnbench run {name}.yaml --results {name}"


@lru_cache(maxsize=1024)
def _yaml(text: str) -> str:
    """JSON as YAML; thousands of runs share what little there is."""
    return yaml.dump(json.loads(text), Dumper=_YAML, sort_keys=False, width=100)


def _plain(budget: Budget | float) -> Any:
    return dict(budget.limits) if isinstance(budget, Budget) else budget
