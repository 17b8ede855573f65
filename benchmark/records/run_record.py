"""What a record of a run holds."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from benchmark.questions.names import LARGEST, NAME, plain
from benchmark.questions.suite import Division, Question
from hardware.report import CostReport, check_schema

SCHEMA = 6
"""Raised when records get something that an older snnbench cannot read.

2: ``peak_memory_bytes``. 3: budgets in bits and SynOps, after-care and fine-tuning in questions.
4: ``options``. 5: ``correct``, ``submission``. 6: ``spikes``.
"""


LONGEST = 1_000_000
"""Time steps."""

PACKAGES = ("snnbench", "torch", "lightning", "spikingjelly", "tonic", "torchmetrics", "numpy")
"""Whose versions every record has; others in it are packages that what was asked for comes from."""

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=NAME)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Number = Annotated[int, Field(ge=0, strict=True)]


class NoAnswer(ValueError):
    """A record of a run that failed, where one with results is needed."""

    exit_status = 1


class DenseNetwork(BaseModel):
    """The dense network a run started from.

    Attributes:
        id: hash of how it was trained, or of the weights that it came with.
        sha256: of its file, in whose header the time of training stands.
        tensors_sha256: of its tensors alone; None in older records.
        validation_accuracy: share of validation samples classified correctly.
        epochs: that it was trained for.
        seconds: that its training took.
        reset: how a NIR file's neurons were taken to be reset.
    """

    id: Id
    sha256: Sha256
    tensors_sha256: Sha256 | None = Field(default=None, exclude_if=lambda digest: digest is None)
    validation_accuracy: Share | None = None
    epochs: Number | None = None
    seconds: Amount | None = None
    reset: str | None = Field(default=None, exclude_if=lambda reset: reset is None)


class Metrics(BaseModel):
    """How good the compressed network is on the test part: share of samples classified correctly, and mean loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: Share
    loss: float = Field(allow_inf_nan=False, strict=True)


class Submission(BaseModel):
    """Where a record comes from that was not made by the project: whose it is, and on whose hardware and code.

    Attributes:
        by: who ran it.
        hardware: on what machine.
        code: address of the code that is not snnbench's own; empty where there is none, or it is not public.
        repeated: when the second run was made that agreed with this one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(plain)]
    hardware: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(plain)]
    code: Annotated[str, Field(max_length=200), AfterValidator(plain)] = ""
    repeated: str


class LayerAccount(BaseModel):
    """What was done to one layer, without its mask.

    What a method adds of its own (:attr:`compressors.compression.LayerCompression.extra`) is kept in ``model_extra``.

    Attributes:
        name: of the layer within the network.
        shape: of its weight as it is now.
        weights: how many weights the dense layer had.
        kept: how many are left.
        density: share of the dense layer's weights that are left.
        loss: the method's own estimate of the harm; None where it has none.
        bits: width of a weight; None where it is a float.
        before: shape of the dense layer's weight, where channels were taken out.
        dead_inputs: how many of its inputs were never active, so that their weights went.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    shape: tuple[Number, ...]
    weights: Number
    kept: Number
    density: Share
    loss: float | None = Field(strict=True)
    bits: Number | None = Field(default=None, exclude_if=lambda bits: bits is None)
    before: tuple[Number, ...] | None = Field(default=None, exclude_if=lambda shape: shape is None)
    dead_inputs: Number = Field(default=0, exclude_if=lambda inputs: not inputs)


class CompressionAccount(BaseModel):
    """What was done to a network, as :meth:`compressors.compression.Compression.to_dict` tells it.

    Attributes:
        density: share of weights kept over all compressed layers, as achieved.
        seconds: wall time of calibration and compression.
        layers: in order of execution.
        aftercare: what was done afterwards -> names of the modules it was done to.
        stages: what a method that works in stages had at the end of each.
        left_alone: names of other modules with weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    density: Share
    seconds: Amount
    layers: tuple[LayerAccount, ...]
    aftercare: Mapping[str, tuple[str, ...]] = {}
    stages: tuple[Mapping[str, Any], ...] = Field(default=(), exclude_if=lambda stages: not stages)
    left_alone: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)


class NeuronSpikes(BaseModel):
    """What one layer of neurons did on some test samples, beside the dense network's.

    Attributes:
        name: of the layer within the network.
        neurons: how many.
        dead: those that never fire.
        saturated: those that fire in every step.
        mismatch: of the neurons and steps in which either network fires, the share in which one of them alone does.
        van_rossum: squared norm of the difference of the two networks' spike trains, each taken through the neuron's
            membrane filter, over the dense trains' own.
        earth_mover: between the distributions of firing rates over the neurons, in spikes per step.
        lowest_potential: before firing, of all neurons and steps; None for neurons that no compiled loop knows.
        highest_potential: the same; what both come to decides how wide an accumulator has to be.

    Of a layer that has lost channels those that are left are compared. ``mismatch`` and ``van_rossum`` are None where
    time steps are gone, or neurons of which nobody knows which; the latter also where the dense neurons never fire.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    neurons: Number
    dead: Number
    saturated: Number
    mismatch: Share | None
    van_rossum: Amount | None
    earth_mover: Share
    lowest_potential: float | None = Field(allow_inf_nan=False, strict=True)
    highest_potential: float | None = Field(allow_inf_nan=False, strict=True)

    @model_validator(mode="after")
    def _possible(self) -> "NeuronSpikes":
        if self.dead + self.saturated > self.neurons:
            raise ValueError(f"{self.dead} dead and {self.saturated} saturated of {self.neurons} neurons")
        return self


class SpikeAccount(BaseModel):
    """What compression did to spikes: on so many test samples, layer by layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: Number
    layers: tuple[NeuronSpikes, ...]

    def summary(self) -> dict[str, float]:
        """The whole network in a few numbers, of which those that are not known of each layer are absent.

        Distances are means over layers, ``dead_neurons`` and ``saturated_neurons`` shares of all neurons.
        """
        neurons = sum(layer.neurons for layer in self.layers)
        if not neurons:
            return {}
        distances = {"spike_mismatch": "mismatch", "van_rossum": "van_rossum", "earth_mover": "earth_mover"}
        found = {name: [getattr(layer, of) for layer in self.layers] for name, of in distances.items()}
        return {
            **{name: fmean(values) for name, values in found.items() if None not in values},
            "dead_neurons": sum(layer.dead for layer in self.layers) / neurons,
            "saturated_neurons": sum(layer.saturated for layer in self.layers) / neurons,
        }


@dataclass(frozen=True)
class Answer:
    """What a finished run has: the network it started from, and what became of it."""

    dense: DenseNetwork
    metrics: Metrics
    compression: CompressionAccount
    cost: CostReport

    @property
    def densities(self) -> dict[str, float]:
        """Of each counted layer with weights, the share of the dense layer's that are left; channels may be gone."""
        before = {layer.name: layer.weights for layer in self.compression.layers}
        return {layer.name: layer.nonzero / max(1, before.get(layer.name, layer.weights)) for layer in self.cost.layers}


def packed_answers(correct: Sequence[bool]) -> str:
    """Whether each test sample is classified right, as text: eight samples a byte, the first one in the highest bit."""
    bits = "".join("1" if right else "0" for right in correct)
    padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return base64.b64encode(int(padded or "0", 2).to_bytes(len(padded) // 8, "big")).decode("ascii")


def answers_of(packed: str, samples: int) -> int:
    """What :func:`packed_answers` made of ``samples`` answers, as the bits of a number, the first sample highest.

    Raises:
        ValueError: it is no such text, or of another number of samples.
    """
    content = base64.b64decode(packed, validate=True)
    if len(content) != -(-samples // 8):
        raise ValueError(f"answers in {len(content)} bytes are not those to {samples} samples")
    bits, beyond = int.from_bytes(content, "big"), 8 * len(content) - samples
    if bits & ((1 << beyond) - 1):
        raise ValueError(f"answers to more than {samples} samples")
    return bits >> beyond


class RunRecord(BaseModel):
    """Question and answer of one run.

    ``compression`` says what was done to each layer; ``cost`` has the raw counts, from which SynOps, memory and energy
    follow; ``options`` are all options of the compressor, defaults included (from schema 4 on); ``seconds`` is the wall
    time of each phase; ``peak_memory_bytes`` the process's largest resident set during
    the run, and None where the system does not tell or the record is of schema 1; ``correct`` says of each test sample
    whether it is classified right (:func:`packed_answers`), and is None for runs on several devices, which take the
    samples in another order, and in older records; ``spikes`` holds its spikes against the dense network's, and is
    None in the same cases. A failed run has no ``metrics``,
    ``compression`` and ``cost``: they are None here, and ``{}`` in the file.

    Raises:
        ValueError: a finished run lacks a part of its answer, or its cost report is of another schema.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    id: Id
    suite: Name
    status: Literal["done", "failed"]
    question: Question
    version: int = Field(description="version of the compressor")
    control: bool
    options: dict[str, Any] = Field(default={}, exclude_if=lambda options: not options)
    division: Division = "post-training"
    data: dict[str, Any]
    error: str | None = None
    traceback: str | None = None
    dense: DenseNetwork | None = None
    metrics: Metrics | None = None
    compression: CompressionAccount | None = None
    cost: CostReport | None = None
    correct: str | None = Field(default=None, exclude_if=lambda correct: correct is None)
    spikes: SpikeAccount | None = Field(default=None, exclude_if=lambda spikes: spikes is None)
    seconds: dict[str, Amount] = {}
    peak_memory_bytes: Number | None = None
    environment: dict[str, Any] = {}
    submission: Submission | None = Field(default=None, exclude_if=lambda submission: submission is None)
    created: str = Field(description="ISO 8601, UTC; not part of the question")

    @field_validator("schema_version")
    @classmethod
    def _not_newer(cls, value: int) -> int:
        if value > SCHEMA:
            raise PydanticCustomError(
                "newer_schema",
                "schema {schema} is newer than this snnbench reads: update snnbench",
                {"schema": value},
            )
        return value

    @field_validator("metrics", "compression", "cost", mode="before")
    @classmethod
    def _absent_if_empty(cls, value: Any) -> Any:
        return None if value == {} else value

    @field_serializer("metrics", "compression", mode="wrap")
    def _empty_if_absent(self, value: Any, serialize: SerializerFunctionWrapHandler) -> Any:
        return {} if value is None else serialize(value)

    @field_serializer("cost")
    def _cost_as_reported(self, cost: CostReport | None) -> dict[str, Any]:
        return {} if cost is None else cost.to_dict()

    @field_validator("cost", mode="before")
    @classmethod
    def _of_present_schema(cls, value: Any) -> Any:
        if isinstance(value, dict) and value:
            check_schema(value)
        return value

    @model_validator(mode="after")
    def _complete(self) -> "RunRecord":
        missing = [name for name in ("dense", "metrics", "compression", "cost") if getattr(self, name) is None]
        if self.status == "done" and missing:
            raise ValueError(f"a finished run without {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _answers_are_those_of_the_accuracy(self) -> "RunRecord":
        if self.correct is None:
            return self
        if self.cost is None or self.metrics is None:
            raise ValueError("answers to samples of a test that was not made")
        right, samples = answers_of(self.correct, self.cost.samples).bit_count(), self.cost.samples
        if not math.isclose(right / samples, self.metrics.accuracy, abs_tol=1e-6):
            raise ValueError(f"{right} of {samples} samples are right, which is another accuracy")
        return self

    @field_validator("cost")
    @classmethod
    def _makes_sense(cls, cost: CostReport | None) -> CostReport | None:
        """Refuse counts that nothing can be worked out from: no samples, a layer that is stored in no format."""
        if cost is None:
            return None
        if cost.samples < 1 or not 1 <= cost.timesteps <= LONGEST:
            raise ValueError(f"counted on {cost.samples} samples of {cost.timesteps} time steps")
        if not all(map(_countable, (cost, *cost.layers, *cost.neurons, *cost.others))):
            raise ValueError("a count is below zero, or has more than 64 bits")
        cost.totals()
        return cost

    @property
    def answer(self) -> Answer:
        """What came out of the run.

        Raises:
            NoAnswer: it failed.
        """
        if self.dense is None or self.metrics is None or self.compression is None or self.cost is None:
            raise NoAnswer(f"run {self.id} failed ({self.error}): it has no results")
        return Answer(self.dense, self.metrics, self.compression, self.cost)


def _countable(part: Any) -> bool:
    """Whether all numbers in a part of a cost report are from zero to what 64 bits hold."""
    values = vars(part).values()
    single = [value for value in values if value.__class__ in (int, float)]
    lists = [
        value.values() if value.__class__ is dict else value for value in values if value.__class__ in (dict, tuple)
    ]
    counts = [numbers for numbers in lists if numbers and next(iter(numbers)).__class__ is int]
    return all(min(numbers) >= 0 and max(numbers) <= LARGEST for numbers in (single, *counts) if numbers)
