"""Claims as they are written down: who says what, where it was read, and which records would bear it out.

A claim holds no verdict. It has comparisons, from which :mod:`benchmark.boards.claims.verdicts` works one out, or the
reason why no record could.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from benchmark.boards.measures import MEASURES
from benchmark.boards.standings import DENSE
from benchmark.catalog import DATA, MODELS
from benchmark.questions.build import GIVEN_TO_COMPRESSORS, GIVEN_TO_DATA, GIVEN_TO_MODELS, check_options, compressor
from benchmark.questions.names import Named, showable
from benchmark.questions.reading import YAMLFault, line_of, read_yaml
from benchmark.questions.suite import Aftercare, Count, Division, Strict
from compressors.budget import EXAMPLES, Budget, OptionError
from compressors.registry import COMPRESSORS, UnknownName, suggestion
from hardware.registry import Registry

CLAIMS = Path(__file__).parent / "claims.yaml"

GAIN = "accuracy"
"""The measure that is compared by its difference, in points; all others are compared by their ratio."""

ADDED = {
    "fit_seconds": "wall time from the dense network to the compressed one, training included, in seconds",
    "timesteps": "time steps a sample",
}
"""What is compared beside the measures of a board."""

READ = {
    "paper": "in the paper",
    "abstract": "in the abstract",
    "code": "in the authors' code",
    "note": "in somebody else's summary",
}
"""How a source was read."""

Place = tuple[int | str, ...]
"""Keys and numbers that lead to something in a file."""


class ClaimsError(ValueError):
    """A file of claims that cannot be used: a line for each mistake, which names file, line and remedy."""

    exit_status = 2


def _one_or_several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class Rows(Strict):
    """Rows of the leaderboard; what is not given may be anything, after-care apart.

    Attributes:
        method: the compressor; without options, with none but its defaults.
        data: the set, or one of several, and options that the rows must have.
        model: the network, likewise.
        timesteps: of the data.
        budget: what was asked of the method; a density is met by those within a tenth of it.
        division: what the method was given to work with.
        aftercare: what was done afterwards, reconstruction apart, which is a division.
        calibration_samples: that the method may look at.
    """

    method: Named | None = None
    data: Annotated[tuple[Named, ...], BeforeValidator(_one_or_several)] = ()
    model: Named | None = None
    timesteps: Count | None = None
    budget: Budget | None = None
    division: Division | None = None
    aftercare: tuple[Aftercare, ...] = ()
    calibration_samples: Count | None = None

    def joined(self, more: "Rows") -> "Rows":
        """These rows, further limited by what ``more`` gives."""
        return self.model_copy(update={name: getattr(more, name) for name in more.model_fields_set})

    def named(self) -> Iterator[tuple[str, Named, Registry, set[str]]]:
        """What the rows are named by: kind, name, where it must be known, and options that are not its own."""
        if self.method is not None:
            yield "compressor", self.method, COMPRESSORS, GIVEN_TO_COMPRESSORS
        if self.model is not None:
            yield "model", self.model, MODELS, GIVEN_TO_MODELS
        yield from (("data set", named, DATA, GIVEN_TO_DATA) for named in self.data)


def _measure(name: str) -> str:
    if name not in {**MEASURES, **ADDED} or name == "difference":
        raise ValueError(f"there is no measure {name!r}: known are {', '.join([*MEASURES, *ADDED])}")
    return name


class Comparison(Strict):
    """A measure of some rows against the same of others; in each setup, at each budget that both have.

    What ``of`` and ``against`` do not say must be the same for both, the dense network apart, which has no budget.

    Attributes:
        of: the rows that something is claimed of.
        against: those that they are compared with.
        at: what holds for both.
        measure: accuracy is compared by its difference in points, ``of`` minus ``against``; every other measure by how
            many times smaller it is in ``of``.
        at_least: the claimed difference or factor.
        in_part: what is worth something still: no difference and a factor of 1, unless it says otherwise.
    """

    of: Rows
    against: Rows
    at: Rows = Rows()
    measure: Annotated[str, AfterValidator(_measure)] = GAIN
    at_least: float = Field(allow_inf_nan=False)
    in_part: float = Field(default=None, allow_inf_nan=False)  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _no_effect_by_default(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "in_part" in content:
            return content
        return {**content, "in_part": 0.0 if content.get("measure", GAIN) == GAIN else 1.0}

    @model_validator(mode="after")
    def _makes_sense(self) -> "Comparison":
        if self.in_part > self.at_least:
            raise ValueError(f"in_part is {self.in_part:g}, more than at_least, {self.at_least:g}: give less")
        if self.measure != GAIN and self.in_part <= 0:
            raise ValueError(f"in_part is {self.in_part:g}, and a factor is above 0")
        for side, rows in (("of", self.left), ("against", self.right)):
            if rows.method is None:
                raise ValueError(f"{side} names no method")
        return self

    @cached_property
    def left(self) -> Rows:
        """The rows ``of``, with what holds for both."""
        return self.at.joined(self.of)

    @cached_property
    def right(self) -> Rows:
        """The rows ``against``, with what holds for both; the dense network is found by its data and model."""
        joined = self.at.joined(self.against)
        dense = joined.method is not None and joined.method.name == DENSE
        keys = ("method", "data", "model", "timesteps")
        return Rows(**{key: getattr(joined, key) for key in keys}) if dense else joined

    def own(self, *fields: str) -> bool:
        """Whether one of the two sides says one of these for itself, so that they may differ in it."""
        return bool({*fields} & (self.of.model_fields_set | self.against.model_fields_set))


Text = Annotated[str, Field(min_length=1)]


class Claim(Strict):
    """Something that is said of a method.

    Attributes:
        id: a short name, by which pages refer to it.
        method: the compressor that it is about; one that is not here can only be untestable.
        says: the claim in one sentence.
        who: whose claim it is: a paper, its code, a review.
        where: the address of what was read.
        read: how it was read, one of :data:`READ`.
        figure: the exact figures as published, with the network and data that they are of.
        differs: what the comparisons do otherwise than the source.
        tests: the comparisons that the verdict is worked out from.
        untestable: why there are none.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    method: Text
    says: Text
    who: Text
    where: Text
    read: Literal["paper", "abstract", "code", "note"]
    figure: Text
    differs: str = ""
    tests: tuple[Comparison, ...] = ()
    untestable: str = ""

    @model_validator(mode="after")
    def _is_tested_or_says_why_not(self) -> "Claim":
        if bool(self.tests) == bool(self.untestable):
            raise ValueError("give either tests, or in untestable the reason why there are none")
        return self

    @property
    def source(self) -> str:
        """Who says it, and where and how that was read."""
        return f"{self.who}; read {READ[self.read]}: {self.where}"


def load_claims(path: Path = CLAIMS) -> tuple[Claim, ...]:
    """Read a file of claims; names and options in it are known ones.

    Raises:
        ClaimsError: it is none, names something that there is not, or an id twice.
    """
    try:
        root, content = read_yaml(path.read_text(encoding="utf-8"))
        claims = TypeAdapter(tuple[Claim, ...]).validate_python(content)
    except (OSError, UnicodeDecodeError) as error:
        raise ClaimsError(f"{path}: {error}") from error
    except YAMLFault as error:
        raise ClaimsError(f"{path}:{error.line}: {error}") from error
    except ValidationError as error:
        raise ClaimsError("\n".join(_told(path, root, fault) for fault in error.errors())) from None
    problems = [f"{path}:{line_of(root, place)}: {reason}" for place, reason in _problems(claims)]
    if problems:
        raise ClaimsError("\n".join(problems))
    return claims


def _told(path: Path, root: yaml.Node | None, fault: Any) -> str:
    place = [*map(str, fault["loc"][1:])]
    reason = " ".join(fault["msg"].removeprefix("Value error, ").split())
    return showable(f"{path}:{line_of(root, fault['loc'])}: {'.'.join(place) + ': ' if place else ''}{reason}")


def _problems(claims: tuple[Claim, ...]) -> Iterator[tuple[Place, str]]:
    """What a file of claims names that there is not: the place and the reason."""
    seen: set[str] = set()
    for number, claim in enumerate(claims):
        if claim.id in seen:
            yield (number, "id"), f"the id {claim.id!r} is there twice: give each claim its own"
        seen.add(claim.id)
        if claim.tests and claim.method not in COMPRESSORS:
            yield (number, "method"), f"unknown compressor {claim.method!r}: {suggestion(claim.method, COMPRESSORS)}"
        for place, test in enumerate(claim.tests):
            for side in ("of", "against", "at"):
                for reason in _unknown(getattr(test, side)):
                    yield (number, "tests", place, side), reason


def _unknown(rows: Rows) -> Iterator[str]:
    """What is wrong with the names and options of some rows."""
    for kind, named, registry, given in rows.named():
        try:
            target = registry[named.name].load()
            if registry is COMPRESSORS:  # whose values can be looked at, too
                compressor(named, Budget(**EXAMPLES[target.budgets[0]]), seed=0)
            else:
                check_options(kind, named, target, given)
        except (UnknownName, OptionError) as error:
            yield str(error)
