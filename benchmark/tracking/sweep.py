"""A suite as a sweep of Weights & Biases: ordinary agents run its questions, and each leaves an ordinary record."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from benchmark.questions.suite import Model, Question, Suite, digest


class SweepError(ValueError):
    """A question that a suite does not have; names it and the remedy."""

    exit_status = 2


def sweep(suite: Suite, source: str, results: Path, project: str, questions: Iterable[Question]) -> dict[str, Any]:
    """The sweep of a suite: a grid with one point per run.

    Not every compressor meets every network or budget, so the grid is over the runs and not over their parts.

    Args:
        suite: the suite.
        source: its name or path, as agents will give it to ``snnbench run``.
        results: the results folder that the agents share.
        project: W&B project.
        questions: the suite's runs.
    """
    return {
        "name": suite.name,
        "description": suite.description,
        "project": project,
        "method": "grid",
        "metric": {"name": "accuracy", "goal": "maximize"},
        "parameters": {"only": {"values": [key(question) for question in questions]}},
        "command": ["${env}", "snnbench", "run", source, "--results", str(results), "${args}"],
    }


def as_yaml(content: dict[str, Any]) -> str:
    """A sweep as the file that ``wandb sweep`` takes."""
    return yaml.safe_dump(content, sort_keys=False, width=120)


def key(question: Question) -> str:
    """A question's name on a command line: its parts for people, and a hash that tells it from all others."""
    words = (
        question.data.name,
        question.model.name,
        question.compressor.name,
        question.budget.short.replace(" ", "_") or "dense",
        str(question.seed),
    )
    return "-".join([*words, digest(question.model_dump())])


def only(suite: Suite, wanted: str, questions: Iterable[Question]) -> Suite:
    """The part of a suite that asks nothing but the question with that key.

    Raises:
        SweepError: there is none; the suite has changed since the sweep was made.
    """
    question = next((question for question in questions if key(question) == wanted), None)
    if question is None:
        raise SweepError(f"suite {suite.name} has no run {wanted!r}: it has changed since, so make the sweep anew")
    return suite.model_copy(
        update={
            "data": (question.data,),
            "models": (Model(**question.model.model_dump()),),
            "compressors": (question.compressor,),
            **question.budgets(),
            "seeds": (question.seed,),
            "calibration_samples": (question.calibration_samples,),
        }
    )
