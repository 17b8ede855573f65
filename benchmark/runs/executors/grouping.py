"""Which runs go together when several are done at once."""

from collections.abc import Iterable
from itertools import groupby

from benchmark.questions.suite import Question


def shared_work(questions: Iterable[Question]) -> list[list[Question]]:
    """Neighbours that differ in nothing but the budget, in one list: one elimination may serve them all.

    Apart, two processes would do the same elimination at the same time.
    """
    groups = groupby(questions, lambda question: question.model_dump_json(exclude={"budget"}))
    return [list(group) for _, group in groups]
