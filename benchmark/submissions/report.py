"""What a pull request says of its records, and the files that it brings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmark.boards.markdown import cell, line
from benchmark.boards.repeatable import origin
from benchmark.boards.standings import standings
from benchmark.files import write_together
from benchmark.records import SCHEMA, RecordStore, RunRecord, Submission, as_text
from benchmark.submissions.changes import changes
from benchmark.submissions.checks import Check, Checked

MARKS = {True: "passed", False: "FAILED", None: "not looked at"}


@dataclass(frozen=True)
class Report:
    """What was found of submitted records, and what they would change.

    Args:
        checked: each record with its checks.
        again: the row that was asked again, if one was to be.
        changed: lines of Markdown, see :func:`benchmark.submissions.changes.changes`.
    """

    checked: tuple[Checked, ...]
    again: Check | None
    changed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(found.passed for found in self.checked) and (self.again is None or self.again.passed is not False)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and texts."""
        return {
            "passed": self.passed,
            "records": [
                {
                    "path": str(found.path),
                    "run": None if found.record is None else found.record.id,
                    "passed": found.passed,
                    "origin": {} if found.record is None else origin(found.record),
                    "checks": [vars(check) for check in found.checks],
                }
                for found in self.checked
            ],
            "again": None if self.again is None else vars(self.again),
        }


def report(checked: Iterable[Checked], known: Sequence[RunRecord], again: Check | None = None) -> Report:
    """What there is to say of checked records, beside those that the project has."""
    found = tuple(checked)
    taken = [one.record for one in found if one.record is not None and one.passed]
    ids = {record.id for record in taken}
    before = [record for record in known if record.id not in ids]
    return Report(found, again, tuple(changes(standings(known), standings([*before, *taken]))))


def markdown(found: Report) -> str:
    """For people: what does not hold first, then each record with its origin, and what the tables would show."""
    good = sum(one.passed for one in found.checked)
    lines = [f"# {good} of {len(found.checked)} records pass", ""]
    if found.again is not None:
        lines += [f"Asked again here: **{MARKS[found.again.passed]}** {cell(found.again.found)}", ""]
    for one in sorted(found.checked, key=lambda one: one.passed):
        lines += [*_record(one), ""]
    return "\n".join([*lines, "## What the tables would show", "", *found.changed, ""])


def _record(one: Checked) -> list[str]:
    title = one.path.name if one.record is None else f"{one.record.id} {one.record.question.label}"
    lines = [f"## {cell(title)}: {MARKS[one.passed]}", ""]
    if one.record is not None:
        lines += [f"- {name}: {cell(text)}" for name, text in origin(one.record).items()]
    rows = [line([check.name, MARKS[check.passed], cell(check.found)]) for check in one.checks]
    return [*lines, "", line(["check", "", "found"]), line([":---"] * 3), *rows]


class SubmissionError(ValueError):
    """What is said of a submission's origin cannot stand in a record; says which part and why."""

    exit_status = 2


def require_sayable(by: str, hardware: str | None, code: str) -> None:
    """Find out before the work that a name, a machine or an address cannot stand in a record.

    Raises:
        SubmissionError: it is too long, or has characters that no table can show.
    """
    try:
        Submission(by=by, hardware=hardware or "unknown", code=code, repeated="")
    except ValidationError as error:
        first = error.errors()[0]
        raise SubmissionError(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from None


def signed(found: Checked, by: str, hardware: str | None, code: str) -> Checked:
    """A record with whose it is, and when the second run agreed; one that lacks that stays as it is."""
    record, second = found.record, found.second
    if record is None or second is None or not found.passed:
        return found
    machine = " ".join(str(record.environment.get(key, "")) for key in ("device", "processor", "platform"))
    submission = Submission(
        by=by, hardware=hardware or machine.strip()[:200] or "unknown", code=code, repeated=second.created
    )
    return replace(found, record=record.model_copy(update={"submission": submission, "schema_version": SCHEMA}))


def write(found: Report, records: Sequence[RunRecord], into: Path) -> None:
    """Write what a pull request needs: the records where they belong, and its text. All of it or nothing.

    Raises:
        StoreError: the folder is read-only or full.
    """
    store = RecordStore(into / "results")
    files: dict[Path, str | bytes] = {store.path(one.question, one.id): as_text(one) for one in records}
    write_together({**files, into / "pull-request.md": markdown(found)})
