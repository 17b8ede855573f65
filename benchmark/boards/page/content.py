"""What the page shows, as plain dicts and lists; every measure and every name the script uses is made here."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from benchmark.boards.reported import beside
from benchmark.boards.standings import MEASURES, Board, Row, Spread, Table
from benchmark.boards.summary import MethodSummary, summarize
from benchmark.records import RunRecord
from compressors.budget import Budget
from hardware.energy import load_profile
from hardware.report import CostReport, LayerCost

_YAML = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the compiled one is ten times as fast


def content(board: Board) -> dict[str, Any]:
    """Tables, runs and what stands apart. Environments, which many runs share, are listed once."""
    environments: list[dict[str, Any]] = []
    runs = {run_id: _run(board.runs[run_id], environments) for run_id in _shown(board)}
    return {
        "measures": MEASURES,
        "energy": {"profile": board.energy_profile, "uncertainty": load_profile(board.energy_profile).uncertainty},
        "tables": [_table(table) for table in board.tables],
        "runs": runs,
        "environments": environments,
        "apart": [vars(item) for item in board.apart],
    }


def command(record: RunRecord) -> str:
    """Shell lines that ask a record's question again, into a results folder of their own."""
    asked = record.question
    suite = {
        "name": record.suite,
        "data": [asked.data.model_dump(mode="json")],
        "models": [asked.model.model_dump(mode="json")],
        "compressors": [asked.compressor.model_dump(mode="json")],
        **{kind: [_plain(budget) for budget in budgets] for kind, budgets in asked.budgets().items() if budgets},
        "seeds": [asked.seed],
        "calibration_samples": asked.calibration_samples,
        "training": asked.training.model_dump(mode="json"),
        **asked.model_dump(mode="json", include={"aftercare", "finetuning"}, exclude_defaults=True),
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
        "summaries": [_summary(summary) for summary in summarize(table)],
        "reported": published,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "method": row.label,
        "dense": row.dense,
        "control": row.control,
        "budget": row.budget.short,
        "kind": row.budget.kind,
        "calibration": row.calibration_samples,
        "runs": [[seed, run_id] for seed, run_id in row.runs.items()],
        "measured": {name: _spread(spread) for name, spread in row.measured.items()},
        "fronts": sorted(row.fronts),
    }


def _spread(spread: Spread) -> list[float | None]:
    return [_short(spread.mean), None if spread.std is None else _short(spread.std)]


def _short(value: float) -> float:
    """Eight digits are more than anyone reads, and less than half the bytes."""
    return float(f"{value:.8g}")


def _summary(summary: MethodSummary) -> dict[str, Any]:
    return {
        "method": summary.method,
        "control": summary.control,
        "smallest": {
            cost: {"budget": row.budget.short, "cost": _short(row.measured[cost].mean)}
            for cost, row in summary.smallest.items()
        },
        "area": {cost: _short(value) for cost, value in summary.area.items()},
    }


def _run(record: RunRecord, environments: list[dict[str, Any]]) -> dict[str, Any]:
    if record.environment not in environments:
        environments.append(record.environment)
    report = CostReport.from_dict(record.cost)
    return {
        "label": record.question.label,
        "suite": record.suite,
        "facts": _facts(record),
        "environment": environments.index(record.environment),
        "layers": [_layer(layer, report.samples, _loss(record)) for layer in report.layers],
        "command": command(record),
    }


def _facts(record: RunRecord) -> dict[str, Any]:
    assert record.dense is not None  # what stands in a table has it
    return {
        "accuracy": record.metrics["accuracy"],
        "seed": record.question.seed,
        "calibration samples": record.question.calibration_samples,
        "compressor version": record.version,
        "data fingerprint": str(record.data["fingerprint"]),
        "dense network": record.dense.id,
        "dense checkpoint (SHA-256)": record.dense.sha256,
        **{f"seconds to {phase}": round(seconds, 3) for phase, seconds in record.seconds.items()},
        "made": record.created,
    }


def _loss(record: RunRecord) -> Mapping[str, float | None]:
    return {layer["name"]: layer["loss"] for layer in record.compression["layers"]}


def _layer(layer: LayerCost, samples: int, loss: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "inputs": layer.inputs,
        "weights": layer.weights,
        "nonzero": layer.nonzero,
        "bits": layer.bits,
        "ac": _short(layer.ac / samples),
        "mac": _short(layer.mac / samples),
        "format": layer.best_format if layer.memory_bits else "",
        "stored_bits": layer.stored_bits if layer.memory_bits else layer.bias_bits,
        "loss": loss.get(layer.name),
    }
