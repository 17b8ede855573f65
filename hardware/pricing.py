"""From running sums to a report: what was counted, joined with how the weights are stored."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from math import prod

from torch import Tensor, nn

from hardware.layers import WEIGHTED
from hardware.memory import Mask, WeightCoding, format_bits
from hardware.neurons import is_neuron
from hardware.report import CostReport, LayerCost, NeuronCost, OtherCost
from hardware.storage import noted
from hardware.tally import LayerTally, NetworkTally, NeuronTally, OtherTally

_FLOAT_BITS = 32


def make_report(
    tally: NetworkTally, net: nn.Module, codings: Mapping[str, WeightCoding], state_bits: int = _FLOAT_BITS
) -> CostReport:
    """Turn the sums of a finished run into a report.

    Args:
        tally: what was counted.
        net: the network, to find the layers that were never called.
        codings: how weights are stored, by layer name; the others as noted on them (:mod:`hardware.storage`), else
            as 32-bit floats.
        state_bits: bits of one neuron state variable.

    Raises:
        ValueError: if nothing was counted, or `codings` names a layer that does not exist.
    """
    if not tally.samples:
        raise ValueError("no sample was counted: run at least one test batch before asking for the cost")
    uncalled = list(_uncalled(net, tally))
    tallies = [*tally.layers.values(), *uncalled]
    names = [layer.name for layer in tallies]
    _refuse_unknown(codings, names)
    stored, off_grid = _as_noted(net, names)
    stored |= codings
    off_grid = [name for name in off_grid if name not in codings]
    if off_grid:
        warnings.warn(
            f"counted as floats: {', '.join(off_grid)}; their weights were quantised, and have been changed since",
            stacklevel=2,
        )
    return CostReport(
        samples=tally.samples,
        timesteps=max((len(layer.per_step) for layer in tallies), default=0),
        layers=tuple(_layer(layer, stored.get(layer.name, WeightCoding()), tally.samples) for layer in tallies),
        neurons=tuple(_neurons(neuron, state_bits) for neuron in tally.neurons.values()),
        others=(
            *(_other(other) for other in tally.others.values()),
            *_parameters(net, tally, {layer.name for layer in uncalled}),
        ),
        uncounted=tuple(tally.uncounted),
        sample_std=tally.per_sample.deviation(tally.samples),
        sample_max=tally.per_sample.largest,
        off_grid=tuple(off_grid),
    )


def _as_noted(net: nn.Module, names: list[str]) -> tuple[dict[str, WeightCoding], list[str]]:
    """How layers are stored by the notes on them, and the names of those whose notes are not true any more."""
    stored, off_grid = {}, []
    for name, (module, note) in noted(net).items():
        weight = getattr(module, "weight", None)
        if name in names and isinstance(weight, Tensor) and note.hold(weight):
            stored[name] = note.coding
        else:
            off_grid.append(name)
    return stored, off_grid


def _uncalled(net: nn.Module, tally: NetworkTally) -> Iterable[LayerTally]:
    """Weighted modules that no forward pass reached, except parts of a module that did the work itself."""
    workers = [layer.name.split("#")[0] for layer in tally.layers.values() if layer.weight_shape]
    stored = [parameter for name, parameter in net.named_parameters() if name in tally.stored]
    for name, module in net.named_modules():
        inside = any(name == worker or name.startswith(f"{worker}.") for worker in workers)
        if not isinstance(module, WEIGHTED) or inside or not name:
            continue
        if any(module.weight is parameter for parameter in stored):
            continue  # another module computes with its weight
        weight = module.weight.detach()
        yield LayerTally(
            name,
            type(module).__name__,
            tuple(weight.shape),
            mask=Mask.of((weight != 0).cpu().numpy()),
            biases=0 if module.bias is None else module.bias.numel(),
        )


def _parameters(net: nn.Module, tally: NetworkTally, uncalled: Collection[str]) -> Iterable[OtherCost]:
    """What else a network has learnt (positions, embeddings, scales), by the module that holds it; neurons' aside."""
    neurons = [name for name, module in net.named_modules() if is_neuron(module)]
    counts: dict[str, int] = {}
    for name, parameter in net.named_parameters():
        owner = name.rpartition(".")[0]
        inside = any(owner == neuron or owner.startswith(f"{neuron}.") for neuron in neurons)
        if not inside and name not in tally.stored and owner not in uncalled:
            counts[owner] = counts.get(owner, 0) + parameter.numel()
    for owner, count in counts.items():
        yield OtherCost(owner or type(net).__name__, "parameters", 0, count * _FLOAT_BITS)


def _refuse_unknown(codings: Mapping[str, WeightCoding], names: list[str]) -> None:
    for name in codings:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f": did you mean {near[0]!r}?" if near else f"; the layers are {', '.join(names)}"
            raise ValueError(f"coding given for unknown layer {name!r}{hint}")


def _layer(tally: LayerTally, coding: WeightCoding, samples: int) -> LayerCost:
    real = "real" == tally.values.kind == (tally.other_values or tally.values).kind
    # Of two factors the one that is no real number decides what an operation is.
    values = tally.other_values if tally.values.kind == "real" and tally.other_values else tally.values
    by_value = tally.synops_by_value if values.kind == "graded" else tally.synops
    mask = None if tally.shared else tally.mask
    return LayerCost(
        name=tally.name,
        kind=tally.kind,
        weight_shape=tally.weight_shape,
        input_shape=tally.input_shape,
        output_shape=tally.output_shape,
        fan_in=tally.fan_in,
        fan_out=tally.fan_out,
        synapses=tally.synapses,
        weights=prod(tally.weight_shape) if mask else 0,
        nonzero=mask.kept if mask else 0,
        bits=coding.bits,
        side_bits=0 if tally.shared else coding.side_bits,
        bias_bits=_bias_bits(tally, coding),
        calls=tally.calls,
        inputs=values.kind,
        input_bits=values.bits,
        input_entries=tally.input_entries,
        input_events=tally.input_events,
        ac=0 if real else tally.synops,
        ac_by_value=0 if real else by_value,
        mac=tally.synops if real else 0,
        dense=tally.dense,
        synops_per_step=tuple(tally.per_step),
        sample_mean=tally.per_sample.mean(samples),
        sample_std=tally.per_sample.deviation(samples),
        sample_max=tally.per_sample.largest,
        memory_bits=format_bits(mask, coding) if mask else {"none": 0},
    )


def _bias_bits(tally: LayerTally, coding: WeightCoding) -> int:
    """Biases; a BatchNorm folds into them and into the weights, or into a scale where weights are integers."""
    biases = max(tally.biases, tally.norm_channels) * coding.bias_bits
    scales_exist = coding.bits == _FLOAT_BITS or coding.scales >= tally.norm_channels
    return biases if scales_exist else biases + tally.norm_channels * coding.scale_bits


def _neurons(tally: NeuronTally, state_bits: int) -> NeuronCost:
    return NeuronCost(
        name=tally.name,
        kind=tally.kind,
        neurons=tally.neurons,
        states=tally.states,
        state_bits=tally.neurons * tally.states * state_bits,
        updates=tally.updates,
        spikes=tally.spikes,
    )


def _other(tally: OtherTally) -> OtherCost:
    return OtherCost(tally.name, tally.kind, tally.operations, tally.parameters * _FLOAT_BITS)
