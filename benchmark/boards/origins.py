"""Which runs started from the same dense network: the same weights, whoever trained them, in whatever file."""

from collections.abc import Iterable

from benchmark.records import RunRecord

Mark = tuple[str, ...]


def marks(record: RunRecord) -> set[Mark]:
    """What tells a run's dense network: two runs that share one of them started from the same weights.

    That is its tensors' hash. Older records know the file's, which newer ones from the same file have too; and the id
    of a network that came with its weights has their hash in it.
    """
    dense = record.dense
    if dense is None:
        return set()
    known: set[Mark] = {("file", dense.sha256)}
    if dense.tensors_sha256 is not None:
        known.add(("tensors", dense.tensors_sha256))
    if record.question.model.checkpoint is not None:
        known.add(("weights", dense.id))
    return known


def same_origin(a: RunRecord, b: RunRecord) -> bool:
    """Whether two runs are known to have started from the same weights."""
    return bool(marks(a) & marks(b))


def origins(records: Iterable[RunRecord]) -> dict[str, str]:
    """Run id -> a name of the dense network it started from, the same for all runs of the same weights.

    The name is the first of the hashes of its files.
    """
    groups: dict[Mark, set[Mark]] = {}
    known = {record.id: marks(record) for record in records}
    for found in known.values():
        together = set(found).union(*(groups.get(mark, set()) for mark in found))
        if any(groups.get(mark) != together for mark in found):
            groups |= dict.fromkeys(together, together)
    return {
        run: min(mark[1] for mark in groups[next(iter(found))] if mark[0] == "file") for run, found in known.items()
    }
