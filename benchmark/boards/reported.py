"""What papers report, to stand beside what was measured and never among it."""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, model_validator

from benchmark.questions.suite import Count, Strict
from benchmark.wording import count

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Portion = Annotated[float, Field(gt=0, le=1)]

FLOAT_BITS = 32
KNOWN_BY = {"paper": "", "code": ", known from its code", "note": ", known from a summary"}


class Reported(Strict):
    """A published result.

    Attributes:
        data: name of the data set.
        method: what the paper calls it.
        network: what the paper calls it.
        weights: of the dense network.
        timesteps: a sample.
        density: share of the weights that are left.
        bits: width of a weight.
        synops: synaptic operations a sample.
        synops_share: of the dense network's operations.
        megabytes: of the weights as the paper counts, a million bytes each.
        accuracy: percent of the test samples.
        difference: accuracy minus that of the paper's own dense network, in points.
        division: whether weights were trained, under labels.
        paper: the source.
        read: the source itself, its code, or somebody else's summary of it.
        remark: what else has to be known.
    """

    data: str
    method: str
    network: str
    weights: Count | None = None
    timesteps: Count | None = None
    density: Portion | None = None
    bits: Count | None = None
    synops: Positive | None = None
    synops_share: Portion | None = None
    megabytes: Positive | None = None
    accuracy: Annotated[float, Field(ge=0, le=100)] | None = None
    difference: Annotated[float, Field(ge=-100, le=100)] | None = None
    division: Literal["post-training", "trained"] = "post-training"
    paper: Annotated[str, Field(min_length=1)]
    read: Literal["paper", "code", "note"]
    remark: str = ""

    @model_validator(mode="after")
    def _says_how_accurate(self) -> "Reported":
        if self.accuracy is None and self.difference is None:
            raise ValueError("give accuracy, or difference")
        return self

    @property
    def weight_bits(self) -> float | None:
        """Bits of the weights that are left: as the paper counts, else from their number and width."""
        if self.megabytes is not None:
            return 8e6 * self.megabytes
        if self.weights is None or (self.density is None and self.bits is None):
            return None
        return self.weights * (self.density or 1.0) * (self.bits or FLOAT_BITS)

    @property
    def measures(self) -> dict[str, float]:
        """Names of :data:`benchmark.boards.measures.MEASURES` -> the reported value, in its unit; what is known alone.

        Papers count no index: what they call size is near ``weight_bits``, and at most ``stored_bits``.
        """
        known = {
            "accuracy": None if self.accuracy is None else self.accuracy / 100,
            "difference": None if self.difference is None else self.difference / 100,
            "density": self.density,
            "synops": self.synops,
            "weight_bits": self.weight_bits,
            "stored_bits": self.weight_bits,
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def text(self) -> str:
        """One line for people."""
        budget = [
            "" if self.density is None else f"{100 * self.density:g} % of the weights",
            "" if self.bits is None else f"{self.bits} bit",
            "" if self.megabytes is None else f"{self.megabytes:g} MB",
            "" if self.synops is None else f"{count(self.synops)} operations",
            "" if self.synops_share is None else f"{100 * self.synops_share:g} % of the operations",
        ]
        outcome = [
            "" if self.accuracy is None else f"{self.accuracy:.2f} %",
            "" if self.difference is None else f"{self.difference:+.2f} points",
        ]
        network = self.network if self.timesteps is None else f"{self.network}, T={self.timesteps}"
        at = ", ".join(filter(None, budget))
        remark = f"; {self.remark}" if self.remark else ""
        return (
            f"{self.method} ({network}){' at ' + at if at else ''}: {', '.join(filter(None, outcome))} "
            f"({self.paper}{KNOWN_BY[self.read]}{remark})"
        )


@cache
def reported() -> tuple[Reported, ...]:
    """All published results known to the project."""
    text = files("benchmark.boards").joinpath("reported.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Reported, ...]).validate_python(yaml.safe_load(text))


def published(data: str, division: str) -> list[Reported]:
    """The published results that belong beside a table of this data set and division."""
    kind = "post-training" if division.startswith("post-training") else "trained"
    return [item for item in reported() if (item.data, item.division) == (data, kind)]


def beside(data: str, division: str) -> list[str]:
    """The same, one line each."""
    return [item.text for item in published(data, division)]


def marks(data: str, division: str, x: str, y: str) -> list[tuple[float, float, Reported]]:
    """Where the published results that know both measures stand in a plot, in the measures' units."""
    known = ((item.measures, item) for item in published(data, division))
    return [(values[x], values[y], item) for values, item in known if x in values and y in values]


def as_points(data: str, division: str) -> list[dict[str, Any]]:
    """The published results of a table for a page: what each measures, in its unit, and its line."""
    return [{"measured": item.measures, "text": item.text} for item in published(data, division)]
