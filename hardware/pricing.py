"""From running sums to a report: what was counted, joined with how the weights are stored."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import prod

from torch import nn

from hardware.memory import WeightCoding, format_bits
from hardware.report import CostReport, LayerCost, NeuronCost, spread
from hardware.tally import LayerTally, NetworkTally, NeuronTally

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
FLOAT_STATE_BITS = 32


def make_report(tally: NetworkTally, net: nn.Module, codings: Mapping[str, WeightCoding]) -> CostReport:
    """Turn the sums of a finished run into a report.

    Args:
        tally: what was counted.
        net: the network, to find the layers that were never called.
        codings: how weights are stored, by layer name; 32-bit float for the others.

    Raises:
        ValueError: if nothing was counted, or `codings` names a layer that does not exist.
    """
    samples = tally.per_sample.samples
    if not samples:
        raise ValueError("no sample was counted: run at least one test batch before asking for the cost")
    tallies = [*tally.layers.values(), *_uncalled(net, tally.layers)]
    _refuse_unknown(codings, [layer.name for layer in tallies])
    layers = tuple(_layer_cost(layer, codings.get(layer.name, WeightCoding()), samples) for layer in tallies)
    _, sample_std, sample_max = spread(
        samples, tally.per_sample.total, tally.per_sample.squares, tally.per_sample.largest
    )
    return CostReport(
        samples=samples,
        timesteps=max((len(layer.per_step) for layer in tallies), default=0),
        layers=layers,
        neurons=tuple(_neuron_cost(neuron) for neuron in tally.neurons.values()),
        sample_std=sample_std,
        sample_max=sample_max,
    )


def _uncalled(net: nn.Module, called: Mapping[str, LayerTally]) -> Iterable[LayerTally]:
    """Weighted modules that no forward pass reached, except parts of a module that did the work itself."""
    for name, module in net.named_modules():
        inside = any(name == other or name.startswith(f"{other}.") for other in called)
        if not isinstance(module, _WEIGHTED) or inside:
            continue
        weight = module.weight.detach()
        nonzero = int((weight != 0).sum())
        fan_in, fan_out = weight[0].numel(), weight.numel() // weight.shape[1]
        yield LayerTally(name, type(module).__name__, tuple(weight.shape), nonzero, fan_in, fan_out)


def _refuse_unknown(codings: Mapping[str, WeightCoding], names: list[str]) -> None:
    for name in codings:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f": did you mean {near[0]!r}?" if near else f"; the layers are {', '.join(names)}"
            raise ValueError(f"coding given for unknown layer {name!r}{hint}")


def _layer_cost(tally: LayerTally, coding: WeightCoding, samples: int) -> LayerCost:
    rows, weights = tally.weight_shape[0], prod(tally.weight_shape)
    kind = tally.values.kind
    real = kind == "real"
    sums = tally.per_sample
    mean, std, largest = spread(samples, sums.total, sums.squares, sums.largest)
    return LayerCost(
        name=tally.name,
        kind=tally.kind,
        weight_shape=tally.weight_shape,
        input_shape=tally.input_shape,
        output_shape=tally.output_shape,
        fan_in=tally.fan_in,
        fan_out=tally.fan_out,
        weights=weights,
        nonzero=tally.nonzero,
        bits=coding.bits,
        side_bits=coding.side_bits,
        calls=tally.calls,
        inputs=kind,
        input_entries=tally.input_entries,
        input_events=tally.input_events,
        ac=0 if real else tally.synops,
        ac_by_value=round(tally.synops_by_value) if kind == "graded" else 0 if real else tally.synops,
        mac=tally.synops if real else 0,
        dense=tally.dense,
        synops_per_step=tuple(tally.per_step),
        sample_mean=mean,
        sample_std=std,
        sample_max=largest,
        memory_bits=format_bits(rows, weights // rows, tally.nonzero, coding.bits),
    )


def _neuron_cost(tally: NeuronTally) -> NeuronCost:
    return NeuronCost(
        name=tally.name,
        kind=tally.kind,
        neurons=tally.neurons,
        states=tally.states,
        state_bits=tally.neurons * tally.states * FLOAT_STATE_BITS,
        updates=tally.updates,
        spikes=tally.spikes,
    )
