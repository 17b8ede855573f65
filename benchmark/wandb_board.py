"""Runs in Weights & Biases: one W&B run per record, with the record's own id, so that logging it again doubles nothing.

Nothing of W&B is needed for a result: a record is stored before it is logged, and a fault here is a warning.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.records import RunRecord
from benchmark.standings import DENSE
from hardware.report import CostReport, LayerCost

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled", "shared"]

_log = logging.getLogger(__name__)

_LAYER_COLUMNS = (
    "layer", "kind", "inputs", "weights", "nonzero", "density", "bits", "AC per sample", "MAC per sample",
    "best format", "stored bits",
)  # fmt: skip


def log_run(record: RunRecord, results: Path, *, mode: Mode | None = None) -> None:
    """Log a record; call this when it is safely stored.

    Files go to ``$WANDB_DIR/wandb``, else to ``<results>/wandb``; the project is ``$WANDB_PROJECT``, else ``snnbench``.
    Any fault of W&B, its network or its disk becomes one warning that names the run and the remedy.

    Args:
        record: of a finished or failed run.
        results: the results folder.
        mode: as in ``wandb.init``; by default ``$WANDB_MODE``, else online with ``$WANDB_API_KEY`` and offline without.
    """
    try:
        _log_run(record, os.environ.get("WANDB_DIR") or str(results), mode or _mode())
    except Exception as error:  # whatever W&B raises must not cost the suite
        _log.warning(
            "run %s (%s) is not in Weights & Biases: %s: %s. Its record is safe. Check the WANDB_* variables, the "
            "network and the disk, or go without: --no-wandb",
            record.id,
            record.question.label,
            type(error).__name__,
            " ".join(str(error).split()),
        )


def _mode() -> str:
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


def _log_run(record: RunRecord, folder: str, mode: str) -> None:
    import wandb  # takes over a second, and an installation that fails here must not cost a result either

    run = wandb.init(
        id=record.id,
        name=record.question.label,
        group=record.suite,
        job_type="dense" if record.question.compressor.name == DENSE else record.division,
        project=os.environ.get("WANDB_PROJECT") or "snnbench",
        config=_config(record),
        dir=folder,
        mode=mode,  # type: ignore[arg-type]  # wandb names the valid ones in its error
        resume="allow" if mode == "online" else None,
        reinit="create_new",  # no run of the caller's own is touched
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        ),
    )
    try:
        run.summary.update(_summary(record))
        if record.cost:
            run.log({"layers": wandb.Table(columns=list(_LAYER_COLUMNS), data=_layer_rows(record))})
        run.log_artifact(_artifact(record, wandb.Artifact(f"record-{record.id}", type="record")))
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish(exit_code=0 if record.status == "done" else 1)


def _config(record: RunRecord) -> dict[str, Any]:
    """The question, and what else the answer depends on."""
    content = record.model_dump(
        mode="json", include={"suite", "version", "control", "division", "dense", "environment", "schema_version"}
    )
    question = record.question.model_dump(mode="json")
    return {**content, **question, "data": {**question["data"], **record.data}}


def _summary(record: RunRecord) -> dict[str, Any]:
    """One number per metric: shares, operations per sample, bits and seconds."""
    summary: dict[str, Any] = {"status": record.status, "error": record.error, **record.metrics}
    summary |= {f"seconds/{phase}": value for phase, value in record.seconds.items()}
    if record.cost:
        summary |= CostReport.from_dict(record.cost).totals()
    if record.compression:
        summary["density"] = record.compression["density"]
    return summary


def _layer_rows(record: RunRecord) -> list[list[Any]]:
    report = CostReport.from_dict(record.cost)
    return [_layer_row(layer, report.samples) for layer in report.layers]


def _layer_row(layer: LayerCost, samples: int) -> list[Any]:
    return [
        layer.name, layer.kind, layer.inputs, layer.weights, layer.nonzero, layer.density, layer.bits,
        layer.ac / samples, layer.mac / samples, layer.best_format, layer.stored_bits,
    ]  # fmt: skip


def _artifact(record: RunRecord, artifact: "wandb.Artifact") -> "wandb.Artifact":
    """The record itself, as a file of an artifact."""
    with artifact.new_file("record.json", mode="w", encoding="utf-8") as file:
        file.write(record.model_dump_json(indent=1))
    return artifact
