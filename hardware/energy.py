"""Energy: stored counts times a named profile of constants, each with its source.

A profile has terms; a term multiplies one count with one price. The price may depend on a width or on the size
of the memory it is read from, and is interpolated between published points. Counts are kept in the report, so
an old record can be priced anew.

Counts of a layer, over the test set: `ac`, `mac`, `synops` (both), `input_events`, `further_cores` (the same, times
the cores beyond the first that 1,024 neurons on each would take), `weight_bits_read` (synops times the stored bits per
nonzero weight, index included), `synapse_state_accesses` (read and write per synop) and `synapse_state_bits`. Counts of
a neuron layer: `updates`, `spikes`, `update_state_accesses` (read and write of each state variable per update) and
`update_state_bits`. `other_operations`: pooling and additions.

Static power costs what it costs in the seconds that an inference takes: steps times the length of a step, which the
user or the chip says. Without one of the two the energy is dynamic only, and says so.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hardware.catalog import energy_profiles
from hardware.registry import OWN
from hardware.report import CostReport, LayerCost, NeuronCost, OtherCost

DEFAULT_PROFILE = "horowitz_sram_45nm"
STATIC = "static"
NEURONS_PER_CORE = 1024  # of Loihi
_TRUST = ("citable", "derived", "guess")
_Numbers = Mapping[str, float]


class ProfileError(ValueError):
    """Something that was named as an energy profile and is none."""

    exit_status = 2


class Point(BaseModel):
    """One published price in pJ, at a width or memory size in bits, with the range where sources conflict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pj: float = Field(ge=0)
    source: str
    status: Literal["citable", "derived", "guess"]
    at: float = 0.0
    low: float | None = None
    high: float | None = None

    @property
    def range(self) -> tuple[float, float, float]:
        """Price, lowest and highest, in pJ."""
        low = self.pj if self.low is None else self.low
        return self.pj, low, self.pj if self.high is None else self.high


class Term(BaseModel):
    """Price of one kind of event.

    Between two points the price is interpolated (on logarithmic axes by default); beyond the last it stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: str
    points: tuple[Point, ...] = Field(min_length=1)
    over: Literal["weight_bits", "weight_array", "state_array", "buffer_array"] | None = None
    interpolation: Literal["logarithmic", "linear"] = "logarithmic"

    def price(self, size: float) -> tuple[float, float, float, str]:
        """Price, lowest and highest in pJ at a size in bits, and how far it can be trusted."""
        right = min(bisect_left([point.at for point in self.points], size), len(self.points) - 1)
        near = self.points[right]
        left = self.points[right - 1] if right and size < near.at else near
        if left is near:
            return *near.range, near.status
        ends = np.array([left.range, near.range])
        share = (size - left.at) / (near.at - left.at)
        if self.interpolation == "logarithmic":
            share = float(np.log(size / left.at) / np.log(near.at / left.at))
            ends = np.log(ends)
        mixed = (1 - share) * ends[0] + share * ends[1]
        price, low, high = np.exp(mixed) if self.interpolation == "logarithmic" else mixed
        return float(price), float(low), float(high), _least_trusted("derived", left.status, near.status)


class Static(BaseModel):
    """Power that a chip takes whatever it does, with the range where it is not certain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    watts: float = Field(ge=0)
    source: str
    status: Literal["citable", "derived", "guess"]
    low: float | None = None
    high: float | None = None


class Step(BaseModel):
    """How long a chip takes for a time step by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(gt=0)
    source: str
    status: Literal["citable", "derived", "guess"]


class EnergyProfile(BaseModel):
    """A named set of prices.

    Args:
        title: what it models.
        uncertainty: how far to believe it, in plain words.
        state_bits: width of one neuron state variable on that hardware.
        terms: price of each kind of event.
        static: power that flows at rest as well, where it is known.
        step: the chip's own time step, where it has one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    uncertainty: str
    state_bits: int
    terms: dict[str, Term]
    static: Static | None = None
    step: Step | None = None

    def static_energy(self, steps: int, seconds_per_step: float | None) -> "TermEnergy | None":
        """What static power costs in so many time steps, in pJ; None where power or time is not known."""
        seconds = seconds_per_step or (None if self.step is None else self.step.seconds)
        if self.static is None or seconds is None:
            return None
        low, high = (self.static.watts if end is None else end for end in (self.static.low, self.static.high))
        pj, low, high = (watts * seconds * steps * 1e12 for watts in (self.static.watts, low, high))
        own = self.step.status if self.step is not None and seconds_per_step is None else "citable"
        return TermEnergy(STATIC, STATIC, pj, low, high, _least_trusted(self.static.status, own))


@dataclass(frozen=True)
class TermEnergy:
    """Energy of one term in one layer, in pJ over the test set."""

    layer: str
    term: str
    pj: float
    low_pj: float
    high_pj: float
    status: str


@dataclass(frozen=True)
class EnergyReport:
    """Energy of a network under one profile.

    Args:
        profile: name of the profile.
        uncertainty: how far to believe it.
        samples: number of inferences the terms are summed over.
        terms: each term of each layer; static energy stands in a layer of its own.
        dynamic_only: why static energy is not among them; empty where it is.
    """

    profile: str
    uncertainty: str
    samples: int
    terms: tuple[TermEnergy, ...]
    dynamic_only: str = ""

    @property
    def joules(self) -> float:
        """Joules per inference."""
        return self._joules(sum(term.pj for term in self.terms))

    @property
    def joules_range(self) -> tuple[float, float]:
        """Lowest and highest joules per inference where sources conflict."""
        low, high = (sum(getattr(term, key) for term in self.terms) for key in ("low_pj", "high_pj"))
        return self._joules(low), self._joules(high)

    @property
    def status(self) -> str:
        """The least trusted status of any constant that took part: citable, derived or guess."""
        return _least_trusted("citable", *(term.status for term in self.terms if term.pj))

    def joules_by(self, key: Literal["layer", "term"]) -> dict[str, float]:
        """Joules per inference of each layer or each term."""
        sums: dict[str, float] = {}
        for term in self.terms:
            name = getattr(term, key)
            sums[name] = sums.get(name, 0.0) + self._joules(term.pj)
        return sums

    def joules_per_correct(self, accuracy: float) -> float:
        """Joules per correct classification.

        Raises:
            ValueError: if the accuracy is not in (0, 1].
        """
        if not 0 < accuracy <= 1:
            raise ValueError(f"accuracy is {accuracy}: joules per correct classification need one in (0, 1]")
        return self.joules / accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, totals per inference included."""
        totals = {"joules": self.joules, "joules_range": list(self.joules_range), "status": self.status}
        return totals | asdict(self)

    def _joules(self, pj: float) -> float:
        return pj * 1e-12 / self.samples


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return [name for name, entry in energy_profiles().items() if entry.origin == OWN]


@cache
def load_profile(name: str) -> EnergyProfile:
    """Load a profile by name, from the path of a YAML file, or from another package.

    Other packages register theirs, an :class:`EnergyProfile` or a mapping of its fields, as entry points of the group
    ``snnbench.energy``; unregistered ones are named ``module:attribute``.

    Raises:
        UnknownName: there is no such profile or file.
        PluginError: another package's profile does not load.
        ProfileError: what is there is no profile; says what is wrong with it.
    """
    content = energy_profiles().by_user(name).load()
    try:
        profile = EnergyProfile.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"energy profile {name}: {error}") from error
    unknown = {term.count for term in profile.terms.values()} - COUNTS
    if unknown:
        raise ProfileError(f"energy profile {name}: unknown counts {sorted(unknown)}; known are {sorted(COUNTS)}")
    return profile


def energy(report: CostReport, profile: str = DEFAULT_PROFILE, seconds_per_step: float | None = None) -> EnergyReport:
    """Price stored counts.

    Args:
        report: what was counted.
        profile: see :func:`load_profile`.
        seconds_per_step: that a time step takes; by default as long as the profile's chip says, if it does.

    Raises:
        UnknownName: there is no such profile.
    """
    prices = load_profile(profile)
    rows: list[tuple[str, _Numbers, _Numbers]] = [
        *((layer.name, *_layer_counts(layer, prices.state_bits)) for layer in report.layers),
        *((neuron.name, *_neuron_counts(neuron, prices.state_bits)) for neuron in report.neurons),
        *((other.name, *_other_counts(other)) for other in report.others),
    ]
    terms = []
    for layer, counts, sizes in rows:
        for name, term in prices.terms.items():
            if term.count in counts:
                price, low, high, status = term.price(sizes.get(term.over or "", 0.0))
                count = counts[term.count]
                terms.append(TermEnergy(layer, name, count * price, count * low, count * high, status))
    static = prices.static_energy(report.timesteps * report.samples, seconds_per_step)
    if static is not None:
        terms.append(static)
    return EnergyReport(profile, prices.uncertainty, report.samples, tuple(terms), _why_not(prices, static))


def _why_not(prices: EnergyProfile, static: TermEnergy | None) -> str:
    """Why there is no static energy."""
    if static is not None:
        return ""
    return "the profile has no static power" if prices.static is None else "give the seconds of a step"


def _layer_counts(layer: LayerCost, state_bits: int) -> tuple[_Numbers, _Numbers]:
    stored = layer.memory_bits[layer.best_format]
    counts = {
        "ac": layer.ac,
        "mac": layer.mac,
        "synops": layer.synops,
        "input_events": layer.input_events,
        "further_cores": layer.input_events * ((prod(layer.output_shape) - 1) // NEURONS_PER_CORE),
        "weight_bits_read": layer.synops * stored / max(1, layer.nonzero),
        "synapse_state_accesses": 2 * layer.synops,
        "synapse_state_bits": 2 * layer.synops * state_bits,
    }
    sizes = {
        "weight_bits": layer.bits,
        "weight_array": stored,
        "state_array": prod(layer.output_shape) * state_bits,
        "buffer_array": layer.buffer_bits,
    }
    return counts, sizes


def _neuron_counts(neuron: NeuronCost, state_bits: int) -> tuple[_Numbers, _Numbers]:
    accesses = 2 * neuron.updates * neuron.states
    counts = {
        "updates": neuron.updates,
        "spikes": neuron.spikes,
        "update_state_accesses": accesses,
        "update_state_bits": accesses * state_bits,
    }
    return counts, {"state_array": neuron.neurons * neuron.states * state_bits}


def _other_counts(other: OtherCost) -> tuple[_Numbers, _Numbers]:
    """Pooling and additions; a BatchNorm is folded into the layer before it and costs nothing of its own."""
    return ({} if other.kind == "batch_norm" else {"other_operations": other.operations}), {}


COUNTS = frozenset(
    {
        "ac", "mac", "synops", "input_events", "further_cores", "weight_bits_read", "synapse_state_accesses",
        "synapse_state_bits", "updates", "spikes", "update_state_accesses", "update_state_bits",
        "other_operations",
    }
)  # fmt: skip


def _least_trusted(*statuses: str) -> str:
    return max(statuses, key=_TRUST.index)
