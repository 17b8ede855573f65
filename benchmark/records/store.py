"""How records are kept and read: one small JSON file each, written at once or not at all."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import SchemaValidator

from benchmark.files import require_writable, write_atomically
from benchmark.questions.names import UNPRINTABLE, plain, showable
from benchmark.questions.suite import Question
from benchmark.records.run_record import RunRecord
from datamodules.files import sweep

LARGEST_FILE = 2**24
"""Bytes; a record of a network of a hundred layers has a hundredth of it."""

FREE_TEXTS = ("error", "traceback")
"""What may have several lines: nothing else in a record has."""

LINES = str.maketrans("\n\t", "  ")

_log = logging.getLogger(__name__)


class RecordError(ValueError):
    """A record file that cannot be read; names the file and the remedy."""

    exit_status = 1


def _exact(schema: Any) -> Any:
    """A schema whose numbers, texts and truths are of no other type than they are declared."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_exact, schema))
    if not isinstance(schema, dict):
        return schema
    parts = {key: _exact(part) for key, part in schema.items()}
    return parts | {"strict": True} if parts.get("type") in ("bool", "float", "int", "str") else parts


_READER = SchemaValidator(_exact(RunRecord.__pydantic_core_schema__))
"""Reads a record and converts nothing in the cost report: true is no number there either, and 5.0 no whole one."""


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
        write_atomically(path, as_text(record))
        return path

    def lock_path(self, run_id: str) -> Path:
        """The file that whoever works on a run holds a lock on; the system lets go of it when the process ends."""
        folder = self.results / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{run_id}.lock"

    def prepare(self) -> None:
        """Find out before the work that no record can be written, and sweep away what killed processes left behind.

        Raises:
            StoreError: the folder is read-only or full.
        """
        require_writable(self.root / "record.json")
        sweep(self.results, ".partial-*", ".locks/*.lock", "records/.probe", "records/**/.partial-*")

    def __iter__(self) -> Iterator[RunRecord]:
        """All readable records, in the order of their paths; a warning names each of the others."""
        return self.each(lambda problem: _log.warning("%s", problem))

    def read(self) -> tuple[list[RunRecord], list[str]]:
        """All readable records, in the order of their paths, and what is wrong with each of the others."""
        problems: list[str] = []
        return list(self.each(problems.append)), problems

    def each(self, unreadable: Callable[[str], None]) -> Iterator[RunRecord]:
        """The readable records, one by one, in the order of their paths; ``unreadable`` is told of the others."""
        for path in self._files():
            try:
                yield read_record(path)
            except RecordError as error:
                unreadable(str(error))

    def items(self) -> Iterator[tuple[Path, RunRecord]]:
        """The readable records with their files; a warning names each of the others."""
        for path in self._files():
            try:
                yield path, read_record(path)
            except RecordError as error:
                _log.warning("%s", error)

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("*/*/*.json"))


def as_text(record: RunRecord) -> str:
    """A record as it stands in its file."""
    return json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def read_record(path: Path) -> RunRecord:
    """Read one record, and believe nothing of it: see the module.

    Raises:
        RecordError: not a record, or of a newer schema; says what is wrong with it and where.
    """
    try:
        content = _content(path)
        record: RunRecord = _READER.validate_python(content)
        _refuse_converted(content, record.model_dump(mode="json"))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        newer = next((error for error in errors if error["type"] == "newer_schema"), None)
        if newer is not None:
            raise RecordError(showable(f"{path}: {newer['msg']}")) from error
        place = ".".join(map(str, errors[0]["loc"]))
        raise _unreadable(path, f"{place}: {errors[0]['msg']}" if place else errors[0]["msg"]) from error
    except (OSError, ValueError, RecursionError) as error:  # of JSON, and of the rules below
        raise _unreadable(path, str(error)) from error
    return record


def _content(path: Path) -> dict[str, Any]:
    """What stands in a record's file, made of plain values only.

    Raises:
        ValueError: it is too large, no JSON, or has a value that is not plain (see :func:`plain`).
    """
    if not path.is_file():
        raise ValueError("it is no file")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE} bytes")
    text = path.read_text(encoding="utf-8")
    content = json.loads(text, parse_float=_finite, parse_constant=_finite)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    for name in FREE_TEXTS:
        if UNPRINTABLE.search(str(content.get(name)).translate(LINES)):
            raise ValueError(f"{name} holds a character that cannot be shown")
    harmless = text.isascii() and "\\" not in text and "\x7f" not in text  # so that the bulk need not be looked through
    known = {*FREE_TEXTS, "cost"} if harmless else {*FREE_TEXTS}
    plain({name: value for name, value in content.items() if name not in known})
    return content


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is no finite number")
    return value


def _refuse_converted(written: Any, read: Any, place: str = "") -> None:
    """Compare a file's content with what was read out of it: a value that had to be converted was of another type.

    Raises:
        ValueError: names the place of the first that was.
    """
    if written == read:
        return
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            _refuse_converted(value, read.get(key), f"{place}.{key}" if place else key)
    elif isinstance(written, list) and isinstance(read, list):
        for index, (value, other) in enumerate(zip(written, read, strict=True)):
            _refuse_converted(value, other, f"{place}.{index}")
    else:
        raise ValueError(f"{place}: {json.dumps(written)[:40]} is of the wrong type")


def _unreadable(path: Path, reason: str) -> RecordError:
    name = " ".join(str(path).splitlines())
    told = f"{name}: not a run record ({' '.join(reason.split())[:300]}); delete it and run the suite again"
    return RecordError(showable(told))
