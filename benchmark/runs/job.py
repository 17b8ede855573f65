"""What ``snnbench run`` does: a suite with its progress, its records and their copies in Weights & Biases."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from benchmark.files import require_writable
from benchmark.networks.weights import checkpoints
from benchmark.questions import build
from benchmark.questions.suite import Suite
from benchmark.records import RecordStore, RunRecord
from benchmark.runs.distributed import DeviceError, DeviceGroup, Devices
from benchmark.runs.executors.local import Executor, LocalExecutor, Outcome
from benchmark.runs.executors.processes import ProcessExecutor, places, visible_gpus
from benchmark.runs.opening import OpenedData, Setting, unwatched, version_of
from benchmark.runs.plan import Plan, plan, show
from benchmark.runs.progress import SuiteProgress
from benchmark.tracking.live import live_run
from benchmark.tracking.runs import SuiteLog
from datamodules.files import sweep
from datamodules.storage import cache_folder

LONG_S = 120.0  # a run that is expected to take longer, or of which nothing is known, is announced by its plan


@dataclass(frozen=True)
class Means:
    """What a suite may be run with.

    Args:
        jobs: runs at a time; with ``ray``, as many as the cluster has room for.
        threads: threads that all processes of this machine share, or one run on a cluster gets; by default torch's
            own choice.
        executor: on this machine, or on a Ray cluster.
        address: of the Ray cluster; by default ``$RAY_ADDRESS``, else one on this machine.
        devices: that each run works on.

    Raises:
        DeviceError: devices are chosen for runs that are shared out in another way.
    """

    jobs: int = 1
    threads: int | None = None
    executor: Literal["local", "ray"] = "local"
    address: str | None = None
    devices: Devices = field(default_factory=Devices)

    def __post_init__(self) -> None:
        if self.devices != Devices() and (self.jobs > 1 or self.executor == "ray"):
            raise DeviceError(
                "--devices, --accelerator and --strategy are for one run at a time: leave out --jobs and --executor"
            )


def run_suite(suite: Suite, results: Path, data_roots: dict[str, Path], means: Means, *, use_wandb: bool) -> Outcome:
    """Run a suite into a results folder.

    Raises:
        UnknownName, OptionError: the suite names what there is not; nothing was run.
        DataMissing: a data set is not there; nothing was run.
        StoreError: the results or the cache cannot be written; where that is so from the start, nothing was run.
        RecordError: a run's record is there and cannot be read, or is of a newer schema.
        WorkerError: workers cannot work at all.
    """
    if means.threads is not None:
        torch.set_num_threads(means.threads)
    store = RecordStore(results)
    console = Console(stderr=True)
    load = cache(checkpoints.load)
    ahead = plan_of(suite, store, load)
    store.prepare()
    require_writable(cache_folder() / "checkpoints" / "dense.safetensors")
    sweep(cache_folder(), "*/.partial-*")
    questions = build.questions_of(suite)
    if ahead.seconds > LONG_S or ahead.unknown:
        console.print(show(ahead, means.jobs), highlight=False, soft_wrap=True, markup=False)

    log = SuiteLog(results, cache_folder() / "checkpoints") if use_wandb else lambda record: None
    with SuiteProgress(suite.name, len(questions), console) as display, DeviceGroup(means.devices) as group:
        live = partial(live_run, suite=suite.name, results=results) if use_wandb else unwatched
        setting = Setting(cache_folder(), data_roots, display.track, display.training, live, group)
        data = OpenedData(setting, load)
        outcome = _executor(means, store, setting, data, display, log)(suite.name, questions)
    console.print(
        f"{suite.name}: {len(outcome.done)} done, {len(outcome.found)} found, {len(outcome.failed)} failed; "
        f"records in {results / 'records'}",
        highlight=False,
        soft_wrap=True,
    )
    return outcome


def plan_of(
    suite: Suite, store: RecordStore, load: Callable[[Path], checkpoints.Checkpoint] = checkpoints.load
) -> Plan:
    """What the suite still has to do, given the records of a store; ``load`` reads its networks' checkpoints.

    Raises:
        UnknownName, OptionError: the suite names what there is not.
    """
    build.check_suite(suite, load)
    questions = build.questions_of(suite)
    return plan(suite.name, questions, store, version_of)


def _executor(
    means: Means,
    store: RecordStore,
    setting: Setting,
    data: OpenedData,
    display: SuiteProgress,
    after: Callable[[RunRecord], object],
) -> Executor:
    if means.executor == "ray":
        from benchmark.runs.executors.cluster import RayExecutor

        return RayExecutor(store, setting, data, display, means.threads or 1, means.address, after=after)
    if means.jobs == 1:
        return LocalExecutor(store, setting, data, display, after=after)
    shares = places(means.jobs, means.threads or os.cpu_count() or 1, visible_gpus())
    return ProcessExecutor(store, setting, data, display, shares, after=after)
