"""Sweeps of Weights & Biases, which ordinary agents do: the runs of a suite, or a method's options.

Of a suite each run leaves an ordinary record. Options are judged by the accuracy, on held-out training samples, of the
best network within a given memory: no test sample takes part in a choice.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmark.questions.suite import Model, Named, Question, Suite, digest
from compressors.registry import COMPRESSORS


class SweepError(ValueError):
    """A sweep that cannot be: a question that its suite does not have, an option that its method does not have."""

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


OBJECTIVE = "accuracy at memory"
"""What is made large: the accuracy on held-out samples of the best network within the memory."""


def over_options(method: Named, varied: Mapping[str, Any], trial: Sequence[str], project: str) -> dict[str, Any]:
    """The sweep over some options of a method.

    Args:
        method: the method, with the options that stay as they are.
        varied: option -> a list of values, or ``{min: ..., max: ...}`` with W&B's ``distribution`` beside them. Lists
            alone make a grid; with a range, W&B chooses by what it has seen (``bayes``).
        trial: words of the command that does one trial; the options of the trial are put behind them as JSON.
        project: W&B project.

    Raises:
        SweepError: the method has no such option, or what is said of it is neither list nor range.
    """
    parameters = {name: _parameter(method, name, values) for name, values in varied.items()}
    if not parameters:
        raise SweepError("nothing is varied: give --vary, as in --vary damping=[0.001,0.01,0.1]")
    return {
        "name": f"{method.label}: {', '.join(varied)}",
        "project": project,
        "method": "grid" if all("values" in known for known in parameters.values()) else "bayes",
        "metric": {"name": OBJECTIVE, "goal": "maximize"},
        "parameters": parameters,
        "command": ["${env}", *trial, "--options", "${args_json}"],
    }


def _parameter(method: Named, name: str, values: Any) -> dict[str, Any]:
    options = method.found_in(COMPRESSORS).load().options()
    if name not in options:
        raise SweepError(f"{method.name} has no option {name!r} to vary: it has {', '.join(sorted(options))}")
    if isinstance(values, list) and values:
        return {"values": values}
    if isinstance(values, dict) and {"min", "max"} <= values.keys() <= {"min", "max", "distribution"}:
        return dict(values)
    raise SweepError(f"{name} varies over {values!r}: give a list of values, or {{min: 0.001, max: 0.1}}")


def options_of(text: str) -> dict[str, Any]:
    """A trial's options, as an agent of W&B gives them.

    Raises:
        SweepError: they are no mapping in JSON.
    """
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise SweepError(f'options {text!r} are no mapping in JSON, such as {{"damping": 0.01}}')
    return options
