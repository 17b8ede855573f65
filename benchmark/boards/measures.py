"""What is measured of a run: names, meanings and units, and the values of a record."""

from benchmark.records import RunRecord
from hardware.energy import energy

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


def values_of(record: RunRecord, energy_profile: str) -> dict[str, float]:
    """The numbers of a finished record by name of :data:`MEASURES`, as far as it has them; without ``difference``.

    Args:
        record: of a run.
        energy_profile: what prices its counts.

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
