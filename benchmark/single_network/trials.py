"""Trials: one network compressed in many ways, each judged on the same held-out training samples and kept on disk."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from benchmark.files import write_atomically
from benchmark.networks.fixed_point.scheme import FixedPoint
from benchmark.questions import build
from benchmark.questions.suite import Named, digest
from benchmark.runs.run import compress_and_measure
from benchmark.single_network.comparison import for_trained
from benchmark.single_network.fixed import whole_numbers
from benchmark.single_network.subject import Subject
from compressors.base import Compressor
from compressors.budget import Budget
from compressors.methods.identity import Identity
from compressors.methods.obc import OBC
from compressors.second_order.problem import Problem
from datamodules.storage import cache_folder
from hardware import CostReport

HELD_OUT = 1000
"""Held-out samples by default; fewer where the training part has no more."""


class TrialError(RuntimeError):
    """A file with a finished trial that is not what was written."""

    exit_status = 1


@dataclass(frozen=True)
class Candidate:
    """One way to compress the network: a method with its options, and a budget."""

    method: Named
    budget: Budget

    def __str__(self) -> str:
        return f"{self.method.label} {self.budget}".strip()


@dataclass(frozen=True)
class Trial:
    """How a network did on the held-out samples.

    Args:
        correct: whether each sample is classified right: bool ``[samples]``.
        loss: mean over the samples.
        cost: counted on the same samples.
        seconds: that it took when it was made.
        reused: it was found on disk.
    """

    correct: Tensor
    loss: float
    cost: CostReport
    seconds: float
    reused: bool = False

    @property
    def accuracy(self) -> float:
        """Share of the samples that are classified right."""
        return float(self.correct.double().mean())

    def figures(self) -> dict[str, Any]:
        """What is told of it: accuracy, loss and costs, JSON-able."""
        return {"accuracy": self.accuracy, "loss": self.loss, **self.cost.totals(), "seconds": self.seconds}


class _Kept(BaseModel):
    """A trial's file. ``correct`` has one bit a sample, in hexadecimal digits, filled up with zeros at its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int
    correct: str
    loss: float
    seconds: float
    cost: dict[str, Any]


class Bench:
    """Where a subject's compressed networks are tried, each from the dense network anew.

    A finished trial is kept under the hash of all that it depends on: the checkpoint, the data, the samples, the
    method with its options, version and budget, and the dense network's own answers and loss, for the code of a
    network of one's own may have changed. So an interrupted search goes on where it was, and another search takes up
    what this one has tried.

    Args:
        subject: the dense network and its data.
        samples: held-out samples to judge on, at most; see :meth:`datamodules.base.BenchmarkDataModule.held_out`.
        seed: of everything random.
        aftercare: see :class:`compressors.base.Compressor`.
        scheme: candidates are judged in whole numbers of these widths; weights that a budget gives a width have that.

    Raises:
        CalibrationTooLarge: no samples are left to judge on.
    """

    def __init__(
        self,
        subject: Subject,
        samples: int = HELD_OUT,
        seed: int = 0,
        aftercare: Sequence[str] = (),
        scheme: FixedPoint | None = None,
    ) -> None:
        self.subject, self.seed, self.aftercare = subject, seed, tuple(aftercare)
        self.scheme = scheme
        self._problems: dict[str, Mapping[str, Problem]] = {}  # which all candidates have in common
        self.held_out = subject.data.held_out(samples)
        data: Any = copy.copy(subject.data)
        data.test_dataloader = lambda: subject.data.held_out_dataloader(samples)
        self.data: LightningDataModule = data

    @property
    def samples(self) -> int:
        """How many samples judge."""
        return len(self.held_out.indices)

    @cached_property
    def dense(self) -> Trial:
        """The dense network on the held-out samples; tried anew by each bench."""
        return self._tried(Identity())

    def compressor(self, candidate: Candidate) -> Compressor:
        """The candidate's compressor, not used yet.

        Raises:
            BudgetError, OptionError: the method has no such budget or option.
            SubjectError: it trains a network from scratch.
        """
        cache = cache_folder() / "eliminations"
        made = build.compressor(candidate.method, candidate.budget, self.seed, cache, self.aftercare)
        if isinstance(made, OBC):
            made.state.problems = self._problems
        return for_trained(made)

    def trial(self, candidate: Candidate) -> Trial:
        """Compress a copy of the dense network and judge it, or find on disk what came out earlier.

        Raises:
            TrialError: the file that keeps it is damaged.
            StoreError: it cannot be kept.
            ScoreError, BudgetError, CalibrationError, LayerError, NetworkError: see there.
        """
        compressor = self.compressor(candidate)
        path = cache_folder() / "trials" / f"{self._key(candidate, compressor)}.json"
        if path.exists():
            return _read(path, self.samples)
        trial = self._tried(compressor, self.scheme_of(candidate))
        write_atomically(path, _kept(trial).model_dump_json())
        return trial

    def scheme_of(self, candidate: Candidate) -> FixedPoint | None:
        """The widths that the candidate has in whole numbers; None where floats are judged."""
        if self.scheme is None or candidate.budget.bits is None:
            return self.scheme
        return replace(self.scheme, weight_bits=candidate.budget.bits)

    def _tried(self, compressor: Compressor, scheme: FixedPoint | None = None) -> Trial:
        done = compress_and_measure(self.subject.module(), self.data, compressor, self.seed)
        if scheme is not None:
            _, done = whole_numbers(done, self.data, scheme)
        return Trial(done.correct, done.metrics.loss, done.cost, sum(done.seconds[part] for part in ("fit", "test")))

    def _key(self, candidate: Candidate, compressor: Compressor) -> str:
        return digest(
            {
                **self._setting,
                "method": candidate.method.name,
                "options": compressor.options_to_dict(),
                "version": compressor.version_with(candidate.method.options, compressor.aftercare),
                "dense": [_bits(self.dense.correct), self.dense.loss],
                **({} if self.scheme is None else {"whole_numbers": asdict(self.scheme)}),
            }
        )

    @cached_property
    def _setting(self) -> dict[str, Any]:
        """What all trials have in common."""
        return {
            **self.subject.description,
            "checkpoint": self.subject.checkpoint.sha256,
            "held_out": self.held_out.indices.tolist(),
            "seed": self.seed,
        }


def _bits(correct: Tensor) -> str:
    return np.packbits(correct.numpy()).tobytes().hex()


def _kept(trial: Trial) -> _Kept:
    return _Kept(
        samples=len(trial.correct),
        correct=_bits(trial.correct),
        loss=trial.loss,
        seconds=trial.seconds,
        cost=trial.cost.to_dict(),
    )


def _read(path: Path, samples: int) -> Trial:
    try:
        kept = _Kept.model_validate_json(path.read_bytes())
        packed = np.frombuffer(bytes.fromhex(kept.correct), dtype=np.uint8)
        correct = torch.from_numpy(np.unpackbits(packed, count=samples).astype(bool))
        cost = CostReport.from_dict(kept.cost)
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrialError(f"{path} is not a finished trial ({reason}): delete it and run again") from error
    if kept.samples != samples:
        raise TrialError(f"{path} is of {kept.samples} samples, not {samples}: delete it and run again")
    return Trial(correct, kept.loss, cost, kept.seconds, reused=True)
