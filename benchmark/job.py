"""What ``snnbench run`` does: a suite with its progress, its records and their copies in Weights & Biases."""

from pathlib import Path

import torch
from rich.console import Console

from benchmark import build
from benchmark.executors.local import LocalExecutor, Outcome
from benchmark.folders import cache_folder
from benchmark.progress import SuiteProgress
from benchmark.records import RecordStore
from benchmark.run import Setting
from benchmark.suite import Suite
from benchmark.wandb_board import SuiteLog


def run(suite: Suite, results: Path, data_roots: dict[str, Path], *, use_wandb: bool, threads: int | None) -> Outcome:
    """Run a suite into a results folder.

    Raises:
        UnknownName, OptionError: the suite names what there is not; nothing was run.
        DataMissing: a data set is not there; nothing was run.
        StoreError: a record cannot be written.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    build.check_suite(suite)
    runs = len(list(suite.questions(build.budgetless(suite))))

    log = SuiteLog(results, cache_folder() / "checkpoints") if use_wandb else lambda record: None
    console = Console(stderr=True)
    with SuiteProgress(suite.name, runs, console) as display:
        setting = Setting(cache_folder(), data_roots, display.track, display.training)
        outcome = LocalExecutor(RecordStore(results), setting, display, log)(suite)
    console.print(
        f"{suite.name}: {len(outcome.done)} done, {len(outcome.found)} found, {len(outcome.failed)} failed; "
        f"records in {results / 'records'}",
        highlight=False,
        soft_wrap=True,
    )
    return outcome
