"""What ``snnbench compress`` does: one network of a user's own, one compressor, before and after."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmark.files import write_atomically
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
    plain: bool = False,
) -> dict[str, Any]:
    """Compress, test before and after, write the network, and beside it a summary and a map of what was done (JSON).

    Args:
        source: the dense network and its data.
        method: the compressor's name and options.
        budget: what the compressed network may cost.
        output: the file of the compressed network: NIR if its name ends so, else packed safetensors.
        aftercare: see :class:`compressors.base.Compressor`.
        devices: what to work on; by default a single one.
        plain: write the safetensors unpacked, every weight as a float.

    Returns:
        A JSON-able summary: ``dense`` and ``compressed`` (accuracy and costs), ``compression`` (layer by layer),
        ``output``, and ``bytes``: those of a packed file, by what they hold.

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
        "bytes": _write(output, compressed, subject.data.input_shape, description | {"compressed": account}, plain),
    }
    write_map(output.with_suffix(".map.json"), compressed.compression)
    write_atomically(output.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    return summary


def _write(
    output: Path, compressed: Measured, input_shape: tuple[int, int, int], description: dict[str, Any], plain: bool
) -> dict[str, int]:
    """Write the network; the bytes of the file, of a packed one by what they hold."""
    module = compressed.module
    description = description | {"timesteps": module.timesteps}  # which may be fewer than the data's
    if output.suffix != ".nir" and not plain:
        size = checkpoints.save_packed(output, module.network, description, compressed.compression)
        return {**asdict(size), "file": size.file}
    if output.suffix == ".nir":
        write_nir(output, module.network, input_shape)
    else:
        checkpoints.save(output, module.network, description)
    return {"file": output.stat().st_size}


def _figures(measured: Measured) -> dict[str, Any]:
    return {**measured.metrics.model_dump(), **measured.cost.totals(), "seconds": measured.seconds}


def show(summary: dict[str, Any]) -> Table:
    """A summary for people."""
    title = f"{summary['method']} on {summary['data']['name']}, {summary['checkpoint']}"
    notes = [f"written: {summary['output']}, .json, .map.json", _sizes(summary)]
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


def _sizes(summary: dict[str, Any]) -> str:
    """The file's bytes against the bits that the compressed network is counted with."""
    size = dict(summary["bytes"])
    line = f"file: {size.pop('file'):,} bytes"
    if size:
        line += " = " + " + ".join(f"{name} {count:,}" for name, count in size.items())
    return f"{line}; stored bits: {summary['compressed']['stored_bits'] / 8:,.0f} bytes"
