"""What is kept of a run: one small JSON file, written at once or not at all."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from benchmark.files import write_atomically
from benchmark.questions.suite import Question
from hardware.report import CostReport, check_schema

SCHEMA = 4
"""Raised when records get something that an older snnbench cannot read.

2: ``peak_memory_bytes``. 3: budgets in bits and SynOps, after-care and fine-tuning in questions.
"""


class RecordError(ValueError):
    """A record file that cannot be read; names the file and the remedy."""

    exit_status = 1


class NoAnswer(ValueError):
    """A record of a run that failed, where one with results is needed."""

    exit_status = 1


class DenseNetwork(BaseModel):
    """The dense network a run started from. ``reset`` says how a NIR file's neurons were taken to be reset."""

    id: str
    sha256: str
    validation_accuracy: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    reset: str | None = Field(default=None, exclude_if=lambda reset: reset is None)


class Metrics(BaseModel):
    """How good the compressed network is on the test part: share of samples classified correctly, and mean loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float
    loss: float


class LayerAccount(BaseModel):
    """What was done to one layer, without its mask.

    What a method adds of its own (:attr:`compressors.compression.LayerCompression.extra`) is kept in ``model_extra``.

    Attributes:
        name: of the layer within the network.
        shape: of its weight as it is now.
        weights: how many weights the dense layer had.
        kept: how many are left.
        density: share of the dense layer's weights that are left.
        loss: the method's own estimate of the harm; None where it has none.
        bits: width of a weight; None where it is a float.
        before: shape of the dense layer's weight, where channels were taken out.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    density: float
    loss: float | None
    bits: int | None = Field(default=None, exclude_if=lambda bits: bits is None)
    before: tuple[int, ...] | None = Field(default=None, exclude_if=lambda shape: shape is None)


class CompressionAccount(BaseModel):
    """What was done to a network, as :meth:`compressors.compression.Compression.to_dict` tells it.

    Attributes:
        density: share of weights kept over all compressed layers, as achieved.
        seconds: wall time of calibration and compression.
        layers: in order of execution.
        aftercare: what was done afterwards -> names of the modules it was done to.
        stages: what a method that works in stages had at the end of each.
        left_alone: names of other modules with weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    density: float
    seconds: float
    layers: tuple[LayerAccount, ...]
    aftercare: Mapping[str, tuple[str, ...]] = {}
    stages: tuple[Mapping[str, Any], ...] = Field(default=(), exclude_if=lambda stages: not stages)
    left_alone: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)


@dataclass(frozen=True)
class Answer:
    """What a finished run has: the network it started from, and what became of it."""

    dense: DenseNetwork
    metrics: Metrics
    compression: CompressionAccount
    cost: CostReport


class RunRecord(BaseModel):
    """Question and answer of one run.

    ``compression`` says what was done to each layer; ``cost`` has the raw counts, from which SynOps, memory and energy
    follow; ``options`` are all options of the compressor, defaults included (from schema 4 on); ``seconds`` is the wall
    time of each phase; ``peak_memory_bytes`` the process's largest resident set during
    the run, and None where the system does not tell or the record is of schema 1. A failed run has no ``metrics``,
    ``compression`` and ``cost``: they are None here, and ``{}`` in the file.

    Raises:
        ValueError: a finished run lacks a part of its answer, or its cost report is of another schema.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    id: str
    suite: str
    status: Literal["done", "failed"]
    question: Question
    version: int = Field(description="version of the compressor")
    control: bool
    options: dict[str, Any] = Field(default={}, exclude_if=lambda options: not options)
    division: Literal["post-training", "fine-tuned"] = "post-training"
    data: dict[str, Any]
    error: str | None = None
    traceback: str | None = None
    dense: DenseNetwork | None = None
    metrics: Metrics | None = None
    compression: CompressionAccount | None = None
    cost: CostReport | None = None
    seconds: dict[str, float] = {}
    peak_memory_bytes: int | None = None
    environment: dict[str, Any] = {}
    created: str = Field(description="ISO 8601, UTC; not part of the question")

    @field_validator("schema_version")
    @classmethod
    def _not_newer(cls, value: int) -> int:
        if value > SCHEMA:
            raise PydanticCustomError(
                "newer_schema",
                "schema {schema} is newer than this snnbench reads: update snnbench",
                {"schema": value},
            )
        return value

    @field_validator("metrics", "compression", "cost", mode="before")
    @classmethod
    def _absent_if_empty(cls, value: Any) -> Any:
        return None if value == {} else value

    @field_serializer("metrics", "compression", mode="wrap")
    def _empty_if_absent(self, value: Any, serialize: SerializerFunctionWrapHandler) -> Any:
        return {} if value is None else serialize(value)

    @field_serializer("cost")
    def _cost_as_reported(self, cost: CostReport | None) -> dict[str, Any]:
        return {} if cost is None else cost.to_dict()

    @field_validator("cost", mode="before")
    @classmethod
    def _of_present_schema(cls, value: Any) -> Any:
        if isinstance(value, dict) and value:
            check_schema(value)
        return value

    @model_validator(mode="after")
    def _complete(self) -> "RunRecord":
        missing = [name for name in ("dense", "metrics", "compression", "cost") if getattr(self, name) is None]
        if self.status == "done" and missing:
            raise ValueError(f"a finished run without {', '.join(missing)}")
        return self

    @property
    def answer(self) -> Answer:
        """What came out of the run.

        Raises:
            NoAnswer: it failed.
        """
        if self.dense is None or self.metrics is None or self.compression is None or self.cost is None:
            raise NoAnswer(f"run {self.id} failed ({self.error}): it has no results")
        return Answer(self.dense, self.metrics, self.compression, self.cost)


class RecordStore:
    """The records of a results folder: ``records/<data>/<model>/<run id>.json``.

    Args:
        results: the results folder; made when the first record is written.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.root = results / "records"

    def path(self, question: Question, run_id: str) -> Path:
        """Where the record of a question stands."""
        return self.root / question.data.name / question.model.name / f"{run_id}.json"

    def find(self, question: Question, run_id: str) -> RunRecord | None:
        """The finished record of a question, if there is one; a failed one is asked again."""
        path = self.path(question, run_id)
        if not path.exists():
            return None
        record = read_record(path)
        return record if record.status == "done" else None

    def save(self, record: RunRecord) -> Path:
        """Write a record: either the whole file stands there afterwards, or what was there before.

        Raises:
            StoreError: the folder is read-only or full; names the folder.
        """
        path = self.path(record.question, record.id)
        write_atomically(path, json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
        return path

    def lock_path(self, run_id: str) -> Path:
        """The file that whoever works on a run holds a lock on; the system lets go of it when the process ends."""
        folder = self.results / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{run_id}.lock"

    def writable(self) -> None:
        """Find out before the work, rather than after it, that nothing can be written.

        Raises:
            StoreError: the folder is read-only or full.
        """
        probe = self.root / ".probe"
        write_atomically(probe, "")
        probe.unlink()

    def __iter__(self) -> Iterator[RunRecord]:
        """All readable records, in the order of their paths."""
        return iter(self.read()[0])

    def read(self) -> tuple[list[RunRecord], list[str]]:
        """All readable records, in the order of their paths, and what is wrong with each of the others."""
        records, problems = [], []
        for path in self._files():
            try:
                records.append(read_record(path))
            except RecordError as error:
                problems.append(str(error))
        return records, problems

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("*/*/*.json"))


def read_record(path: Path) -> RunRecord:
    """Read one record.

    Raises:
        RecordError: not a record, or of a newer schema.
    """
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        errors = error.errors(include_url=False)
        newer = next((error for error in errors if error["type"] == "newer_schema"), None)
        if newer is not None:
            raise RecordError(f"{path}: {newer['msg']}") from error
        place = ".".join(map(str, errors[0]["loc"]))
        raise _unreadable(path, f"{place}: {errors[0]['msg']}" if place else errors[0]["msg"]) from error
    except OSError as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> RecordError:
    return RecordError(f"{path}: not a run record ({reason.splitlines()[0]}); delete it and run the suite again")
