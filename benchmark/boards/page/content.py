"""What the page shows, as plain dicts and lists; every measure, name and number for people is worded here."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.boards.claims.pages import UNJUDGED
from benchmark.boards.claims.verdicts import Judged
from benchmark.boards.columns import EARLIER_HEADS, SUMMARY_HEADS, earlier_cells, named, summary_cells, with_spread
from benchmark.boards.leaders import Leader, by_network, in_order, leaders
from benchmark.boards.noise import of_test_set, tied
from benchmark.boards.page.runs import run, short
from benchmark.boards.page.usage import usage
from benchmark.boards.reported import as_points, beside
from benchmark.boards.standings import DENSE, Board, Row, Table
from benchmark.boards.styles import style
from benchmark.boards.summary import summarize
from benchmark.questions.suite import digest
from benchmark.wording import count, joules, percent, points, rounded, seconds, size
from compressors.budget import Budget
from compressors.registry import COMPRESSORS, OWN
from hardware.energy import load_profile


@dataclass(frozen=True)
class _Measure:
    """How the page shows one of :data:`benchmark.boards.measures.MEASURES`.

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
_SPIKES = {
    "spike_mismatch": _Measure("spikes that differ [%]", percent),
    "van_rossum": _Measure("van Rossum", rounded),
    "earth_mover": _Measure("rates, earth mover", rounded),
    "dead_neurons": _Measure("dead neurons [%]", percent),
    "saturated_neurons": _Measure("saturated neurons [%]", percent),
}
_MEASURES = _GAINS | _COSTS | {"bits": _Measure("bits", rounded)} | _SPIKES


def content(board: Board, claims: Sequence[Judged] = ()) -> dict[str, Any]:
    """Networks, tables, methods, runs and what stands apart. Environments, which many runs share, are listed once."""
    shown = _shown(board)
    environments = {repr(board.runs[run_id].environment): board.runs[run_id].environment for run_id in shown}
    places = {text: place for place, text in enumerate(environments)}
    dense = _dense_runs(board.tables)
    subjects = {run: table.subject for table in board.tables for row in table.rows for run in row.runs.values()}
    runs = {
        run_id: {"subject": subjects[run_id], "dense": dense.get(run_id)}
        | run(board.runs[run_id], places, board.energy_profile)
        for run_id in shown
    }
    return {
        "measures": {
            name: {"label": measure.label, "axis": measure.axis, "scale": measure.scale}
            for name, measure in _MEASURES.items()
        },
        "costs": [*_COSTS],
        "gains": [*_GAINS],
        "energy": {"profile": board.energy_profile, "uncertainty": load_profile(board.energy_profile).uncertainty},
        "networks": _networks(board.tables),
        "tables": [_table(table) for table in board.tables],
        "methods": _methods(board, claims),
        "runs": runs,
        "environments": [*environments.values()],
        "apart": [vars(item) for item in board.apart],
    }


def _networks(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Each data set and network with its tables, post-training ones first, and who leads the first of them."""
    return [_network(_network_key(own[0]), own) for own in by_network(tables)]


def _network_key(table: Table) -> str:
    return digest([*vars(table.setup).values()])[:6]


def _network(key: str, tables: Sequence[Table]) -> dict[str, Any]:
    first = tables[0]
    dense = next((row for row in first.rows if row.dense), None)
    setup = first.setup
    return {
        "key": key,
        "title": first.subject,
        "data": first.data or setup.data,
        "network": f"{first.network or setup.model} · T = {setup.timesteps}",
        "tables": [table.key for table in tables],
        "dense": None if dense is None else {name: _measured(dense, name)[2] for name in ("accuracy", "stored_bits")},
        "samples": first.rows[0].samples,
        "division": _division(first),
        "leaders": [_leader(leader) for leader in leaders(first)],
    }


def _division(table: Table) -> str:
    return f"{table.division}, {table.condition}" if table.condition else table.division


def _leader(leader: Leader) -> dict[str, Any]:
    row = leader.row
    if row is None:
        return {"question": leader.question, "row": None}
    measures = [name for name in ("accuracy", "difference", "stored_bits", "synops") if name in row.measured]
    shown = {name: _measured(row, name)[2] for name in measures}
    return {
        "question": leader.question,
        "row": {"name": named(row.label, row.control), "family": row.family, "budget": row.budget.short, **shown},
        "ties": _ties(leader),
    }


def _ties(leader: Leader) -> str:
    """The methods that noise does not tell from the leader, with their variants counted, and its own variants."""
    variants: dict[str, int] = defaultdict(int)
    for tie in leader.ties:
        variants[tie.partition("[")[0]] += 1
    own = variants.pop(leader.row.family, 0) if leader.row is not None else 0
    words = [name if n == 1 else f"{name} ({n} variants)" for name, n in variants.items()]
    return ", ".join([*words, *([f"{own} more of its own" if words else f"{own} of its own variants"] if own else [])])


def _dense_runs(tables: Iterable[Table]) -> dict[str, str]:
    """Run id -> that of the dense network's own run of the same table and seed."""
    found: dict[str, str] = {}
    for table in tables:
        dense = {seed: run for row in table.rows if row.dense for seed, run in row.runs.items()}
        for row in table.rows:
            found |= {run: dense[seed] for seed, run in row.runs.items() if not row.dense and seed in dense}
    return found


def _methods(board: Board, claims: Sequence[Judged]) -> list[dict[str, Any]]:
    """Each method with what it is, its options as its plain runs had them, where it stands, and its claims."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for table in board.tables:
        for row in table.rows:
            rows[row.family].append(row)
    standing = _standing(board.tables)
    said: dict[str, list[dict[str, str]]] = defaultdict(list)
    for found in claims:
        said[found.claim.method].append(
            {"id": found.claim.id, "says": found.claim.says, "verdict": found.verdict or UNJUDGED}
        )
    return [
        _method(name, own, board, standing[name]) | {"claims": said[name]}
        for name, own in sorted(rows.items())
        if name != DENSE
    ]


def _method(name: str, rows: Sequence[Row], board: Board, standing: list[dict[str, Any]]) -> dict[str, Any]:
    look = style(name, rows[0].control)
    plain = [row for row in rows if row.label == name] or rows
    newest = max((board.runs[run] for row in plain for run in row.runs.values()), key=lambda record: record.created)
    entry = COMPRESSORS.get(name)
    return {
        "name": name,
        "class": "" if entry is None else entry.target.rpartition(":")[2],
        "summary": "of another package" if entry is None else entry.summary,
        "family": look.family,
        "colour": look.colour,
        "symbol": look.symbol,
        "control": rows[0].control,
        "version": newest.version,
        "options": {option: _plainly(value) for option, value in (newest.options or {}).items()},
        "variants": sorted({row.label for row in rows}),
        "usage": usage(name, entry.load()) if entry is not None and entry.origin == OWN else {},
        "standing": standing,
    }


def _plainly(value: Any) -> str:
    """An option's value, in words."""
    if isinstance(value, list):
        return ", ".join(map(_plainly, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _standing(tables: Iterable[Table]) -> dict[str, list[dict[str, Any]]]:
    """Method -> a line for each table and variant: its place by mean accuracy over operations, and what it saves."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for table in sorted(tables, key=in_order):
        summaries, families = summarize(table), {row.label: row.family for row in table.rows}
        for place, (summary, cells) in enumerate(zip(summaries, summary_cells(table), strict=True), start=1):
            line = [f"{place} of {len(summaries)}", *cells]
            found[families[summary.method]].append({"table": table.key, "title": table.title, "cells": line})
    return found


def _shown(board: Board) -> list[str]:
    return sorted({run_id for table in board.tables for row in table.rows for run_id in row.runs.values()})


def _table(table: Table) -> dict[str, Any]:
    setup = table.setup
    published = beside(setup.data_name, table.division)
    plain, places = table.plain, _places(table.rows)
    return {
        **vars(setup),
        "title": table.title,
        "key": table.key,
        "network": _network_key(table),
        "division": _division(table),
        "rows": [
            {**_row(row), "order": order, "variant": row.label != plain[row.family], "place": places.get(order, "")}
            for order, row in enumerate(table.rows)
        ],
        "summary": {"heads": SUMMARY_HEADS, "rows": summary_cells(table)},
        "earlier": {"heads": EARLIER_HEADS, "rows": earlier_cells(table)} if table.earlier else None,
        "reported": published,
        "marks": as_points(setup.data_name, table.division),
    }


def _places(rows: Sequence[Row]) -> dict[int, str]:
    """Place of a row -> its rank by accuracy among those of its budget; ``1 =`` where noise does not tell."""
    places: dict[int, str] = {}
    budgets: dict[Budget, list[int]] = defaultdict(list)
    for order, row in enumerate(rows):
        if not row.dense:
            budgets[row.budget].append(order)
    for own in budgets.values():
        ranked = sorted(own, key=lambda order: -rows[order].measured["accuracy"].mean)
        best = [order for order in ranked if tied(rows[order], rows[ranked[0]])]
        places |= {order: str(rank) for rank, order in enumerate(ranked, start=1)}
        places |= dict.fromkeys(best, "1 =" if len(best) > 1 else "1")
    return places


def _row(row: Row) -> dict[str, Any]:
    return {
        "method": row.label,
        "family": row.family,
        "name": named(row.label, row.control, row.reported),
        "dense": row.dense,
        "control": row.control,
        "budget": row.budget.short,
        "kind": row.budget.kind,
        "calibration": row.calibration_samples,
        "runs": [[seed, run_id] for seed, run_id in row.runs.items()],
        "measured": {name: _measured(row, name) for name in row.measured},
        "interval": _interval(row),
        "fronts": sorted(row.fronts),
    }


def _interval(row: Row) -> tuple[float, str]:
    """Half of the accuracy's 95 % interval over the choice of test samples, and in words."""
    half = of_test_set(row.measured["accuracy"].mean, row.samples)
    return short(half), f"± {percent(half)}"


def _measured(row: Row, name: str) -> tuple[float, float, str]:
    """Mean, standard deviation (0 for a single seed) and the two in words; of what is no gain, the mean alone."""
    spread, form = row.measured[name], _MEASURES[name].form
    words = with_spread(spread, form) if name in _GAINS else form(spread.mean)
    return short(spread.mean), short(spread.std or 0.0), words
