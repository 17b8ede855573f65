"""What is kept of a run: one small JSON file, written at once or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.files import write_atomically
from benchmark.questions.suite import Question

SCHEMA = 3
"""Raised when records get something that an older snnbench cannot read.

2: ``peak_memory_bytes``. 3: budgets in bits and SynOps, after-care and fine-tuning in questions.
"""


class RecordError(ValueError):
    """A record file that cannot be read; names the file and the remedy."""

    exit_status = 1


class DenseNetwork(BaseModel):
    """The dense network a run started from."""

    id: str
    sha256: str
    validation_accuracy: float | None = None
    epochs: int | None = None
    seconds: float | None = None


class RunRecord(BaseModel):
    """Question and answer of one run.

    ``metrics`` holds ``accuracy`` (share of test samples) and ``loss``; ``compression`` what was done to each layer
    (:meth:`compressors.base.Compression.to_dict`); ``cost`` the raw counts (:meth:`hardware.CostReport.to_dict`), from
    which SynOps, memory and energy follow; ``seconds`` the wall time of each phase; ``peak_memory_bytes`` the process's
    largest resident set during the run, and None where the system does not tell or the record is of schema 1.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    id: str
    suite: str
    status: Literal["done", "failed"]
    question: Question
    version: int = Field(description="version of the compressor")
    control: bool
    division: Literal["post-training", "fine-tuned"] = "post-training"
    data: dict[str, Any]
    error: str | None = None
    traceback: str | None = None
    dense: DenseNetwork | None = None
    metrics: dict[str, float] = {}
    compression: dict[str, Any] = {}
    cost: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    peak_memory_bytes: int | None = None
    environment: dict[str, Any] = {}
    created: str = Field(description="ISO 8601, UTC; not part of the question")


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
        """All readable records, in the order of their paths; see :meth:`problems` for the others."""
        for path in self._files():
            try:
                yield read_record(path)
            except RecordError:
                continue

    def problems(self) -> list[str]:
        """What is wrong with the records that cannot be read."""
        found = []
        for path in self._files():
            try:
                read_record(path)
            except RecordError as error:
                found.append(str(error))
        return found

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("*/*/*.json"))


def read_record(path: Path) -> RunRecord:
    """Read one record.

    Raises:
        RecordError: not a record, or of a newer schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema_version", 0) > SCHEMA:
            raise RecordError(
                f"{path}: schema {content['schema_version']} is newer than this snnbench reads: update snnbench"
            )
        return RunRecord.model_validate(content)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise RecordError(f"{path}: not a run record ({first}); delete it and run the suite again") from error
