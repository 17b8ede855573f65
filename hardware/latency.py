"""How long a chip of Loihi's kind takes at least: in every step its heaviest core decides, and then all of them meet.

Each layer has as few cores as it fits on. In a step a core goes through its neurons, takes the packets that reach it
and their synapses, sends what fires, and waits for all others. Traffic on the mesh, the host and its input and output
cost time on top, so that both ends are least times of their kind:

- the low end shares each layer's work evenly between its cores, lets each event reach one core, lets a core's neurons
  and its synapses work at the same time, and takes the shortest time of each operation;
- the high end lets each event reach every core of its layer, one part of a core wait for the other, and takes the
  longest time of each operation.

Times are those of SANA-FE's architecture file for Loihi, which is fitted to measurements on a board (Boyle et al.,
TCAD 2025). Layers work at the same time, each on what the one before sent in the last step.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from hardware.chips import chips, cores_of
from hardware.report import CostReport, LayerCost

ACCESS_NS = 6.0  # of a neuron, in every step
UPDATE_NS = 3.7  # of a neuron that receives input, more
SYNAPSE_NS = (3.1, 4.7)  # convolutional, sparse
MESSAGE_IN_NS = 16.0
SPIKE_NS = 30.0
MESSAGE_OUT_NS = 5.1
BARRIER_NS = (600.0, 1800.0)  # one tile, the whole chip
CHIP = "loihi1"


@dataclass(frozen=True)
class Latency:
    """Least time of an inference.

    Args:
        low_s: with work shared evenly and the shortest times.
        high_s: with every event in every core of its layer and the longest times.
        heaviest: the layer whose cores decide most steps at the low end.
        cores: that the network takes.
    """

    low_s: float
    high_s: float
    heaviest: str
    cores: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def latency(report: CostReport) -> Latency | None:
    """The least time of an inference, on the mean over the samples; None for a network of no layer with weights."""
    layers = [layer for layer in report.layers if layer.called and layer.weights]
    if not layers:
        return None
    spikes = sum(neuron.spikes for neuron in report.neurons) / max(1, sum(neuron.updates for neuron in report.neurons))
    steps = range(report.timesteps)
    low = [{layer.name: _core_ns(layer, report, step, spikes, 0) for layer in layers} for step in steps]
    high = [max(_core_ns(layer, report, step, spikes, 1) for layer in layers) for step in steps]
    deciding = [max(step, key=lambda name: step[name]) for step in low]
    return Latency(
        low_s=1e-9 * sum(max(step.values()) + BARRIER_NS[0] for step in low),
        high_s=1e-9 * sum(step + BARRIER_NS[1] for step in high),
        heaviest=max(dict.fromkeys(deciding), key=deciding.count),
        cores=sum(cores_of(layer, chips()[CHIP]) for layer in layers),
    )


def _core_ns(layer: LayerCost, report: CostReport, step: int, firing_rate: float, end: int) -> float:
    """What one core of a layer takes in a step, at the low (0) or the high end (1)."""
    cores = cores_of(layer, chips()[CHIP])
    per_step = layer.synops_per_step
    synops = per_step[step] / report.samples if step < len(per_step) else 0.0
    share = synops / layer.synops if layer.synops else 0.0
    events = share * layer.input_events
    neurons = prod(layer.output_shape) / cores
    reached = events if end else events / cores
    updated = neurons if end else min(neurons, synops / cores / max(1, layer.fan_in))
    somas = neurons * (ACCESS_NS + firing_rate * (SPIKE_NS + MESSAGE_OUT_NS)) + updated * UPDATE_NS
    synapses = reached * MESSAGE_IN_NS + synops / cores * SYNAPSE_NS[end]
    return somas + synapses if end else max(somas, synapses)
