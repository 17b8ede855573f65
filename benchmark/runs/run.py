"""One run: from the dense network to the record."""

import math
import platform
import subprocess
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache as memoised
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from spikingjelly.activation_based import functional
from torch import Tensor

from benchmark.catalog import DATA, MODELS
from benchmark.distribution import COMMAND, installed
from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.soundness import SoundNetwork
from benchmark.questions import build
from benchmark.questions.names import showable
from benchmark.questions.suite import RECONSTRUCTED, FineTuning, FromScratch, Question
from benchmark.records import PACKAGES, CompressionAccount, Metrics, RunRecord, SpikeAccount, packed_answers
from benchmark.runs import memory
from benchmark.runs.answers import Answers
from benchmark.runs.bars import EvaluationBar
from benchmark.runs.dense import dense_network, new_network, quiet, trainer_settings
from benchmark.runs.distributed import DeviceGroup, Devices, OneNetwork
from benchmark.runs.opening import OpenedData, OpenedRun, Setting, version_of
from benchmark.runs.spikes import SpikeStatistics
from compressors.base import Compressor
from compressors.compression import Compression
from compressors.progress import Item, Track
from compressors.registry import COMPRESSORS, OWN
from hardware import CostReport, HardwareCost


def silent(items: Iterable[Item], description: str) -> Iterable[Item]:
    """No progress bar, for runs that several processes do at once: their bars would write over each other."""
    return items


class ScoreError(ValueError):
    """A network whose scores are not finite numbers; says which."""

    exit_status = 1


@dataclass(frozen=True)
class Measured:
    """What compressing and testing a network gave.

    ``correct`` says of each test sample whether it is classified right: bool ``[samples]``, in the loader's order;
    ``spikes`` holds its spikes against those of a reference, where there is one.
    """

    module: SNNClassifier
    compression: Compression
    metrics: Metrics
    cost: CostReport
    seconds: dict[str, float]
    correct: Tensor
    spikes: SpikeAccount | None = None

    @property
    def accuracy(self) -> float:
        """Share of the test samples that are classified right, 0 to 1."""
        return self.metrics.accuracy


def compress_and_measure(
    module: SNNClassifier,
    data: LightningDataModule,
    compressor: Compressor,
    seed: int,
    *,
    course: FineTuning | FromScratch | None = None,
    callbacks: Sequence[Callback] = (),
    group: DeviceGroup | None = None,
    reference: SNNClassifier | None = None,
) -> Measured:
    """The one path of every method: ``Trainer.fit`` with the compressor, ``Trainer.test`` with the cost counter.

    Args:
        module: the network that it starts from; on one device it is changed in place.
        data: what it is calibrated, fine-tuned and tested on.
        compressor: the method.
        seed: of everything random.
        course: the fit's epochs and learning rate; without it the fit has no epochs.
        callbacks: for the training, such as a progress bar; a group of processes shows no progress.
        group: the devices; by default a single one.
        reference: the dense network, whose spikes the compressed network's are held against; a module of its own.

    Raises:
        DeviceError, WorkerError: see :meth:`benchmark.runs.distributed.DeviceGroup.call`.
        CompressorError: the compressor left no account of what it did.
        NetworkError: the network is not what it is taken for (:mod:`benchmark.networks.soundness`).
        ScoreError: the compressed network's weights or scores are not finite.
    """
    group = group or DeviceGroup()
    if group.devices.grouped:
        compressor.state.track, callbacks = silent, ()
    return group.call(_fit_and_test, module, data, compressor, seed, course, callbacks, group.devices, reference)


def _fit_and_test(
    module: SNNClassifier,
    data: LightningDataModule,
    compressor: Compressor,
    seed: int,
    course: FineTuning | FromScratch | None,
    callbacks: Sequence[Callback],
    devices: Devices,
    reference: SNNClassifier | None,
) -> Measured:
    memory.keep_freed()
    started = time.perf_counter()
    seed_everything(seed, workers=True, verbose=False)
    if course is not None:
        module.optimization = course.of(module.optimization)
    epochs = 0 if course is None else course.epochs
    with quiet():
        fit = Trainer(
            max_epochs=epochs,
            callbacks=[SoundNetwork(), *callbacks, compressor, OneNetwork(compressor)],
            enable_checkpointing=False,
            **trainer_settings(devices),
        )
        fit.fit(module, datamodule=data)
        fitted = time.perf_counter()
        compression = compressor.done()
    seconds = {"compress": compression.seconds, "fit": fitted - started}
    track = compressor.state.track
    return measure(module, data, compression, seconds, devices=devices, track=track, reference=reference)


def measure(
    module: SNNClassifier,
    data: LightningDataModule,
    compression: Compression,
    seconds: Mapping[str, float],
    *,
    state_bits: int = 32,
    devices: Devices | None = None,
    track: Track = silent,
    reference: SNNClassifier | None = None,
) -> Measured:
    """Test a compressed network, and count what it costs.

    Args:
        module: the network.
        data: what it is tested on.
        compression: what was done to it.
        seconds: what that took, part by part.
        state_bits: bits of one neuron state variable.
        devices: what to work on; by default a single one.
        track: shows progress.
        reference: see :func:`compress_and_measure`.

    Raises:
        ScoreError: the network's weights or scores are not finite.
    """
    started = time.perf_counter()
    counter, answers = HardwareCost(state_bits=state_bits), Answers()
    statistics = [] if reference is None else [SpikeStatistics(reference, compression)]
    with quiet():
        callbacks: list[Callback] = [counter, answers, *statistics, EvaluationBar(track)]
        test = Trainer(callbacks=callbacks, **trainer_settings(devices or Devices()))
        results = test.test(module, datamodule=data, verbose=False)
    cost = counter.report
    if cost is None:
        raise RuntimeError("the test ended without a report of the cost")
    functional.reset_net(module)
    metrics = finite_metrics(module, results[0])
    spent = {**seconds, "test": time.perf_counter() - started}
    spikes = statistics[0].account if statistics else None
    return Measured(module, compression, metrics, cost, spent, answers.correct, spikes)


def finite_metrics(module: SNNClassifier, results: Mapping[str, float]) -> Metrics:
    """The scores of a test, of a network that can be scored at all.

    A neuron whose potential is not a number is silent, and of scores of which one is not a number it is the highest:
    such a network has an accuracy, which says nothing.

    Raises:
        ScoreError: a weight is not a number or infinite, or a score is.
    """
    broken = [name for name, value in module.network.named_parameters() if not value.isfinite().all()]
    if broken:
        raise ScoreError(f"the network has weights that are not finite, so its scores mean nothing: {broken[0]}")
    scores = {name: results[f"test/{name}"] for name in Metrics.model_fields}
    for name, score in scores.items():
        if not math.isfinite(score):
            raise ScoreError(f"the network's {name} is {score} on the test part: its outputs are not finite")
    return Metrics(**scores)


def answer(run: OpenedRun, suite: str, data: OpenedData, setting: Setting) -> RunRecord:
    """Answer a run's question. A failure is an answer too: its error becomes the record's.

    ``KeyboardInterrupt`` and its like go through.
    """
    question, group = run.question, setting.group
    record = unanswered(run, suite, group.devices)
    peak_is_known = memory.forget_peak() and not group.devices.grouped  # which works in other processes
    try:
        dense = dense_network(run, data, setting.cache, setting.watching(question), group)
        compressor = build.compressor(
            question.compressor, question.budget, question.seed, setting.cache / "eliminations", question.aftercare
        )
        compressor.state.track = setting.track
        record = record.model_copy(update={"options": compressor.options_to_dict()})
        reference = None if group.devices.grouped else deepcopy(dense.module)
        measured = compress_and_measure(
            dense.module if question.from_scratch is None else new_network(question, data.of(question)),
            data.of(question),
            compressor,
            question.seed,
            course=question.course,
            callbacks=setting.watching(question),
            group=group,
            reference=reference,
        )
    except Exception as error:  # whatever a method raises is the run's outcome, and the other runs go on
        told = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        return record.model_copy(update={name: showable(text) for name, text in told.items()})
    return record.model_copy(
        update={
            "status": "done",
            "dense": dense.origin,
            "metrics": measured.metrics,
            "compression": CompressionAccount.model_validate(measured.compression.to_dict()),
            "cost": measured.cost,
            "correct": None if group.devices.grouped else packed_answers(measured.correct.tolist()),
            "spikes": measured.spikes,
            "seconds": measured.seconds,
            "peak_memory_bytes": memory.peak_bytes() if peak_is_known else None,
        }
    )


def unanswered(run: OpenedRun, suite: str, devices: Devices | None = None) -> RunRecord:
    """The record of a run that has no answer: everything that is known beforehand."""
    question = run.question
    target = question.compressor.found_in(COMPRESSORS).load()
    return RunRecord(
        id=run.id,
        suite=suite,
        status="failed",
        question=question,
        version=version_of(question),
        control=target.control,
        division=RECONSTRUCTED if target.reconstructs and question.course is None else question.division,
        data=dict(run.data),
        environment=_environment_of(question, devices or Devices()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _plugins(question: Question) -> dict[str, str]:
    """Versions of the other packages that what is asked for comes from."""
    entries = (
        question.data.found_in(DATA),
        question.model.found_in(MODELS),
        question.compressor.found_in(COMPRESSORS),
    )
    return {entry.origin: version(entry.origin) for entry in entries if entry.origin not in (OWN, None)}


def _environment_of(question: Question, devices: Devices) -> dict[str, Any]:
    common = environment()
    used = devices.describe() | ({"device": "cpu"} if devices.kind == "cpu" else {})
    return common | used | {"packages": common["packages"] | _plugins(question)}


@memoised
def environment() -> dict[str, Any]:
    """Versions, device and source revision: what else an answer may depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "packages": {COMMAND: installed().version} | {name: version(name) for name in PACKAGES if name != COMMAND},
        "git": _revision(),
    }


def _revision() -> str | None:
    """The checkout's git revision, with ``+changes`` where it has any; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    revision = git("rev-parse", "HEAD")
    if revision is None:
        return None
    return f"{revision}+changes" if git("status", "--porcelain", "--untracked-files=no") else revision
