"""A run is opened once: what has to be read from files to know which run a question asks for, found once and carried.

Data sets are listed and fingerprinted, and the checkpoints that networks come with are read and hashed, once a suite.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import Checkpoint
from benchmark.questions import build
from benchmark.questions.suite import NamedNetwork, Question, digest
from benchmark.runs.distributed import DeviceGroup
from compressors.progress import Track
from compressors.progress import track as default_track
from compressors.registry import COMPRESSORS
from datamodules.base import BenchmarkDataModule


def unwatched(question: Question) -> list[Callback]:
    """No callbacks: nobody looks at a fit from outside."""
    return []


@dataclass(frozen=True)
class Setting:
    """What a run needs beside its question: where things are, whom to tell about progress, and devices to work on.

    Args:
        cache: folder of dense networks and eliminations.
        data_roots: where data sets are, by name.
        track: shows the progress of long work.
        training_callbacks: that show a training on this process's own display.
        live: callbacks that log a question's fits elsewhere while they happen; worker processes are handed it too.
        group: devices to work on.
    """

    cache: Path
    data_roots: dict[str, Path] = field(default_factory=dict)
    track: Track = default_track
    training_callbacks: Callable[[], list[Callback]] = list
    live: Callable[[Question], list[Callback]] = unwatched
    group: DeviceGroup = field(default_factory=DeviceGroup)

    def watching(self, question: Question) -> list[Callback]:
        """The callbacks of one of a question's fits."""
        return [*self.training_callbacks(), *self.live(question)]


@dataclass(frozen=True)
class OpenedRun:
    """A question, and which run it is with the data and weights at hand; small, so it can be sent to other processes.

    Args:
        question: what is asked.
        id: of the run (:meth:`benchmark.questions.suite.Question.id`).
        dense_id: of the dense network it starts from.
        data: what a record keeps of the data, their fingerprint among it.
        weights_sha256: hash of the checkpoint that the network comes with; None for a network that is trained.
    """

    question: Question
    id: str
    dense_id: str
    data: Mapping[str, Any]
    weights_sha256: str | None = None


class OpenedData:
    """The files that questions are about, opened when first asked for and kept for as long as this lasts.

    There is a data module for each data set, batch size, seed and number of calibration samples. Weights that
    networks come with stay in memory.

    Args:
        setting: where the data are.
        load: reads a checkpoint, each file once; by default a new cache over
            :func:`benchmark.networks.weights.checkpoints.load`.
    """

    def __init__(self, setting: Setting, load: Callable[[Path], Checkpoint] | None = None) -> None:
        self._setting = setting
        self._load = load or cache(checkpoints.load)
        self._modules: dict[str, BenchmarkDataModule] = {}
        self._descriptions: dict[str, Mapping[str, Any]] = {}

    def of(self, question: Question) -> BenchmarkDataModule:
        """The data module of a question, set up.

        Raises:
            DataMissing: its files are not there.
            CalibrationTooLarge: they are fewer than the calibration samples that are asked for.
        """
        key = _data_key(question)
        if key not in self._modules:
            self._modules[key] = _data_module(question, self._setting.data_roots)
        return self._modules[key]

    def describe(self, question: Question) -> Mapping[str, Any]:
        """What a record keeps of a question's data, their fingerprint among it.

        Raises:
            DataMissing: its files are not there.
        """
        key = _data_key(question)
        if key not in self._descriptions:
            self._descriptions[key] = self.of(question).describe()
        return self._descriptions[key]

    def weights(self, network: NamedNetwork) -> Checkpoint | None:
        """The checkpoint that a network comes with; None for one that is trained.

        Raises:
            CheckpointError: it is not there, or cannot be read.
        """
        return None if network.weights is None else self._load(network.weights)

    def check(self, questions: Iterable[Question]) -> None:
        """Open all data, so that a missing set is known before the first run.

        Raises:
            DataMissing: the files of a data set are not there.
        """
        for question in questions:
            self.of(question)

    def run(self, question: Question) -> OpenedRun:
        """Find out which run a question asks for.

        Raises:
            DataMissing, CheckpointError: see above.
        """
        data, weights = self.describe(question), self.weights(question.model)
        sha256 = None if weights is None else weights.sha256
        run_id, dense_id = identify(question, str(data["fingerprint"]), sha256)
        return OpenedRun(question, run_id, dense_id, data, sha256)


def identify(question: Question, fingerprint: str, weights_sha256: str | None) -> tuple[str, str]:
    """A question's run id and its dense network's id, given the hashes of its data and of its network's weights."""
    content = fingerprint if weights_sha256 is None else digest([fingerprint, weights_sha256])
    return question.id(content, version_of(question)), question.dense_id(content)


def version_of(question: Question) -> int:
    """The present version of what a question's method does."""
    named = question.compressor
    return named.found_in(COMPRESSORS).load().version_with(named.options, question.aftercare)


def _data_key(question: Question) -> str:
    return question.model_dump_json(include={"data", "seed", "training", "calibration_samples"})


def _data_module(question: Question, data_roots: Mapping[str, Path]) -> BenchmarkDataModule:
    module = build.datamodule(
        question.data,
        batch_size=question.training.batch_size,
        calibration_samples=question.calibration_samples,
        seed=question.seed,
        root=data_roots.get(question.data.name),
    )
    module.prepare_data()
    module.calibration_indices()  # too many are found before the first run
    return module
