"""The neuron that the zoo's networks share."""

from spikingjelly.activation_based import neuron, surrogate
from torch import nn


def lif(tau: float) -> nn.Module:
    """A multi-step LIF neuron with membrane time constant ``tau`` (steps), threshold 1 and hard reset to 0.

    The input is decayed, ``v += (x - v) / tau``; training uses the arctangent surrogate gradient and
    detaches the reset.
    """
    return neuron.LIFNode(tau=tau, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
