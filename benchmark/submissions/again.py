"""One submitted row, chosen by chance among the cheap ones, asked again on this machine."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmark.boards.repeatable import obstacles
from benchmark.records import RunRecord
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import answer, silent
from benchmark.submissions.checks import Check, agree
from compressors.budget import OptionError
from datamodules.errors import CalibrationTooLarge, DataCorrupt, DataMissing

CHEAP_S = 600.0
"""What a run may have taken with the training of its dense network, in seconds, to be asked again."""


def cheap(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Those that anybody can ask again, in ten minutes."""
    return [
        record
        for record in records
        if record.status == "done" and not obstacles(record) and _seconds(record) <= CHEAP_S
    ]


def run_again(records: Sequence[RunRecord], seed: int) -> Check:
    """Ask one of the questions again, with a dense network trained anew, and compare.

    Args:
        records: the submitted ones.
        seed: decides which of them.
    """
    candidates = cheap(records)
    random.Random(seed).shuffle(candidates)
    for record in candidates:
        try:
            return _compared(record)
        except DataMissing:
            continue
        except (DataCorrupt, CalibrationTooLarge, OptionError) as error:
            return Check("run again", False, f"{record.id} cannot be asked here: {error}")
    return Check("run again", None, f"none of {len(records)} that anybody could, on the data here and in ten minutes")


def _compared(record: RunRecord) -> Check:
    with tempfile.TemporaryDirectory() as cache:
        setting = Setting(Path(cache), track=silent)
        data = OpenedData(setting)
        run = data.run(record.question)
        if run.id != record.id:
            return Check("run again", False, f"{record.id} is the run {run.id} here: other data, or another version")
        found = answer(run, record.suite, data, setting)
    if found.status == "failed":
        return Check("run again", False, f"{record.id} fails here: {found.error}")
    compared = agree(record, found)
    return Check("run again", compared.passed, f"{record.id}, {record.question.label}: {compared.found}")


def _seconds(record: RunRecord) -> float:
    dense = record.dense.seconds if record.dense is not None else None
    return sum(record.seconds.values()) + (dense or 0.0)
