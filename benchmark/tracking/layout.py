"""How a project of Weights & Biases is laid out: names, tags and looks of its runs, as on the leaderboard's page."""

from typing import Any

from benchmark.boards.standings import DENSE
from benchmark.boards.styles import style
from benchmark.boards.titles import data_title, network_title
from benchmark.questions.suite import Question

LONGEST_TAG = 64
"""Characters that W&B takes."""


def subject_of(question: Question) -> str:
    """Data set, network and time steps, as a card of the page is titled: ``N-MNIST · small CNN · T = 10``."""
    data = data_title(question.data, str(question.data.options.get("split", "official")))
    return f"{data} · {network_title(question.model)} · T = {question.data.timesteps}"


def tags_of(question: Question, *, dense: bool = False) -> list[str]:
    """What runs are found by: data set, network, and of a compressed one method and family."""
    data, network, _ = subject_of(question).rsplit(" · ", 2)
    method = question.compressor.name
    of_method = [] if dense or method == DENSE else [method, style(method).family]
    return [tag[:LONGEST_TAG] for tag in (data, network, *of_method)]


def look_of(question: Question, control: bool) -> dict[str, Any]:
    """A method's family, colour and mark on the page."""
    look = style(question.compressor.name, control)
    return {"family": look.family, "colour": look.colour, "mark": look.symbol}
