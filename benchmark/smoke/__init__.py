"""The suite ``smoke``, every compressor once, on a shipped dense network, against the figures recorded with it.

Training ends in other weights on another processor, so the dense network is shipped and not trained. What remains of
the machine is the order in which floats are added: it can move single spikes and, where weights are about equally
good, single weights. Therefore the number of weights kept is compared exactly everywhere, SynOps and stored bits
exactly where torch and its instruction set are those of the recording, and within ``SLACK`` elsewhere. Of what is
trained from scratch nothing but the weights kept is compared elsewhere.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmark.catalog import suite_path
from benchmark.files import write_atomically
from benchmark.questions import build
from benchmark.questions.suite import Question, Suite, load_suite
from benchmark.records import RecordStore, RunRecord
from benchmark.runs.dense import dense_network, dense_path
from benchmark.runs.executors.local import Display, LocalExecutor
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import silent
from benchmark.wording import percent

SHIPPED = Path(__file__).parent
NETWORK, BOUNDS = SHIPPED / "dense.safetensors", SHIPPED / "bounds.json"
TOLERANCE = 0.02  # of accuracy: 8 of the 397 test samples
SLACK = 0.02  # relative, of SynOps and stored bits on another instruction set or build of torch
EXACT, MACHINE_BOUND = ("weights_kept",), ("synops", "stored_bits")

Figures = dict[str, float]


def suite() -> Suite:
    """The shipped suite `smoke`: every compressor that comes with snnbench."""
    return load_suite(suite_path("smoke"))


def questions() -> list[Question]:
    """All runs."""
    return build.questions_of(suite())


def run(results: Path, display: Display) -> list[RunRecord]:
    """Run the suite with the shipped network, or train one if none is shipped, on one thread and in a fresh cache."""
    cache = results / "cache"
    setting = Setting(cache, track=silent)
    data, runs = OpenedData(setting), questions()
    first = data.run(runs[0])
    network = dense_path(cache, first.dense_id)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if NETWORK.is_file():
            write_atomically(network, NETWORK.read_bytes())
        dense_network(first, data, cache)
        LocalExecutor(RecordStore(results), setting, data, display)(suite().name, runs)
    if not NETWORK.is_file():
        shutil.copy(network, NETWORK)
    return list(RecordStore(results))


def arithmetic() -> dict[str, str]:
    """What decides in which order floats are added."""
    return {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability()}


def figures(record: RunRecord) -> Figures:
    """What is compared of a finished run."""
    answer = record.answer
    return {
        "accuracy": answer.metrics.accuracy,
        "weights_kept": sum(layer.kept for layer in answer.compression.layers),
        "synops": answer.cost.synops,
        "stored_bits": answer.cost.stored_bits,
    }


def named(question: Question) -> str:
    """What a run's figures are kept under: the compressor, where it started, and the width where it has quantised."""
    method = question.compressor.name + (" from scratch" if question.from_scratch else "")
    return method if question.budget.bits is None else f"{method} to {question.budget.bits} bits"


def as_bounds(records: list[RunRecord]) -> dict[str, Any]:
    """What is kept of a recording."""
    methods = {named(record.question): figures(record) for record in records}
    return {"arithmetic": arithmetic(), "methods": dict(sorted(methods.items()))}


def differences(records: list[RunRecord], bounds: Mapping[str, Any]) -> Iterator[str]:
    """One line for everything that is not as recorded."""
    alike = bounds["arithmetic"] == arithmetic()
    for record in records:
        name = named(record.question)
        if record.status == "failed":
            yield f"{name}: failed with {record.error}"
        elif name not in bounds["methods"]:
            yield f"{name}: no figures recorded; once they are right, run python -m benchmark.smoke --record"
        else:
            measured, recorded = figures(record), bounds["methods"][name]
            if record.question.from_scratch and not alike:
                recorded = measured | {figure: recorded[figure] for figure in EXACT}
            for line in compared(measured, recorded, 0.0 if alike else SLACK):
                yield f"{name}: {line}"
    for name in bounds["methods"].keys() - {named(record.question) for record in records}:
        yield f"{name}: recorded, and not registered any more"


def compared(measured: Figures, recorded: Figures, slack: float) -> Iterator[str]:
    """One line for every figure that is not as recorded; ``slack`` is that of the counts which depend on floats."""
    lost = recorded["accuracy"] - measured["accuracy"]
    if lost > TOLERANCE:
        below = f"{percent(lost)} points below the {percent(recorded['accuracy'])} % recorded"
        yield f"accuracy is {percent(measured['accuracy'])} %, {below}"
    for figure in (*EXACT, *MACHINE_BOUND):
        allowed = recorded[figure] * slack if figure in MACHINE_BOUND else 0
        if abs(measured[figure] - recorded[figure]) > allowed:
            within = f" (within {slack:.0%})" if allowed else ""
            change = (measured[figure] - recorded[figure]) / recorded[figure]
            yield f"{figure} is {measured[figure]:,.0f} instead of {recorded[figure]:,.0f}{within}, {change:+.3%}"


def load_bounds() -> dict[str, Any]:
    """The recorded figures."""
    return json.loads(BOUNDS.read_text(encoding="utf-8"))
