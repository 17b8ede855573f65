"""What is kept of a run, and how.

A record may come from anybody. :func:`read_record` is the one way to read one, and believes nothing: what it gives back
has the types, sizes and names that boards, commands and pages can rely on.
"""

from benchmark.records.run_record import (
    PACKAGES,
    SCHEMA,
    Answer,
    CompressionAccount,
    DenseNetwork,
    Metrics,
    NeuronSpikes,
    NoAnswer,
    RunRecord,
    SpikeAccount,
    Submission,
    answers_of,
    packed_answers,
)
from benchmark.records.store import RecordError, RecordStore, as_text, read_record

__all__ = [
    "PACKAGES",
    "SCHEMA",
    "Answer",
    "CompressionAccount",
    "DenseNetwork",
    "Metrics",
    "NeuronSpikes",
    "NoAnswer",
    "RecordError",
    "RecordStore",
    "RunRecord",
    "SpikeAccount",
    "Submission",
    "answers_of",
    "as_text",
    "packed_answers",
    "read_record",
]
