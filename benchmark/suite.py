"""Suite files: which questions are asked. A suite expands into runs, each with an id that is a hash of its question."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compressors.registry import suggestion


class SuiteError(ValueError):
    """A suite file that cannot be used; the message names file, line and remedy."""


class Strict(BaseModel):
    """A frozen schema in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """Something from a registry with options of its own: ``conv`` or ``{name: conv, width: 16}``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside ``name``."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """``name`` or ``name[option,...]``, for people; words stand alone, numbers with their option's name."""
        shown = [value if isinstance(value, str) else f"{key}={value}" for key, value in sorted(self.options.items())]
        return f"{self.name}[{','.join(shown)}]" if shown else self.name


class Model(Named):
    """A network; ``compressors`` limits which of the suite's compressors it meets, by name."""

    compressors: tuple[str, ...] | None = None


class Data(Named):
    """A data set and how it is shown: ``timesteps`` frames a sample."""

    timesteps: int = Field(default=10, ge=1)


class Training(Strict):
    """How a dense network is trained.

    Training stops when the validation accuracy has not improved for ``patience`` epochs; the best weights are kept.
    """

    epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=8, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    loss: str = "rate_mse"


class Question(Strict):
    """One run: everything that decides its answer, but for the data's content and the methods' versions."""

    data: Data
    model: Named
    training: Training
    compressor: Named
    density: float
    calibration_samples: int
    seed: int

    def id(self, fingerprint: str, version: int) -> str:
        """The run id: a hash of the question, the data's fingerprint and the compressor's version (12 hex digits)."""
        return digest({**self.model_dump(), "fingerprint": fingerprint, "version": version})

    def dense_id(self, fingerprint: str) -> str:
        """The id of the dense network that the question starts from."""
        asked = self.model_dump(include={"data", "model", "training", "seed"})
        return digest({**asked, "fingerprint": fingerprint})

    @property
    def label(self) -> str:
        """One line for people."""
        budget = "" if self.density == 1 else f" density {self.density:g}"
        return f"{self.data.name} {self.model.label} {self.compressor.label}{budget} seed {self.seed}"


class Suite(Strict):
    """The schema of a suite file: every data set x model x compressor x density x seed is a run.

    Compressors without a budget (the dense control) run once a seed.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    data: tuple[Data, ...] = Field(min_length=1)
    models: tuple[Model, ...] = Field(min_length=1)
    compressors: tuple[Named, ...] = Field(min_length=1)
    densities: tuple[float, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    calibration_samples: int = Field(default=100, ge=1)
    training: Training = Training()

    @model_validator(mode="after")
    def _densities(self) -> "Suite":
        for density in self.densities:
            if not 0 < density <= 1:
                raise ValueError(f"density {density:g} is outside (0, 1]: give the share of weights to keep")
        return self

    def questions(self, budgetless: Iterable[str] = ("identity",)) -> Iterator[Question]:
        """All runs, those that share a dense network and an elimination next to each other."""
        for data in self.data:
            for model in self.models:
                for seed in self.seeds:
                    for compressor in self._of(model):
                        for density in (1.0,) if compressor.name in budgetless else self.densities:
                            yield Question(
                                data=data,
                                model=Named(name=model.name, **model.options),
                                training=self.training,
                                compressor=compressor,
                                density=density,
                                calibration_samples=self.calibration_samples,
                                seed=seed,
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
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SuiteError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{path}: a suite is a mapping with the keys {', '.join(Suite.model_fields)}")
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        lines = [f"{path}:{line_of(root, e['loc'])}: {_explain(e)}" for e in error.errors()]
        raise SuiteError("\n".join(lines)) from None


def line_of(node: yaml.Node | None, place: Iterable[int | str]) -> int:
    """The line (from 1) in the file of the key or item at ``place``, or of the nearest thing that encloses it."""
    line = 1 if node is None else node.start_mark.line + 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _explain(error: Any) -> str:
    """A pydantic error in the words of a suite."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{place + ': ' if place else ''}{error['msg'].removeprefix('Value error, ')}"
    known = Training.model_fields if error["loc"][0] == "training" else Suite.model_fields
    return f"unknown key {error['loc'][-1]!r}: {suggestion(str(error['loc'][-1]), known)}"
