"""Neurons: how their membranes respond, and what their potentials are."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from compressors.network.layers import Layer, LayerError

OUT_OF_REACH = 1e9  # a threshold; not infinite, since a soft reset multiplies it by zero


def impulse_response(neuron: nn.Module, timesteps: int) -> Tensor:
    """The membrane potential of a neuron below threshold after one unit impulse at step 0: ``[T]`` float64.

    Measured on the neuron itself, with its threshold out of reach, so that any neuron whose response is a linear
    filter will do (LIF with and without decayed input, PLIF, IF).

    Raises:
        LayerError: the response does not scale with the impulse, so no filter describes the neuron, or the neuron does
            not show its potentials.
    """
    rest = _subthreshold(neuron, 0.0, timesteps)
    response = _subthreshold(neuron, 1.0, timesteps) - rest
    scaled = {scale: _subthreshold(neuron, scale, timesteps) - rest for scale in (2.0, -1.0)}
    if not all(torch.allclose(other, scale * response, rtol=1e-4, atol=1e-6) for scale, other in scaled.items()):
        raise LayerError(
            f"the neuron {type(neuron).__name__} is not a linear filter below its threshold: "
            "use the compressor 'obc', which looks at input currents"
        )
    return response


def membrane_filter(layer: Layer) -> Tensor | None:
    """The impulse response of the neuron after a layer, be there a pool before it or not: ``[T]``; None without one.

    Raises:
        LayerError: the neuron is no linear filter below its threshold; names the layer.
    """
    if layer.channel_neuron is None:
        return None
    try:
        return impulse_response(layer.channel_neuron, layer.timesteps).to(layer.rows.device)
    except LayerError as error:
        raise LayerError(f"layer {layer.name!r}: {error}") from error


def filter_matrix(neuron: nn.Module, timesteps: int) -> Tensor:
    """What a neuron's membrane makes of a train of impulses, as a matrix over time: ``[T, T]`` float64, on the CPU.

    Trains of spikes are compared after it, so that spikes near in time are near: the van Rossum distance. Where no
    filter describes the neuron, it is the identity, and spikes are compared step by step.
    """
    try:
        response = impulse_response(neuron, timesteps).cpu()
    except LayerError:
        response = torch.eye(timesteps, dtype=torch.float64)[0]
    delay = torch.arange(timesteps)[:, None] - torch.arange(timesteps)
    return torch.where(delay >= 0, response[delay.clamp_min(0)], 0.0)


def _hides_potentials(neuron: nn.Module) -> LayerError:
    return LayerError(
        f"the neuron {type(neuron).__name__} does not show its potentials: it needs a `v_threshold`, and "
        "must fill `v_seq` where `store_v_seq` is on; take a compressor that looks at input currents, such as 'obc'"
    )


def _require_potentials(neuron: nn.Module) -> None:
    """Refuse a neuron whose potentials nobody can record while its threshold is out of reach."""
    if not hasattr(neuron, "store_v_seq") or not isinstance(getattr(neuron, "v_threshold", None), int | float | Tensor):
        raise _hides_potentials(neuron)


@contextmanager
def _out_of_reach(neuron: Any) -> Iterator[None]:
    """A neuron cannot fire inside, be its threshold a number or a tensor."""
    threshold = neuron.v_threshold
    if not isinstance(threshold, Tensor):
        neuron.v_threshold = OUT_OF_REACH
        try:
            yield
        finally:
            neuron.v_threshold = threshold
        return
    before = threshold.detach().clone()
    threshold.data.fill_(OUT_OF_REACH)
    try:
        yield
    finally:
        threshold.data.copy_(before)


def _subthreshold(neuron: nn.Module, impulse: float, timesteps: int) -> Tensor:
    """Membrane potential over time, ``[T]``, of a neuron that cannot fire, given ``impulse`` in the first step."""
    _require_potentials(neuron)
    saved = {name: getattr(neuron, name) for name in ("store_v_seq", "step_mode")}
    reference = next(neuron.parameters(), torch.zeros(()))
    current = torch.zeros(timesteps, 1, device=reference.device)
    current[0] = impulse
    functional.reset_net(neuron)
    try:
        neuron.store_v_seq, neuron.step_mode = True, "m"  # type: ignore[assignment]
        with torch.no_grad(), _out_of_reach(neuron):
            neuron(current)
        if neuron.v_seq is None:
            raise _hides_potentials(neuron)
        if neuron.v_seq.numel() != timesteps:  # type: ignore[operator]
            raise LayerError(
                f"the neuron {type(neuron).__name__} has parameters of its own for each channel, so that no one filter "
                "describes it: use the compressor 'obc', which looks at input currents"
            )
        return neuron.v_seq.flatten().double()  # type: ignore[operator]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LayerError(f"the neuron {type(neuron).__name__} does not run by itself: {reason}") from error
    finally:
        for name, value in saved.items():
            setattr(neuron, name, value)
        functional.reset_net(neuron)


def charged(neuron: MemoryModule, x: Tensor) -> Tensor:
    """Membrane potentials before the neuron fires and is reset: ``[T, B, ...]``.

    They are what the neuron itself makes of each step's input and of the potential that the last one left, with its
    threshold out of reach.

    Args:
        neuron: in multi-step mode, fresh from a pass over ``x`` in which it stored its potentials.
        x: its input, ``[T, B, ...]``.

    Raises:
        LayerError: the neuron has other states than its potential, or does not show it.
    """
    _require_potentials(neuron)
    v = neuron.v_seq
    if set(neuron._memories) - {"v", "v_seq"}:
        raise LayerError(f"the neuron {type(neuron).__name__} has states beside its potential: take another criterion")
    rest = torch.as_tensor(neuron.get_reset_value("v"), dtype=v.dtype, device=v.device)
    before = torch.cat([rest.expand_as(v[:1]), v[:-1]])
    saved = {name: getattr(neuron, name) for name in ("v", "step_mode", "store_v_seq")}
    try:
        neuron.store_v_seq, neuron.step_mode = False, "s"
        neuron.v = before.flatten(0, 1)
        with _out_of_reach(neuron):
            neuron.single_step_forward(x.flatten(0, 1))  # not by call: whoever watches the neuron is not to see this
        return neuron.v.view_as(v)
    finally:
        for name, value in saved.items():
            setattr(neuron, name, value)


@contextmanager
def storing_potentials(neurons: Iterable[Any]) -> Iterator[None]:
    """Neurons store their potentials over time inside.

    Raises:
        LayerError: a neuron does not show its potentials.
    """
    neurons = list(neurons)
    for neuron in neurons:
        _require_potentials(neuron)
    stored = {neuron: neuron.store_v_seq for neuron in neurons}
    for neuron in stored:
        neuron.store_v_seq = True
    try:
        yield
    finally:
        for neuron, before in stored.items():
            neuron.store_v_seq = before
