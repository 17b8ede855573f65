"""What ``snnbench compress`` does: one network of a user's own, one compressor, before and after."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmark.files import write_atomically
from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.nir.writing import to_nir, write_nir
from benchmark.networks.weights import checkpoints
from benchmark.questions import build
from benchmark.questions.suite import Named
from benchmark.runs.distributed import DeviceGroup, Devices
from benchmark.runs.run import Measured, compress_and_measure
from benchmark.single_network.compression_map import write_map
from benchmark.single_network.subject import Source, open_subject
from benchmark.wording import percent, points, precise, rounded
from compressors.budget import Budget
from datamodules.storage import cache_folder


def compress_checkpoint(
    source: Source,
    method: dict[str, Any],
    budget: Budget,
    output: Path,
    aftercare: Sequence[str] = (),
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Compress, test before and after, write the network, and beside it a summary and a map of what was done (JSON).

    Args:
        source: the dense network and its data.
        method: the compressor's name and options.
        budget: what the compressed network may cost.
        output: the file of the compressed network: NIR if its name ends so, else safetensors.
        aftercare: see :class:`compressors.base.Compressor`.
        devices: what to work on; by default a single one.

    Returns:
        A JSON-able summary: ``dense`` and ``compressed`` (accuracy and costs), ``compression`` (layer by layer),
        ``output``.

    Raises:
        BudgetError, OptionError, CheckpointError, DataMissing, CalibrationError, LayerError, NIRError: see there.
    """
    subject = open_subject(source)
    description = subject.description()
    if output.suffix == ".nir":  # what NIR cannot say is found before the work, not after it
        to_nir(subject.module().network, subject.data.input_shape)
    named = Named.model_validate(method)
    compressor = build.compressor(named, budget, source.seed, cache_folder() / "eliminations", aftercare)
    control = build.compressor(Named(name="identity"), Budget(), source.seed)
    with DeviceGroup(devices) as group:
        dense = compress_and_measure(subject.module(), subject.data, control, source.seed, group=group)
        compressed = compress_and_measure(subject.module(), subject.data, compressor, source.seed, group=group)
    account = compressed.compression.to_dict()
    summary = {
        "checkpoint": str(source.checkpoint),
        "sha256": subject.checkpoint.sha256,
        "method": named.label,
        "data": description["data"],
        "dense": _figures(dense),
        "compressed": _figures(compressed),
        "compression": account,
        "output": str(output),
    }
    _write(output, compressed.module, subject.data.input_shape, description | {"compressed": account})
    write_map(output.with_suffix(".map.json"), compressed.compression)
    write_atomically(output.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    return summary


def _write(output: Path, module: SNNClassifier, input_shape: tuple[int, int, int], description: dict[str, Any]) -> None:
    if output.suffix == ".nir":
        write_nir(output, module.network, input_shape)
    else:  # with the time steps, which may be fewer than the data's
        checkpoints.save(output, module.network, description | {"timesteps": module.timesteps})


def _figures(measured: Measured) -> dict[str, Any]:
    return {**measured.metrics.model_dump(), **measured.cost.totals(), "seconds": measured.seconds}


def show(summary: dict[str, Any]) -> Table:
    """A summary for people."""
    title = f"{summary['method']} on {summary['data']['name']}, {summary['checkpoint']}"
    notes = [f"written: {summary['output']}, .json, .map.json"]
    others = summary["compression"].get("left_alone")
    if others:
        notes.insert(0, f"left alone: {', '.join(others)}")
    table = Table(title=title, title_justify="left", caption="\n".join(notes))
    table.add_column("")
    for heading in ("dense", "compressed", "ratio"):
        table.add_column(heading, justify="right")
    for figure, before in summary["dense"].items():
        after = summary["compressed"][figure]
        if figure == "accuracy":
            table.add_row(figure, f"{percent(before)} %", f"{percent(after)} %", f"{points(after - before)} points")
        elif isinstance(before, int | float):
            table.add_row(figure, precise(before), precise(after), rounded(after / before) if before else "")
    return table
