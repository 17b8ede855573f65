"""What ``snnbench compress`` does: one network of a user's own, one compressor, before and after."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from pydantic import ValidationError

from benchmark import build, checkpoints
from benchmark.checkpoints import Checkpoint, CheckpointError
from benchmark.classifier import SNNClassifier
from benchmark.folders import cache_folder
from benchmark.records import write_atomically
from benchmark.run import Measured, compress_and_measure
from benchmark.suite import Data, Named, Training
from compressors.base import Budget
from datamodules.base import BenchmarkDataModule


@dataclass(frozen=True)
class Request:
    """What to compress, how, and where the result goes. ``model`` and ``data`` may be left to the checkpoint."""

    checkpoint: Path
    method: dict[str, Any]
    density: float
    model: dict[str, Any] | None
    data: dict[str, Any] | None
    data_root: Path | None
    calibration_samples: int
    seed: int
    output: Path


def compress_checkpoint(request: Request) -> dict[str, Any]:
    """Compress, test before and after, write the network (safetensors) and beside it what was done (JSON).

    Returns:
        A JSON-able summary: ``dense`` and ``compressed`` (accuracy and costs), ``compression`` (layer by layer),
        ``output``.

    Raises:
        CheckpointError: the file cannot be read, does not fit the network, or does not say what network it is.
        DataMissing, OptionError, BudgetError, CalibrationError, LayerError: see there.
    """
    Budget(request.density)
    checkpoint = checkpoints.load(request.checkpoint)
    model = Named.model_validate(request.model or _told("model", checkpoint, request.checkpoint))
    training = Training.model_validate(checkpoint.description.get("training", {}))
    data = _data(request, checkpoint, training)
    method = Named.model_validate(request.method)
    compressor = build.compressor(method, request.density, request.seed, cache_folder() / "eliminations")

    def restored() -> SNNClassifier:
        net = build.network(model, data.input_shape, data.num_classes)
        checkpoints.restore(net, checkpoint, request.checkpoint)
        return build.classifier(net, data, training)

    seed_everything(request.seed, workers=True, verbose=False)
    dense = compress_and_measure(restored(), data, build.compressor(Named(name="identity"), 1.0, request.seed))
    module = restored()
    compressed = compress_and_measure(module, data, compressor)
    summary = {
        "checkpoint": str(request.checkpoint),
        "sha256": checkpoint.sha256,
        "method": method.label,
        "data": data.describe(),
        "dense": _figures(dense),
        "compressed": _figures(compressed),
        "compression": compressed.compression.to_dict(),
        "output": str(request.output),
    }
    description = {"model": model.model_dump(), "data": data.describe(), "training": training.model_dump()}
    checkpoints.save(request.output, module.network, description | {"compressed": summary["compression"]})
    write_atomically(request.output.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    return summary


def _told(what: str, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """What the checkpoint's description says about itself."""
    if what not in checkpoint.description:
        raise CheckpointError(f"{path} does not say which {what} it belongs to: give --{what} and its options")
    return dict(checkpoint.description[what])


def _data(request: Request, checkpoint: Checkpoint, training: Training) -> BenchmarkDataModule:
    if request.data is not None:
        asked = request.data
    else:
        told = _told("data", checkpoint, request.checkpoint)
        asked = {name: told[name] for name in ("name", "timesteps", "split")}
        if asked["split"] == "fixed":
            del asked["split"]
    try:
        data = Data.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        raise build.OptionError(f"the data set's {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    module = build.datamodule(
        data,
        batch_size=training.batch_size,
        calibration_samples=request.calibration_samples,
        seed=request.seed,
        root=request.data_root,
    )
    module.prepare_data()
    return module


def _figures(measured: Measured) -> dict[str, Any]:
    return {**measured.metrics, **measured.cost.totals(), "seconds": measured.seconds}


def show(summary: dict[str, Any]) -> str:
    """A summary for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{summary['method']} on {summary['data']['name']}, {summary['checkpoint']}", title_justify="left"
    )
    table.add_column("")
    for heading in ("dense", "compressed", "ratio"):
        table.add_column(heading, justify="right")
    for figure, before in summary["dense"].items():
        after = summary["compressed"][figure]
        if figure == "accuracy":
            table.add_row(figure, f"{before:.2%}", f"{after:.2%}", f"{100 * (after - before):+.2f} points")
        elif isinstance(before, int | float):
            table.add_row(figure, f"{before:,.6g}", f"{after:,.6g}", f"{after / before:.3f}" if before else "")
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
        console.print(f"written: {summary['output']} and its .json", highlight=False, soft_wrap=True)
    return capture.get()
