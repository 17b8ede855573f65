"""What a record has to stand before it is taken: each check says what it found, or why it could not look."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from benchmark.files import sha256
from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints
from benchmark.questions import build
from benchmark.records import DenseNetwork, RecordError, RunRecord, read_record
from benchmark.runs.dense import dense_path
from benchmark.single_network import compression_map
from compressors.budget import OptionError
from compressors.registry import COMPRESSORS, PluginError, UnknownName
from datamodules.storage import cache_folder
from hardware.report import LayerCost

NEAR = 2.0
"""Standard errors by which the accuracies of one question may differ on two machines."""

SAME_MACHINE = ("python", "platform", "processor", "device", "devices", "threads", "packages", "git")
"""Where an environment is the same in these, the same question gives the same bits."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is right (None: it could not be told), and what was found."""

    name: str
    passed: bool | None
    found: str


@dataclass(frozen=True)
class Checked:
    """A record's file with what was found.

    Args:
        path: the file.
        record: None where it cannot be read.
        checks: what was looked at.
        second: another run of the same question, if one was given.
    """

    path: Path
    record: RunRecord | None
    checks: tuple[Check, ...]
    second: RunRecord | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong with it."""
        return all(check.passed is not False for check in self.checks)


def check_all(paths: Sequence[Path], known: Iterable[RunRecord], maps: Path | None = None) -> list[Checked]:
    """Check record files; two files of one run id are two runs, which have to agree.

    Args:
        paths: the files.
        known: records that the project has already, whose data fingerprints are compared.
        maps: folder of compression maps, ``<run id>.map.json``.

    Returns:
        One entry for each run id, of the first file; and one for each file that cannot be read.
    """
    fingerprints = {_data_key(record): str(record.data.get("fingerprint")) for record in known}
    runs: dict[str, list[tuple[Path, RunRecord]]] = {}
    unreadable = []
    for path in paths:
        try:
            record = read_record(path)
        except RecordError as error:
            unreadable.append(Checked(path, None, (Check("schema", False, str(error)),)))
            continue
        runs.setdefault(record.id, []).append((path, record))
    return [_checked(found, fingerprints, maps) for found in runs.values()] + unreadable


def agree(one: RunRecord, other: RunRecord) -> Check:
    """Whether two runs of one question gave the same: to the bit on one machine, within noise on two."""
    name = "two runs"
    if (one.created, one.seconds) == (other.created, other.seconds):
        return Check(name, False, "the same run twice: give the record of another one")
    same = all(one.environment.get(key) == other.environment.get(key) for key in SAME_MACHINE)
    a, b = one.answer, other.answer
    if same:
        equal = (a.metrics, _counts(one)) == (b.metrics, _counts(other))
        return Check(name, equal, "the same to the bit" if equal else "on the same machine, and not the same")
    share = (a.metrics.accuracy + b.metrics.accuracy) / 2
    allowed = NEAR * sqrt(2 * share * (1 - share) / a.cost.samples)
    difference = abs(a.metrics.accuracy - b.metrics.accuracy)
    kept = [layer.kept for layer in a.compression.layers] == [layer.kept for layer in b.compression.layers]
    told = f"on two machines: accuracy differs by {100 * difference:.2f} points, of {100 * allowed:.2f} allowed"
    return Check(name, kept and difference <= allowed, told if kept else "layers keep other numbers of weights")


def _checked(found: Sequence[tuple[Path, RunRecord]], fingerprints: dict[str, str], maps: Path | None) -> Checked:
    path, record = found[0]
    if record.status == "failed":
        return Checked(path, record, (Check("result", False, f"the run failed: {record.error}"),))
    checks = [
        Check("schema", True, f"version {record.schema_version}"),
        _check_id(path, record),
        *_check_method(record),
        _check_data(record, fingerprints),
        *_check_counts(record),
        _check_map(record, maps),
        *_check_dense(record),
        _check_repetition([other for _, other in found]),
    ]
    return Checked(path, record, tuple(checks), second=found[1][1] if len(found) > 1 else None)


def _check_id(path: Path, record: RunRecord) -> Check:
    fingerprint = str(record.data.get("fingerprint"))
    if path.stem != record.id:
        return Check("run id", False, f"the file is called {path.name}, and the run {record.id}")
    if record.question.model.checkpoint is not None:
        return Check("run id", None, "the network came with its weights, whose hash is part of it")
    right = record.question.id(fingerprint, record.version)
    return Check("run id", right == record.id, f"the question's is {right}")


def _check_method(record: RunRecord) -> Iterator[Check]:
    """The method's version, and that the options are those of the question."""
    named, question = record.question.compressor, record.question
    try:
        target = COMPRESSORS[named.name].load()
        made = build.compressor(named, question.budget, question.seed, aftercare=question.aftercare)
    except (UnknownName, PluginError) as error:
        yield Check("version", None, str(error))
        return
    except OptionError as error:
        yield Check("version", False, str(error))
        return
    present = target.version_with(named.options, question.aftercare)
    told = f"made by version {record.version} of {named.name}; here it is {present}"
    yield Check("version", record.version == present, told if record.version != present else f"{present}")
    options = {key: value for key, value in made.options_to_dict().items() if key in record.options}
    same = _plain(options) == record.options
    yield Check("options", same if record.options else None, "those of the question" if same else "not the question's")


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _data_key(record: RunRecord) -> str:
    return f"{record.question.data.model_dump_json()} {record.data.get('split')}"


def _check_data(record: RunRecord, fingerprints: dict[str, str]) -> Check:
    known = fingerprints.get(_data_key(record))
    if known is None:
        return Check("data", None, "no record here is of this data set, shown like this")
    same = known == record.data.get("fingerprint")
    return Check("data", same, "the fingerprint is that of other records" if same else "the files have another content")


def _check_counts(record: RunRecord) -> Iterator[Check]:
    """What the numbers of a record say of each other."""
    answer = record.answer
    right = answer.metrics.accuracy * answer.cost.samples
    whole = abs(right - round(right)) < 1e-3
    yield Check("accuracy", whole, f"{right:.6g} of {answer.cost.samples:,} test samples")
    costs = {layer.name: layer for layer in answer.cost.layers}
    wrong = [
        f"{name} ({reason})"
        for name, holds, reason in (
            *((layer.name, *rule) for layer in answer.cost.layers for rule in _cost_rules(layer)),
            *((layer.name, *rule) for layer in answer.compression.layers for rule in _layer_rules(layer, costs)),
        )
        if not holds
    ]
    weights = sum(layer.weights for layer in answer.compression.layers)
    kept = sum(layer.kept for layer in answer.compression.layers)
    if weights and abs(kept / weights - answer.compression.density) > 1e-6:
        wrong.append("density of all layers")
    yield Check("counts", not wrong, "agree with each other" if not wrong else f"wrong: {', '.join(wrong)}")


def _cost_rules(layer: LayerCost) -> list[tuple[bool, str]]:
    return [
        (layer.ac + layer.mac <= layer.dense, "more operations than a dense layer has"),
        (sum(layer.synops_per_step) == layer.ac + layer.mac, "its steps do not add up"),
        (layer.nonzero <= layer.weights, "more nonzero weights than weights"),
    ]


def _layer_rules(layer: Any, costs: dict[str, LayerCost]) -> list[tuple[bool, str]]:
    rules = [(abs(layer.kept - layer.density * layer.weights) < 0.5, "density is not kept by weights")]
    counted = costs.get(layer.name)
    if counted is None:
        return [*rules, (False, "was not counted")]
    return [
        *rules,
        (counted.nonzero <= layer.kept, "more nonzero weights than kept ones"),
        (tuple(layer.shape) == tuple(counted.weight_shape), "counted with another shape"),
        (layer.bits is None or layer.bits == counted.bits, "counted with another width"),
    ]


def _check_map(record: RunRecord, maps: Path | None) -> Check:
    """Counts of the layers, recomputed from what was kept of each."""
    path = None if maps is None else maps / f"{record.id}.map.json"
    if path is None or not path.is_file():
        return Check("map", None, "there is no compression map of it")
    try:
        layers = {layer.name: layer for layer in compression_map.load(path).layers}
    except CheckpointError as error:
        return Check("map", False, str(error))
    wrong = []
    for layer in record.answer.compression.layers:
        mapped = layers.get(layer.name.removeprefix("network."))
        bits = None if mapped is None or mapped.grid is None else mapped.grid.bits
        if mapped is None or (int(mapped.mask.sum()), tuple(mapped.shape)) != (layer.kept, tuple(layer.shape)):
            wrong.append(layer.name)
        elif bits is not None and bits != layer.bits:
            wrong.append(f"{layer.name} (width)")
    return Check("map", not wrong, "its counts are the record's" if not wrong else f"differs in {', '.join(wrong)}")


def _check_dense(record: RunRecord) -> Iterator[Check]:
    """The dense network's id, and its file where it is here."""
    dense, question = record.answer.dense, record.question
    if question.model.checkpoint is None:
        right = question.dense_id(str(record.data.get("fingerprint")))
        yield Check("dense network", right == dense.id, f"the question's is {right}")
    kept = dense_path(cache_folder(), dense.id)
    if not kept.is_file():
        yield Check("checkpoint", None, "the dense network's file is not on this machine")
        return
    yield _check_file(dense, kept)


def _check_file(dense: DenseNetwork, kept: Path) -> Check:
    """Whether a file is the dense network's: of the same bytes or, trained once more, of the same tensors."""
    if sha256(kept) == dense.sha256:
        return Check("checkpoint", True, "its hash is the record's")
    if dense.tensors_sha256 is None:
        return Check("checkpoint", False, f"{kept} is another file")
    try:
        same = checkpoints.load(kept).tensors_sha256 == dense.tensors_sha256
    except CheckpointError as error:
        return Check("checkpoint", False, str(error))
    return Check("checkpoint", same, "its tensors' hash is the record's" if same else f"{kept} is another network")


def _check_repetition(runs: Sequence[RunRecord]) -> Check:
    if len(runs) > 1:
        verdicts = [agree(runs[0], other) for other in runs[1:] if other.status == "done"]
        return min(
            verdicts, key=lambda check: bool(check.passed), default=Check("two runs", False, "the second failed")
        )
    submission = runs[0].submission
    if submission is not None:
        return Check("two runs", True, f"agreed on {submission.repeated}, says who submitted it")
    remedy = "run the suite again with another --results and SNNBENCH_CACHE, and give both records"
    return Check("two runs", False, f"there is one: {remedy}")


def _counts(record: RunRecord) -> tuple[Any, ...]:
    """What two runs on one machine have in common to the bit."""
    answer = record.answer
    layers = [layer.model_dump() for layer in answer.compression.layers]
    return answer.compression.density, layers, answer.cost.to_dict()
