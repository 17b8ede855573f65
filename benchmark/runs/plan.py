"""What a suite still has to do, and how long and how much memory that may take, judged by earlier records."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from pydantic import BaseModel

from benchmark.questions.suite import Question, digest
from benchmark.records import RunRecord
from benchmark.wording import seconds, size

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Step:
    """The runs of one compressor on one network and data set.

    Attributes:
        runs: how many there are.
        to_do: how many of them have no finished record.
        seconds: estimate for one of them, dense training apart; None without an earlier record to judge by.
        memory_bytes: the most that an earlier one took; None without one that says.
    """

    data: str
    model: str
    compressor: str
    runs: int
    to_do: int
    seconds: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Plan:
    """All steps of a suite; ``training_seconds`` are those of the dense networks that no record tells of yet."""

    suite: str
    steps: tuple[Step, ...]
    networks_to_train: int
    training_seconds: float | None

    @property
    def to_do(self) -> int:
        """Runs without a finished record."""
        return sum(step.to_do for step in self.steps)

    @property
    def unknown(self) -> int:
        """Runs to do of which nothing is known to estimate their time by."""
        return sum(step.to_do for step in self.steps if step.seconds is None)

    @property
    def seconds(self) -> float:
        """Estimated time of all that can be estimated, one run after the other."""
        runs = sum(step.to_do * step.seconds for step in self.steps if step.seconds is not None)
        return runs + (self.training_seconds or 0.0)

    @property
    def memory_bytes(self) -> int | None:
        """The most that a run to do may take, as far as known."""
        return max((step.memory_bytes for step in self.steps if step.to_do and step.memory_bytes), default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the steps and the sums."""
        sums = {name: getattr(self, name) for name in ("to_do", "unknown", "seconds", "memory_bytes")}
        return {**asdict(self), **sums}


def plan(
    suite: str, questions: Sequence[Question], records: Iterable[RunRecord], version: Callable[[Question], int]
) -> Plan:
    """Compare a suite with the records there are.

    No data are opened: a record counts for a question that reads the same and whose compressor is of its version.
    Should the data themselves have changed since, the runs are done anew, and the plan is too small.

    Args:
        suite: its name.
        questions: its runs.
        records: earlier records, of this suite or others.
        version: the present version of what a question's method does.
    """
    finished, keys = [record for record in records if record.status == "done"], _Keys()
    answered = {(keys.question(record.question), record.version) for record in finished}
    todo = [question for question in questions if (keys.question(question), version(question)) not in answered]
    networks = {keys.network(question): question for question in todo}
    trained = {keys.network(record.question) for record in finished}
    untrained = [
        question for network, question in networks.items() if network not in trained and not question.model.checkpoint
    ]
    groups, waiting = _grouped(questions, keys.group), _grouped(todo, keys.group)
    return Plan(
        suite,
        tuple(_step(questions, len(waiting[group]), finished) for group, questions in groups.items()),
        len(untrained),
        _training_seconds(untrained, finished, keys.training),
    )


def _step(questions: Sequence[Question], to_do: int, finished: Sequence[RunRecord]) -> Step:
    question = questions[0]
    alike = _alike(question, finished)
    seconds = [r.seconds["fit"] + r.seconds["test"] for r in alike if {"fit", "test"} <= r.seconds.keys()]
    memory = [record.peak_memory_bytes for record in alike if record.peak_memory_bytes]
    return Step(
        data=question.data.name,
        model=question.model.label,
        compressor=question.compressor.label,
        runs=len(questions),
        to_do=to_do,
        seconds=median(seconds) if seconds else None,
        memory_bytes=max(memory, default=None),
    )


def _alike(question: Question, finished: Sequence[RunRecord]) -> list[RunRecord]:
    """Records of the same work at any budget and seed; without one, of the same method with other options.

    Whether and how a network is fine-tuned decides how long a run takes, so it has to be the same.
    """

    def work(question: Question) -> tuple[Any, ...]:
        return question.data, question.model, question.course

    same_work = [record for record in finished if work(record.question) == work(question)]
    same = [record for record in same_work if record.question.compressor == question.compressor]
    return same or [record for record in same_work if record.question.compressor.name == question.compressor.name]


def _training_seconds(
    untrained: Sequence[Question], finished: Sequence[RunRecord], training: Callable[[Question], Key]
) -> float | None:
    """Time to train these networks, judged by the same ones at other seeds; None if that is unknown for any."""
    known: dict[Key, list[float]] = defaultdict(list)
    for record in finished:
        if record.dense is not None and record.dense.seconds is not None:
            known[training(record.question)].append(record.dense.seconds)
    if any(training(question) not in known for question in untrained):
        return None
    return sum(median(known[training(question)]) for question in untrained)


def _grouped(questions: Iterable[Question], key: Callable[[Question], Key]) -> dict[Key, list[Question]]:
    groups: dict[Key, list[Question]] = defaultdict(list)
    for question in questions:
        groups[key(question)].append(question)
    return groups


class _Keys:
    """What questions have in common, as digests of their parts whatever the order of keys.

    Thousands of questions share what few parts there are, so each part is written out once. The questions must live as
    long as this does.
    """

    def __init__(self) -> None:
        self._digests: dict[int, str] = {}

    def _digest(self, part: BaseModel) -> str:
        if id(part) not in self._digests:
            self._digests[id(part)] = _digest(part.model_dump_json())
        return self._digests[id(part)]

    def question(self, question: Question) -> Key:
        rest = (question.budget, question.calibration_samples, question.aftercare, question.course)
        return (*self.network(question), self._digest(question.compressor), *rest)

    def group(self, question: Question) -> Key:
        return tuple(map(self._digest, (question.data, question.model, question.compressor)))

    def network(self, question: Question) -> Key:
        return (*self.training(question), question.seed)

    def training(self, question: Question) -> Key:
        return tuple(map(self._digest, (question.data, question.model, question.training)))


@lru_cache(maxsize=4096)
def _digest(text: str) -> str:
    return digest(json.loads(text))


def show(plan: Plan, jobs: int = 1) -> str:
    """A plan for people."""
    lines = [f"{plan.suite}: {plan.to_do} of {sum(step.runs for step in plan.steps)} runs to do"]
    lines += [_line(step) for step in plan.steps if step.to_do]
    if plan.networks_to_train:
        time = "" if plan.training_seconds is None else f", about {seconds(plan.training_seconds)}"
        lines.append(f"  {plan.networks_to_train} dense networks to train{time or ', time unknown'}")
    if plan.to_do:
        lines.append(_sums(plan, jobs))
    return "\n".join(lines)


def _line(step: Step) -> str:
    each = "time unknown" if step.seconds is None else f"about {seconds(step.seconds)} each"
    memory = "" if step.memory_bytes is None else f", up to {size(8 * step.memory_bytes)}"
    return f"  {step.to_do:>4} x {step.data} {step.model} {step.compressor}: {each}{memory}"


def _sums(plan: Plan, jobs: int) -> str:
    if plan.unknown == plan.to_do:
        return "  no earlier record to judge by"
    rest = f", and {plan.unknown} runs without an earlier record to judge by" if plan.unknown else ""
    memory = "" if plan.memory_bytes is None else f"; memory up to {size(8 * plan.memory_bytes * jobs)}"
    together = f" in {jobs} processes" if jobs > 1 else ""
    return f"  about {seconds(plan.seconds / jobs)}{together}{rest}{memory}"
