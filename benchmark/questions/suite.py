"""Suite files: which questions are asked. A suite expands into runs, each with an id that is a hash of its question."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from benchmark.catalog import DATA, MODELS
from benchmark.questions.names import NAME, Data, Named, NamedNetwork
from benchmark.questions.reading import YAMLFault, line_of, read_yaml
from benchmark.questions.recipes import published
from compressors.annotations import Number, Seed, WholeNumber
from compressors.budget import Budget
from compressors.registry import COMPRESSORS, suggestion

if TYPE_CHECKING:
    from benchmark.networks.optimization import Optimization  # torch comes with it

BUDGET_KEYS = {"density": "densities", "bits": "bits", "density+bits": "joint", "synops": "synops"}
"""Kind of budget -> the key of a suite that lists budgets of this kind."""

LIMITS = Budget.names()


Count = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]


class SuiteError(ValueError):
    """A suite file that cannot be used; the message names file, line and remedy."""

    exit_status = 2


class Strict(BaseModel):
    """A frozen schema in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(NamedNetwork):
    """A network of a suite; ``compressors`` limits which of the suite's compressors it meets, by name."""

    compressors: tuple[str, ...] | None = None


class Training(Strict):
    """How a dense network is trained.

    Training stops when the validation accuracy has not improved for ``patience`` epochs; the best weights are kept.
    ``recipe`` names published settings (:mod:`benchmark.questions.recipes`); keys beside it come before them. What the
    optimizer's keys mean stands in :class:`benchmark.networks.optimization.Optimization`; ``precision`` is Lightning's
    and that of the dense training alone.
    """

    epochs: Count = 30
    patience: Count = 8
    batch_size: Count = 32
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, strict=True)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False, strict=True)
    loss: str = Field(default="rate_mse", pattern=NAME)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, strict=True)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = Field(default=0.9, ge=0, lt=1, strict=True)
    decay_norm: bool = Field(default=True, strict=True)
    warmup_epochs: int = Field(default=0, ge=0, le=2**31 - 1, strict=True)
    milestones: tuple[Count, ...] = ()
    gradient_clip: float | None = Field(default=None, gt=0, allow_inf_nan=False, strict=True)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "recipe" not in content:
            return content
        own = {key: value for key, value in content.items() if key != "recipe"}
        return {**published(content["recipe"]), **own}

    @model_validator(mode="after")
    def _fits_together(self) -> "Training":
        if "momentum" in self.model_fields_set and self.optimizer != "sgd":
            raise ValueError(f"momentum is one of sgd, and the optimizer is {self.optimizer}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, of {self.epochs} epochs: warm up for fewer")
        outside = [epoch for epoch in self.milestones if not self.warmup_epochs < epoch < self.epochs]
        if outside or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(
                f"milestones are epochs between {self.warmup_epochs} (warm-up) and {self.epochs}, in rising order: "
                f"they are {list(self.milestones)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, serialize: Any) -> dict[str, Any]:
        """Settings that came later stand there only where they are used, so that older questions keep their ids."""
        return {
            name: value
            for name, value in serialize(self).items()
            if name in FIRST_SETTINGS or getattr(self, name) != type(self).model_fields[name].default
        }

    @property
    def of_classifier(self) -> dict[str, Any]:
        """What a classifier is told, but for what it takes by default."""
        return self.model_dump(exclude={"epochs", "patience", "batch_size", "precision"})


FIRST_SETTINGS = {"epochs", "patience", "batch_size", "learning_rate", "weight_decay", "loss"}


class FineTuning(Strict):
    """How a compressed network is trained further: the same for all methods of a table."""

    epochs: Count = 5
    learning_rate: float = Field(default=5e-4, gt=0, allow_inf_nan=False, strict=True)

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.epochs} epochs at {self.learning_rate:g}"

    def of(self, dense: "Optimization") -> "Optimization":
        """How the weights follow their gradients, where the dense network's did like this."""
        return dense.fine_tuning(self.learning_rate)


class FromScratch(Strict):
    """How long a network is trained that a method makes sparse from its first weights on; else as the dense one was."""

    epochs: Count

    @property
    def words(self) -> str:
        """For people."""
        return f"from scratch, {self.epochs} epochs"

    def of(self, dense: "Optimization") -> "Optimization":
        """How the weights follow their gradients, where the dense network's did like this."""
        return dense


Aftercare = Literal["batchnorm", "means", "scales", "reconstruct"]
CARE = {
    "batchnorm": "BatchNorm re-estimated",
    "means": "means corrected",
    "scales": "channels scaled",
    "reconstruct": "reconstructed",
}


Division = Literal["post-training", "post-training, reconstructed", "fine-tuned", "trained sparse"]
RECONSTRUCTED: Division = "post-training, reconstructed"
TRAINED_SPARSE: Division = "trained sparse"


class Question(Strict):
    """One run: everything that decides its answer, but for the data's content and the methods' versions.

    In JSON the budget's numbers stand beside the other keys.
    """

    budget: Budget = Budget()
    data: Data
    model: NamedNetwork
    training: Training
    compressor: Named
    calibration_samples: Count
    seed: Seed
    aftercare: tuple[Aftercare, ...] = ()
    finetuning: FineTuning | None = None
    from_scratch: FromScratch | None = Field(default=None, exclude_if=lambda course: course is None)

    @model_validator(mode="before")
    @classmethod
    def _gather_budget(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or not LIMITS & content.keys():
            return content
        limits = {name: content[name] for name in LIMITS & content.keys()}
        return {"budget": limits} | {key: value for key, value in content.items() if key not in LIMITS}

    @model_serializer(mode="wrap")
    def _flat_budget(self, serialize: Any) -> dict[str, Any]:
        content = serialize(self)
        return content.pop("budget", {}) | content

    def id(self, fingerprint: str, version: int) -> str:
        """The run id: a hash of the question, the data's fingerprint and the compressor's version (12 hex digits).

        What was added to questions later counts only where it is used, so that older records keep their ids.
        """
        content = self.model_dump()
        unused = {key for key in ("bits", "synops", "aftercare", "finetuning") if not content[key]}
        used = {key: value for key, value in content.items() if key not in unused}
        return digest({**used, "fingerprint": fingerprint, "version": version})

    def dense_id(self, fingerprint: str) -> str:
        """The id of the dense network that the question starts from."""
        content = self.model_dump(include={"data", "model", "training", "seed"})
        return digest({**content, "fingerprint": fingerprint})

    @property
    def label(self) -> str:
        """One line for people."""
        budget = [f"{name} {value:g}" for name, value in self.budget.limits.items()]
        beginning = [] if self.from_scratch is None else ["from scratch"]
        parts = [self.data.name, self.model.label, self.compressor.label, *beginning, *budget, f"seed {self.seed}"]
        return " ".join(parts)

    def budgets(self) -> dict[str, tuple[Any, ...]]:
        """The lists of budgets of a suite that asks for this one alone."""
        kind = "density" if self.budget == Budget() else self.budget.kind
        listed = self.budget if kind == "density+bits" else getattr(self.budget, kind)
        return {key: (listed,) if kind == own else () for own, key in BUDGET_KEYS.items()}

    @property
    def course(self) -> FineTuning | FromScratch | None:
        """How the network is trained beside the compressor; None where it is not."""
        return self.finetuning if self.from_scratch is None else self.from_scratch

    @property
    def condition(self) -> str:
        """What else was done to the compressed network, for people; runs of different conditions are never compared."""
        tuned = [] if self.course is None else [self.course.words]
        told = self.aftercare if tuned else [name for name in self.aftercare if name != "reconstruct"]
        return ", ".join(tuned + [CARE[name] for name in told])

    @property
    def division(self) -> Division:
        """What the method was given to work with; runs of different divisions are never ranked together."""
        if self.from_scratch is not None:
            return TRAINED_SPARSE
        if self.finetuning is not None:
            return "fine-tuned"
        return RECONSTRUCTED if "reconstruct" in self.aftercare else "post-training"


def _limit(name: str) -> Callable[[Any], Any]:
    """A check that a budget can have this value of the limit ``name``."""

    def check(value: Any) -> Any:
        Budget(**{name: value})
        return value

    return check


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A list, if nothing is in it twice: that would be one run asked for twice."""
    seen: set[str] = set()
    for value in values:
        if repr(value) in seen:
            shown = value.label if isinstance(value, Named) else value
            raise ValueError(f"{shown} is there twice: leave one of them out")
        seen.add(repr(value))
    return values


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], AfterValidator(_once)]


class Suite(Strict):
    """The schema of a suite file: every data set x model x compressor x budget x seed is a run.

    A compressor meets those of the budgets that are of its kinds: ``densities`` (pruning), ``bits`` (quantising),
    ``joint`` (both), ``synops`` (pruning). Compressors without a budget (the dense control) run once a seed.

    Methods that train from scratch do so for the epochs of ``from_scratch``, by default as many as the training of the
    dense network and the fine-tuning have together; after-care, which puts right what a cut did to a trained network,
    is not for them. A suite with any of them, or with ``from_scratch``, runs the dense control once more, trained as
    long as they are.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$")
    description: str = ""
    data: Listed[Data] = Field(min_length=1)
    models: Listed[Model] = Field(min_length=1)
    compressors: Listed[Named] = Field(min_length=1)
    densities: Listed[Annotated[Number, AfterValidator(_limit("density"))]] = ()
    bits: Listed[Annotated[WholeNumber, AfterValidator(_limit("bits"))]] = ()
    joint: Listed[Budget] = ()
    synops: Listed[Annotated[Number, AfterValidator(_limit("synops"))]] = ()
    aftercare: Listed[Aftercare] = ()
    finetuning: FineTuning | None = None
    from_scratch: FromScratch | None = None
    seeds: Listed[Seed] = Field(default=(0,), min_length=1)
    calibration_samples: Listed[Count] = Field(default=(100,), min_length=1)
    training: Training = Training()

    @field_validator("calibration_samples", mode="before")
    @classmethod
    def _one_size_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _has_budgets(self) -> "Suite":
        if not any(self.budgets()[kind] for kind in BUDGET_KEYS):
            raise ValueError(f"give budgets: at least one of {', '.join(BUDGET_KEYS.values())}")
        return self

    @property
    def modules(self) -> list[str]:
        """The names that are ``module:attribute``: code that is imported because the suite says so."""
        kinds = ((DATA, self.data), (MODELS, self.models), (COMPRESSORS, self.compressors))
        return [
            named.name
            for registry, listed in kinds
            for named in listed
            if named.name not in registry and ":" in named.name
        ]

    def budgets(self) -> dict[str, tuple[Budget, ...]]:
        """Kind of budget (see :data:`compressors.budget.KINDS`) -> the suite's budgets of that kind."""
        return {
            "none": (Budget(),),
            "density": tuple(Budget(density=density) for density in self.densities),
            "bits": tuple(Budget(bits=bits) for bits in self.bits),
            "density+bits": self.joint,
            "synops": tuple(Budget(synops=synops) for synops in self.synops),
        }

    def questions(self, kinds: Mapping[str, Sequence[str]], beginners: Collection[str] = ()) -> Iterator[Question]:
        """All runs, those that share a dense network and an elimination next to each other.

        Args:
            kinds: compressor name -> the kinds of budget it meets.
            beginners: names of the compressors that train from scratch.
        """
        for data in self.data:
            for model in self.models:
                network = NamedNetwork(**model.model_dump(exclude={"compressors"}))
                for seed in self.seeds:
                    for compressor in self._of(model):
                        for course in self._courses(model, compressor, kinds[compressor.name], beginners):
                            for samples, budget in self._met(kinds[compressor.name]):
                                yield self._question(data, network, seed, compressor, samples, budget, course)

    def _courses(
        self, model: Model, compressor: Named, kinds: Sequence[str], beginners: Collection[str]
    ) -> tuple[FromScratch | None, ...]:
        """How long a compressor trains a network from scratch; None for what starts from the dense network."""
        further = 0 if self.finetuning is None else self.finetuning.epochs
        course = self.from_scratch or FromScratch(epochs=self.training.epochs + further)
        if compressor.name in beginners:
            return (course,)
        asked = self.from_scratch is not None or any(other.name in beginners for other in self._of(model))
        return (None, course) if asked and "none" in kinds else (None,)

    def _met(self, kinds: Sequence[str]) -> Iterator[tuple[int, Budget]]:
        """Calibration sizes and budgets of a compressor that meets these kinds; the dense network needs one size."""
        budgets = self.budgets()
        for samples in self.calibration_samples:
            for kind in kinds:
                if kind != "none" or samples == self.calibration_samples[0]:
                    yield from ((samples, budget) for budget in budgets[kind])

    def _question(
        self,
        data: Data,
        model: NamedNetwork,
        seed: int,
        compressor: Named,
        samples: int,
        budget: Budget,
        course: FromScratch | None,
    ) -> Question:
        alone = course is not None or budget == Budget()  # the network as it is: nothing is done to it afterwards
        return Question(
            budget=budget,
            data=data,
            model=model,
            training=self.training,
            compressor=compressor,
            calibration_samples=samples,
            seed=seed,
            aftercare=() if alone else self.aftercare,
            finetuning=None if alone else self.finetuning,
            from_scratch=course,
        )

    def _of(self, model: Model) -> list[Named]:
        if model.compressors is None:
            return list(self.compressors)
        return [compressor for compressor in self.compressors if compressor.name in model.compressors]


def digest(value: Any) -> str:
    """Twelve hex digits that stand for a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        SuiteError: not YAML, or not a suite; names the line, and the nearest key for an unknown one.
    """
    try:
        root, content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: {error}") from error
    except YAMLFault as error:
        raise SuiteError(f"{path}:{error.line}: {error}") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{path}: a suite is a mapping with the keys {', '.join(Suite.model_fields)}")
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        places = {e["loc"] for e in error.errors()}
        outermost = {place[:end] for place in places for end in range(len(place))}  # they fail as what is in them does
        lines = [
            f"{path}:{line_of(root, e['loc'])}: {_explain(e)}" for e in error.errors() if e["loc"] not in outermost
        ]
        raise SuiteError("\n".join(lines)) from None


def _explain(error: Any) -> str:
    """A pydantic error in the words of a suite."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{place + ': ' if place else ''}{error['msg'].removeprefix('Value error, ')}"
    inside: Mapping[Any, Iterable[str]] = {"training": ["recipe", *Training.model_fields], "joint": LIMITS}
    known = inside.get(error["loc"][0], Suite.model_fields)
    return f"unknown key {error['loc'][-1]!r}: {suggestion(str(error['loc'][-1]), known)}"
