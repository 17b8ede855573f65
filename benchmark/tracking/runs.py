"""Runs in Weights & Biases: one W&B run per record, with the record's own id, so that logging it again doubles nothing.

Nothing of W&B is needed for a result: a record is stored before it is logged, and a fault here is a warning.
"""

import csv
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.boards.markdown import markdown
from benchmark.boards.standings import COSTS, DENSE, Board, standings
from benchmark.boards.tabular import as_csv
from benchmark.questions.suite import digest
from benchmark.records import RecordStore, RunRecord
from hardware.energy import energy
from hardware.table import COLUMNS, table_rows

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
    try:
        with open_run(
            results, mode, exit_code=0 if record.status == "done" else 1, config=_config(record), **arguments
        ) as run:
            _log_results(run, record)
            _log_artifacts(run, record, checkpoint)
    except Exception as error:  # whatever W&B raises must not cost the suite
        _warn(f"run {record.id} ({record.question.label})", error)
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

    def __call__(self, record: RunRecord) -> None:
        """Log a record that is safely stored."""
        file = None if record.dense is None else self.checkpoints / f"{record.dense.id}.safetensors"
        checkpoint = file if file is not None and file.is_file() else None
        if not log_run(record, self.results, mode=self.mode, checkpoint=checkpoint):
            self.mode = "offline"


def log_board(board: Board, results: Path, *, mode: Mode | None = None) -> bool:
    """Log a leaderboard: its rows as a table, the trade-offs as charts, and both in a versioned artifact.

    The artifact ``leaderboard`` gets a new version, with the aliases ``latest`` and the board's digest, only where its
    content changed. Faults are warnings, as in :func:`log_run`.

    Returns:
        Whether it was logged.
    """
    try:
        import wandb

        with open_run(results, mode, id="leaderboard", name="leaderboard", job_type="leaderboard") as run:
            lines = list(csv.reader(as_csv(board).splitlines()))
            table = wandb.Table(columns=list(lines[0]), data=[list(map(_number, line)) for line in lines[1:]])
            charts = {
                cost: wandb.plot.scatter(table, cost, "accuracy", title=f"accuracy over {cost}") for cost in COSTS
            }
            run.log({"leaderboard": table, **{f"accuracy over {cost}": chart for cost, chart in charts.items()}})
            artifact = wandb.Artifact("leaderboard", type="leaderboard")
            artifact.add(table, "leaderboard")
            _add_text(artifact, "leaderboard.md", markdown(board))
            run.log_artifact(artifact, aliases=["latest", digest(as_csv(board))])
    except Exception as error:  # as above
        _warn("the leaderboard", error)
        return False
    return True


def sync(store: RecordStore, results: Path, *, mode: Mode | None = None) -> tuple[int, int]:
    """Log all stored records and their leaderboard, as if their runs had just ended.

    Returns:
        How many records were logged, and how many were not.
    """
    records = list(store)
    logged = sum(log_run(record, results, mode=mode) for record in records)
    if records:
        log_board(standings(records), results, mode=mode)
    return logged, len(records) - logged


def _warn(what: str, error: Exception) -> None:
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
    """Metrics, over the density achieved, and the table of layers that ``snnbench profile`` shows.

    A metric's summary is its one value: a named aggregate would turn the number into a mapping, which no chart or sort
    of W&B can use.
    """
    import wandb

    run.summary.update({"status": record.status, "error": record.error})
    metrics = _metrics(record)
    run.define_metric("density")
    for name in metrics:
        if name != "density":
            run.define_metric(name, step_metric="density")
    if record.cost is not None:
        rows = table_rows(record.cost, energy(record.cost))
        run.log({**metrics, "layers": wandb.Table(columns=list(COLUMNS), data=[list(row.values()) for row in rows])})


def _is_dense(record: RunRecord) -> bool:
    """Whether a run is that of the dense network which the others start from."""
    return record.question.compressor.name == DENSE and record.question.from_scratch is None


def _log_artifacts(run: "wandb.Run", record: RunRecord, checkpoint: Path | None) -> None:
    """The record, what was done to each layer, and the dense network they came from."""
    import wandb

    if checkpoint is not None and record.dense is not None:
        dense = wandb.Artifact(f"dense-{record.dense.id}", type="model", metadata=record.dense.model_dump())
        dense.add_file(str(checkpoint), name=checkpoint.name)
        if _is_dense(record):
            run.log_artifact(dense)
        elif not run.offline:  # offline, W&B refuses to link what a run used; the config names the network in any case
            run.use_artifact(dense)
    for kind, content in (("record", record), ("compression", record.compression)):
        if content is not None:
            artifact = wandb.Artifact(f"{kind}-{record.id}", type=kind)
            text = json.dumps(content.model_dump(mode="json"), indent=1, sort_keys=True)
            _add_text(artifact, f"{kind}.json", text)
            run.log_artifact(artifact)


def _add_text(artifact: "wandb.Artifact", name: str, text: str) -> None:
    with artifact.new_file(name, mode="w", encoding="utf-8") as file:
        file.write(text)


def _number(text: str) -> float | str | None:
    """A cell of the CSV; tables of W&B want numbers, and None where there is nothing."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _config(record: RunRecord) -> dict[str, Any]:
    """The question, and what else the answer depends on."""
    content = record.model_dump(
        mode="json", include={"suite", "version", "control", "division", "dense", "environment", "schema_version"}
    )
    question = record.question.model_dump(mode="json")
    return {**content, **question, "data": {**question["data"], **record.data}}


def _metrics(record: RunRecord) -> dict[str, float]:
    """One number per metric: shares, operations per sample, bits and seconds."""
    metrics = {f"seconds/{phase}": value for phase, value in record.seconds.items()}
    if record.status == "done":
        answer = record.answer
        metrics |= answer.metrics.model_dump() | answer.cost.totals() | {"density": answer.compression.density}
    return metrics
