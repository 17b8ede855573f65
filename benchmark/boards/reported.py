"""What papers report, to stand beside what was measured."""

from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import TypeAdapter

from benchmark.questions.suite import Strict


class Reported(Strict):
    """A published result: ``difference`` in points to the paper's own dense network; ``sparsity`` in [0, 1).

    All of them are post-training results so far.
    """

    data: str
    method: str
    network: str
    sparsity: float
    difference: float
    paper: str
    read: Literal["paper", "note"]

    @property
    def text(self) -> str:
        """One line for people."""
        known_by = "" if self.read == "paper" else ", known from a summary"
        return (
            f"{self.method} ({self.network}) at {100 * (1 - self.sparsity):g} % of the weights: "
            f"{self.difference:+.2f} points ({self.paper}{known_by})"
        )


@cache
def reported() -> tuple[Reported, ...]:
    """All published results known to the project."""
    text = files("benchmark.boards").joinpath("reported.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Reported, ...]).validate_python(yaml.safe_load(text))


def beside(data: str, division: str) -> list[str]:
    """The published results, one line each, that belong beside a table of this data set and division."""
    return [item.text for item in reported() if item.data == data and division == "post-training"]
