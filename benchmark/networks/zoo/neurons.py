"""The neurons that the zoo's networks share."""

from spikingjelly.activation_based import neuron, surrogate
from torch import nn


def lif(tau: float, *, decay_input: bool = True, soft_reset: bool = False) -> nn.Module:
    """A multi-step LIF neuron with membrane time constant ``tau`` (steps) and threshold 1.

    With ``decay_input``, ``v += (x - v) / tau``; else ``v += x - v / tau``. A neuron that fired is set to 0, or with
    ``soft_reset`` loses 1. Training uses the arctangent surrogate gradient and detaches the reset.
    """
    return neuron.LIFNode(
        tau=float(tau),
        decay_input=decay_input,
        v_reset=None if soft_reset else 0.0,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        step_mode="m",
    )


def integrate_and_fire() -> nn.Module:
    """A multi-step IF neuron with threshold 1 and hard reset to 0; trained as :func:`lif` is."""
    return neuron.IFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
