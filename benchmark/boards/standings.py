"""Records -> tables: runs that may be compared with each other, averaged over seeds, with their Pareto fronts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

from benchmark.boards.origins import origins
from benchmark.boards.repeatable import is_report
from benchmark.boards.titles import data_title, network_title
from benchmark.questions.suite import Named, digest
from benchmark.records import RunRecord, answers_of
from compressors.budget import Budget
from hardware.energy import DEFAULT_PROFILE, energy, load_profile

DENSE = "identity"  # the compressor that leaves the network as it is
DENSE_FROM_SCRATCH = "dense, from scratch"  # it again, beside a training as long as that of those trained sparse
COSTS = ("synops", "stored_bits")  # each has a Pareto front of its own
MEASURES = {
    "accuracy": "share of test samples classified correctly",
    "difference": "accuracy minus that of the same dense checkpoint",
    "density": "share of weights kept over the compressed layers, as achieved",
    "bits": "mean width of a nonzero weight, in bits",
    "synops": "synaptic operations per sample: accumulates and multiply-accumulates",
    "synops_ac": "accumulates per sample",
    "synops_mac": "multiply-accumulates per sample",
    "weight_bits": "nonzero weights times their width, in bits",
    "stored_bits": "weights, index and scales in each layer's best format, in bits",
    "total_bits": "stored weights and neuron state, in bits",
    "energy_j": "energy per sample under the board's profile, in joules: an estimate",
    "compression_seconds": "wall time of calibration and compression, in seconds",
    "peak_memory_bytes": "largest memory of the process during the run, in bytes; absent where the system cannot tell",
    "spike_mismatch": "of the spikes that this network or the dense one fires, the share that one of them alone does",
    "van_rossum": "squared van Rossum distance to the dense spike trains, over their own squared norm",
    "earth_mover": "between the firing rates of this network's neurons and of the dense one's, in spikes per step",
    "dead_neurons": "share of neurons that never fire",
    "saturated_neurons": "share of neurons that fire in every step",
}
"""What a row measures: name -> meaning and unit. Operations and memory are those of :class:`hardware.CostReport`.

The last five are of spikes (:meth:`benchmark.records.SpikeAccount.summary`), and absent where a record has none."""


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None for a single value) and number of values."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True, order=True)
class Setup:
    """What all runs of a table share, but for the division: runs of different setups are never compared."""

    data: str
    split: str
    timesteps: int
    model: str
    fingerprint: str
    training: str  # hash of how the dense networks were trained

    @property
    def data_name(self) -> str:
        """The data set's plain name."""
        return self.data.partition("[")[0]

    @classmethod
    def of(cls, record: RunRecord) -> "Setup":
        """The setup of a run."""
        question = record.question
        options = {key: value for key, value in question.data.options.items() if key != "split"}
        return cls(
            data=Named(name=question.data.name, **options).label,
            split=str(record.data.get("split", "official")),
            timesteps=question.data.timesteps,
            model=question.model.label,
            fingerprint=str(record.data["fingerprint"]),
            training=digest(question.training.model_dump()),
        )


@dataclass(frozen=True)
class Row:
    """A compressor at a budget, over seeds.

    Args:
        method: label of the compressor.
        budget: what was asked for.
        calibration_samples: samples the compressor may look at; 0 for the dense network.
        control: a yardstick rather than a method of its own.
        runs: seed -> record id.
        measured: name of :data:`MEASURES` -> spread over seeds; ``difference`` is absent where no seed has a record of
            its dense checkpoint, and others where some record does not know them.
        values: seed -> name of :data:`MEASURES` -> the value of that run; ``difference`` is never among them.
        reported: whether a record is its author's report: submitted, and made of what others do not have.
        fronts: those of :data:`COSTS` on whose Pareto front the row stands, by its means.
        family: plain name of the compressor, which its variants share.
        samples: test samples that the accuracy is of.
        answers: seed -> which of them are classified right (:func:`benchmark.records.answers_of`), where that is known.
        version: of the compressor.
    """

    method: str
    budget: Budget
    calibration_samples: int
    control: bool
    runs: Mapping[int, str]
    measured: Mapping[str, Spread]
    values: Mapping[int, Mapping[str, float]]
    reported: bool = False
    fronts: frozenset[str] = frozenset()
    family: str = ""
    samples: int = 0
    answers: Mapping[int, int] = field(default_factory=dict)
    version: int = 1

    @property
    def dense(self) -> bool:
        """Whether this is the dense network itself."""
        return self.method == DENSE

    @property
    def label(self) -> str:
        """The method's name for people."""
        return "dense" if self.dense else self.method


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: one setup, one division, one condition; the dense network first, then by budget.

    ``condition`` says how the compressed networks were fine-tuned and cared for; it is empty where they were not.
    ``data`` and ``network`` are the names of what the setup names for programs. ``earlier`` are rows of older
    versions of the compressors, which are ranked with none.
    """

    setup: Setup
    division: str
    condition: str
    rows: tuple[Row, ...]
    data: str = ""
    network: str = ""
    earlier: tuple[Row, ...] = ()

    @property
    def title(self) -> str:
        """One line for people."""
        condition = f" ({self.condition})" if self.condition else ""
        return f"{self.subject} · {self.division}{condition}"

    @property
    def subject(self) -> str:
        """The data set, the network and its time steps, for people."""
        names = self.data or self.setup.data, self.network or self.setup.model
        return f"{' · '.join(names)} · T = {self.setup.timesteps}"

    @property
    def plain(self) -> dict[str, str]:
        """Method -> the label under which its variants are folded: its plain name, or else the first of them."""
        labels: dict[str, set[str]] = defaultdict(set)
        for row in self.rows:
            labels[row.family].add(row.label)
        return {family: family if family in own else min(own) for family, own in labels.items()}

    @property
    def slug(self) -> str:
        """A file name without suffix, different for each table."""
        network = self.setup.model.partition("[")[0].partition(" ")[0]
        division = self.division.replace(", ", "-")
        return f"{division}-{self.setup.data_name}-{network}-{self.key}"

    @property
    def key(self) -> str:
        """A hash of setup, division and condition, for people to tell tables of one title apart."""
        return digest([*vars(self.setup).values(), self.division, *filter(None, [self.condition])])[:6]


@dataclass(frozen=True)
class Apart:
    """A record that stands in no table, and why."""

    run: str
    label: str
    reason: str


@dataclass(frozen=True)
class Board:
    """All tables, the records that stand in none, all records by id, and the energy profile that priced them.

    The records are without counts per time step and per neuron.
    """

    tables: tuple[Table, ...]
    apart: tuple[Apart, ...]
    runs: Mapping[str, RunRecord]
    energy_profile: str


@dataclass(frozen=True)
class _Entry:
    """A record with its table and numbers, and a name of its dense network; or the reason why it stands in no table."""

    record: RunRecord
    setup: Setup | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    reason: str = ""

    @cached_property
    def method(self) -> str:
        question = self.record.question
        anew = question.from_scratch is not None and question.compressor.label == DENSE
        return DENSE_FROM_SCRATCH if anew else question.compressor.label

    @property
    def dense(self) -> bool:
        return self.method == DENSE

    @cached_property
    def kind(self) -> tuple[str, str]:
        return self.record.division, self.record.question.condition

    @cached_property
    def row(self) -> tuple[str, Budget, int]:
        question = self.record.question
        return self.method, question.budget, 0 if self.dense else question.calibration_samples


def standings(records: Iterable[RunRecord], energy_profile: str = DEFAULT_PROFILE) -> Board:
    """Sort records into tables.

    Runs are compared only if they share data (split, time steps, content), network, training of the dense network and,
    seed by seed, the dense checkpoint itself. What fails that stands apart, with the reason, as do failed runs.
    What older versions of a compressor gave is the history of its table. The dense network stands in the
    tables of all divisions.

    Raises:
        ValueError: there is no such energy profile.
    """
    load_profile(energy_profile)
    shared: dict[str, Any] = {}
    found = {record.id: _judged(record, energy_profile, shared) for record in records}
    groups: dict[Setup, list[_Entry]] = defaultdict(list)
    apart: list[Apart] = []
    for _, judged in sorted(found.items()):
        if judged.reason:
            apart.append(_apart(judged.record, judged.reason))
        elif judged.setup is not None:
            groups[judged.setup].append(judged)
    tables: list[Table] = []
    for setup in sorted(groups):
        newest, older = _by_version(_with_origins(groups[setup]))
        tables += _tables(setup, _of_one_checkpoint(newest, apart), older, apart)
    runs = {run_id: judged.record for run_id, judged in found.items()}
    return Board(tuple(tables), tuple(apart), runs, energy_profile)


def pareto(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Which points no other dominates: costs at most as much and gains at least as much, one of the two strictly."""
    best = float("-inf")
    front = [False] * len(costs)
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i]))
    for _, same_cost in groupby(order, key=lambda i: costs[i]):
        points = list(same_cost)
        top = gains[points[0]]
        for i in points:
            front[i] = gains[i] == top > best
        best = max(best, top)
    return front


def _apart(record: RunRecord, reason: str) -> Apart:
    return Apart(record.id, record.question.label, reason)


def _judged(record: RunRecord, energy_profile: str, shared: dict[str, Any]) -> _Entry:
    """A record with its numbers, or with the reason why it has none; what a board does not need of it is let go."""
    lean = _lean(record, shared)
    if record.status == "failed":
        return _Entry(lean, reason=f"failed: {record.error}")
    try:
        return _Entry(lean, Setup.of(record), _values(record, energy_profile))
    except (KeyError, ArithmeticError, ValueError) as error:
        return _Entry(lean, reason=f"unreadable result ({type(error).__name__}: {error})")


def _lean(record: RunRecord, shared: dict[str, Any]) -> RunRecord:
    """A record without its counts per step and neuron, which no board shows: boards hold tens of thousands.

    Args:
        record: a whole one.
        shared: what earlier ones had in common, by its text; this one takes its part from there, and adds to it.
    """

    def common(value: Any) -> Any:
        return shared.setdefault(repr(value), value)

    question = record.question
    parts = {name: common(getattr(question, name)) for name in ("data", "model", "training", "compressor", "budget")}
    cost = record.cost
    if cost is not None:
        layers = tuple(replace(layer, synops_per_step=(), input_shape=(), output_shape=()) for layer in cost.layers)
        cost = replace(cost, layers=layers, neurons=(), others=())
    return record.model_copy(
        update={
            "question": question.model_copy(update=parts),
            "cost": cost,
            "traceback": None,
            **{name: common(getattr(record, name)) for name in ("environment", "data", "options", "suite")},
        }
    )


def _values(record: RunRecord, energy_profile: str) -> dict[str, float]:
    """The numbers of a finished record, as far as it has them; ``difference`` not among them.

    Raises:
        ArithmeticError, ValueError: its cost report makes no sense (no samples, a layer in no format).
    """
    answer, cost = record.answer, record.answer.cost
    values = {
        "accuracy": answer.metrics.accuracy,
        "density": answer.compression.density,
        "bits": cost.weight_bits / max(1, sum(layer.nonzero for layer in cost.layers)),
        "synops": cost.synops / cost.samples,
        "synops_ac": cost.ac / cost.samples,
        "synops_mac": cost.mac / cost.samples,
        "weight_bits": cost.weight_bits,
        "stored_bits": cost.stored_bits,
        "total_bits": cost.total_bits,
        "energy_j": energy(cost, energy_profile).joules,
        "compression_seconds": answer.compression.seconds,
    }
    if record.peak_memory_bytes is not None:
        values["peak_memory_bytes"] = record.peak_memory_bytes
    if record.spikes is not None:
        values |= record.spikes.summary()
    return values


def _with_origins(entries: list[_Entry]) -> list[_Entry]:
    """The entries with the dense network that each started from."""
    known = origins(entry.record for entry in entries)
    return [replace(entry, checkpoint=known[entry.record.id]) for entry in entries]


def _by_version(entries: list[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
    """What the newest version of each compressor gave, and what older ones did."""
    newest: dict[str, int] = defaultdict(int)
    for entry in entries:
        newest[entry.method] = max(newest[entry.method], entry.record.version)
    present = [entry for entry in entries if entry.record.version == newest[entry.method]]
    return present, [entry for entry in entries if entry.record.version != newest[entry.method]]


def _of_one_checkpoint(entries: list[_Entry], apart: list[Apart]) -> list[_Entry]:
    """Keep, for each seed, the runs of one dense checkpoint: one with a dense record, then the one of most runs."""
    with_record = {entry.checkpoint for entry in entries if entry.dense}
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        counts[entry.record.question.seed][entry.checkpoint] += 1
    chosen = {seed: max(found, key=lambda sha: (sha in with_record, found[sha], sha)) for seed, found in counts.items()}
    kept = []
    for entry in entries:
        seed = entry.record.question.seed
        if entry.checkpoint == chosen[seed]:
            kept.append(entry)
        else:
            apart.append(
                _apart(
                    entry.record,
                    f"started from dense checkpoint {entry.checkpoint[:8]}, the table's other runs of seed {seed} from "
                    f"{chosen[seed][:8]}: delete this record and run its suite again",
                )
            )
    return kept


def _tables(setup: Setup, entries: list[_Entry], older: list[_Entry], apart: list[Apart]) -> list[Table]:
    """A table for each division and condition that has more than the dense network, or one of that alone.

    What older versions gave is the history of its table; where there is no such table any more it stands apart.
    """
    baselines = {entry.checkpoint: entry.values["accuracy"] for entry in entries if entry.dense}
    kinds = sorted({entry.kind for entry in entries if not entry.dense} or {entry.kind for entry in entries})
    question = entries[0].record.question
    names = data_title(question.data, setup.split), network_title(question.model)
    for entry in older:
        if entry.kind not in kinds:
            reason = f"made by version {entry.record.version} of {entry.method}, and no table of newer ones is like it"
            apart.append(_apart(entry.record, reason))
    rows = {kind: _rows([entry for entry in entries if entry.dense or entry.kind == kind], baselines) for kind in kinds}
    earlier = {kind: _earlier([entry for entry in older if entry.kind == kind], baselines) for kind in kinds}
    return [Table(setup, *kind, rows[kind], *names, earlier=earlier[kind]) for kind in kinds]


def _earlier(entries: list[_Entry], baselines: Mapping[str, float]) -> tuple[Row, ...]:
    """The rows of older versions, each version's for itself, the newest of them first; none is on a front."""
    versions = sorted({entry.record.version for entry in entries}, reverse=True)
    by_version = (
        _rows([entry for entry in entries if entry.record.version == version], baselines) for version in versions
    )
    return tuple(replace(row, fronts=frozenset()) for rows in by_version for row in rows)


def _rows(entries: list[_Entry], baselines: Mapping[str, float]) -> tuple[Row, ...]:
    grouped: dict[tuple[str, Budget, int], dict[int, _Entry]] = defaultdict(dict)
    for entry in entries:
        grouped[entry.row].setdefault(entry.record.question.seed, entry)
    rows = [_row(by_seed, baselines) for by_seed in grouped.values()]
    rows.sort(key=lambda row: (not row.dense, row.budget.rank, -row.measured["accuracy"].mean, row.method))
    return _with_fronts(rows)


def _row(by_seed: Mapping[int, _Entry], baselines: Mapping[str, float]) -> Row:
    seeds = sorted(by_seed)
    entries = [by_seed[seed] for seed in seeds]
    known = [name for name in MEASURES if all(name in entry.values for entry in entries)]
    measured = {name: Spread.of([entry.values[name] for entry in entries]) for name in known}
    differences = [e.values["accuracy"] - baselines[e.checkpoint] for e in entries if e.checkpoint in baselines]
    if differences:
        measured["difference"] = Spread.of(differences)
    method, budget, calibration_samples = entries[0].row
    return Row(
        method=method,
        budget=budget,
        calibration_samples=calibration_samples,
        control=entries[0].record.control,
        runs={seed: by_seed[seed].record.id for seed in seeds},
        measured=measured,
        values={seed: by_seed[seed].values for seed in seeds},
        reported=any(is_report(entry.record) for entry in entries),
        family=entries[0].record.question.compressor.name,
        samples=entries[0].record.answer.cost.samples,
        answers={seed: _answers(by_seed[seed].record) for seed in seeds if by_seed[seed].record.correct is not None},
        version=entries[0].record.version,
    )


def _answers(record: RunRecord) -> int:
    return answers_of(record.correct or "", record.answer.cost.samples)


def _with_fronts(rows: list[Row]) -> tuple[Row, ...]:
    gains = [row.measured["accuracy"].mean for row in rows]
    on = {cost: pareto([row.measured[cost].mean for row in rows], gains) for cost in COSTS}
    return tuple(replace(row, fronts=frozenset(cost for cost in COSTS if on[cost][i])) for i, row in enumerate(rows))
