"""Runs in Weights & Biases: one W&B run per record, with the record's own id, so that logging it again doubles nothing.

Nothing of W&B is needed for a result: a record is stored before it is logged, and a fault here is a warning.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.boards.standings import DENSE
from benchmark.records import RunRecord
from benchmark.tracking.artifacts import add_text, network_artifact
from benchmark.tracking.layers import layer_charts, spike_charts
from benchmark.tracking.layout import look_of, subject_of, tags_of

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled", "shared"]

PATIENCE_S = 30.0  # how long the beginning and the end of a run wait for W&B, each

_log = logging.getLogger(__name__)


def log_run(record: RunRecord, results: Path, *, mode: Mode | None = None, checkpoint: Path | None = None) -> bool:
    """Log a record; call this when it is safely stored. Logging it again updates its run.

    Files go to ``$WANDB_DIR/wandb``, else to ``<results>/wandb``; the project is ``$WANDB_PROJECT``, else ``snnbench``.
    Any fault of W&B, its network or its disk becomes one warning that names the run and the remedy.

    Args:
        record: of a finished or failed run.
        results: the results folder.
        mode: as in ``wandb.init``; by default ``$WANDB_MODE``, else online with ``$WANDB_API_KEY`` and offline without.
        checkpoint: file of the dense network. The dense control brings it as an artifact, and, online, the other runs
            are linked to it as its users.

    Returns:
        Whether it was logged.
    """
    job = "dense" if _is_dense(record) else record.division
    arguments: dict[str, Any] = {"id": record.id, "name": record.question.label, "group": record.suite, "job_type": job}
    arguments["tags"] = [*tags_of(record.question), record.division, *(["control"] if record.control else [])]
    try:
        with open_run(
            results, mode, exit_code=0 if record.status == "done" else 1, config=_config(record), **arguments
        ) as run:
            _log_results(run, record)
            _log_artifacts(run, record, checkpoint)
    except Exception as error:  # whatever W&B raises must not cost the suite
        warn(f"run {record.id} ({record.question.label})", error)
        return False
    return True


class SuiteLog:
    """Logs the runs of a suite as they end. After a fault it goes on offline: a dead network is waited for only once.

    Args:
        results: the results folder.
        checkpoints: folder of the dense networks, ``<id>.safetensors``.
        mode: as for :func:`log_run`.
    """

    def __init__(self, results: Path, checkpoints: Path, mode: Mode | None = None) -> None:
        self.results, self.checkpoints, self.mode = results, checkpoints, mode

    def __call__(self, record: RunRecord) -> bool:
        """Log a record that is safely stored; whether it was logged."""
        file = None if record.dense is None else self.checkpoints / f"{record.dense.id}.safetensors"
        checkpoint = file if file is not None and file.is_file() else None
        logged = log_run(record, self.results, mode=self.mode, checkpoint=checkpoint)
        if not logged:
            self.mode = "offline"
        return logged


def warn(what: str, error: Exception) -> None:
    """Say that something is not in W&B, and the remedy; nothing is lost by it."""
    _log.warning(
        "%s is not in Weights & Biases: %s: %s. The records are safe. Check the WANDB_* variables, the network and the "
        "disk, then `snnbench wandb sync`; or go without: --no-wandb",
        what,
        type(error).__name__,
        " ".join(str(error).split()),
    )


def _mode() -> str:
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


@contextmanager
def open_run(
    results: Path, mode: str | None, exit_code: int = 0, system: bool = False, **arguments: Any
) -> Iterator["wandb.Run"]:
    """A run of W&B, finished at the end whatever happens; no run of the caller's own is touched.

    Args:
        results: the results folder, where its files go unless ``$WANDB_DIR`` says otherwise.
        mode: as for :func:`log_run`.
        exit_code: at its end, if nothing is raised.
        system: log the machine's load, memory and power meanwhile.
        arguments: of ``wandb.init``.
    """
    import wandb  # takes over a second, and an installation that fails here must not cost a result either

    mode = mode or _mode()
    run = wandb.init(
        project=project(),
        dir=os.environ.get("WANDB_DIR") or str(results),
        mode=mode,  # type: ignore[arg-type]  # wandb names the valid ones in its error
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            init_timeout=PATIENCE_S,
            finish_timeout=PATIENCE_S,
            finish_timeout_raises=True,
            x_disable_stats=not system,
            x_disable_meta=True,
        ),
        **arguments,
    )
    try:
        yield run
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish(exit_code=exit_code)


def project() -> str:
    """The W&B project."""
    return os.environ.get("WANDB_PROJECT") or "snnbench"


def _log_results(run: "wandb.Run", record: RunRecord) -> None:
    """Metrics, over the density achieved, and what was counted layer by layer.

    A metric's summary is its one value: a named aggregate would turn the number into a mapping, which no chart or sort
    of W&B can use.
    """
    run.summary.update({"status": record.status, "error": record.error})
    metrics = _metrics(record)
    run.define_metric("density")
    for name in metrics:
        if name != "density":
            run.define_metric(name, step_metric="density")
    if record.cost is not None:
        spikes = {} if record.spikes is None else spike_charts(record.spikes)
        run.log({**metrics, **layer_charts(record.cost), **spikes})


def _is_dense(record: RunRecord) -> bool:
    """Whether a run is that of the dense network which the others start from."""
    return record.question.compressor.name == DENSE and record.question.from_scratch is None


def _log_artifacts(run: "wandb.Run", record: RunRecord, checkpoint: Path | None) -> None:
    """The record, what was done to each layer, and the dense network they came from."""
    import wandb

    if checkpoint is not None and record.dense is not None:
        dense = network_artifact(checkpoint, record.dense.sha256, kind="dense", **record.dense.model_dump())
        if _is_dense(record):
            run.log_artifact(dense)
        elif not run.offline:  # offline, W&B refuses to link what a run used; the config names the network in any case
            run.use_artifact(dense)
    for kind, content in (("record", record), ("compression", record.compression)):
        if content is not None:
            artifact = wandb.Artifact(f"{kind}-{record.id}", type=kind)
            text = json.dumps(content.model_dump(mode="json"), indent=1, sort_keys=True)
            add_text(artifact, f"{kind}.json", text)
            run.log_artifact(artifact)


def _config(record: RunRecord) -> dict[str, Any]:
    """The question, what else the answer depends on, and how the page names and draws it."""
    content = record.model_dump(
        mode="json", include={"suite", "version", "control", "division", "dense", "environment", "schema_version"}
    )
    question = record.question.model_dump(mode="json")
    shown = {"subject": subject_of(record.question), "look": look_of(record.question, record.control)}
    return {**content, **question, **shown, "data": {**question["data"], **record.data}}


def _metrics(record: RunRecord) -> dict[str, float]:
    """One number per metric: shares, operations per sample, bits and seconds."""
    metrics = {f"seconds/{phase}": value for phase, value in record.seconds.items()}
    if record.status == "done":
        answer = record.answer
        metrics |= {} if record.spikes is None else record.spikes.summary()
        metrics |= answer.metrics.model_dump() | answer.cost.totals() | {"density": answer.compression.density}
    return metrics
