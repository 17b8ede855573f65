"""What a spiking neuron is: the one description used by counter, compressors, NIR files and the fast forward pass.

A *neuron* is a SpikingJelly module with memory and a threshold (``v_threshold``). Its state can be read, its output is
looked at, and what it computes inside is one update of its state. SpikingJelly has neurons of other kinds: some that
keep their state elsewhere (``ILCIFNode``), some without any (``PSN``), some that do not fire (``NonSpikingIFNode``).
These are *unknown*: nobody here reads them, and reports name them.
"""

from typing import Any, TypeGuard

from spikingjelly.activation_based import neuron, surrogate
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

BINARY_NEURONS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode)
"""What these send out is what their step function makes of the potential (exact classes: others may scale it)."""

STEP_FUNCTIONS = (surrogate.ATan, surrogate.Sigmoid, surrogate.PiecewiseQuadratic, surrogate.PiecewiseExp)
"""Step functions that give 1 from the threshold on and 0 below (exact classes), unless ``spiking`` is off."""

_PACKAGE = neuron.__name__


def is_neuron(module: nn.Module) -> TypeGuard[MemoryModule]:
    """Whether ``module`` is a spiking neuron: a SpikingJelly module with memory and a threshold."""
    return isinstance(module, MemoryModule) and hasattr(module, "v_threshold")


def is_unknown_neuron(module: nn.Module) -> bool:
    """Whether ``module`` is a neuron of a kind that nobody here can read.

    That is a class of SpikingJelly's neurons that :func:`is_neuron` does not know, or one derived from it; or a module
    of another origin that has a threshold or a step function and no neuron inside that could be what uses them.
    """
    if is_neuron(module):
        return False
    if any(f"{base.__module__}.".startswith(f"{_PACKAGE}.") for base in type(module).__mro__):
        return True
    steps = any(isinstance(part, surrogate.SurrogateFunctionBase) for part in module.children())
    return (steps or hasattr(module, "v_threshold")) and not any(map(is_neuron, module.modules()))


def count_states(module: Any) -> int:
    """State variables that a neuron keeps from step to step, each a tensor; 0 if it has not run or hides them.

    What it stores only to show how a state went over time (``v_seq``) is none.
    """
    return sum(isinstance(state, Tensor) and not name.endswith("_seq") for name, state in module.named_memories())


def sends_binary_spikes(module: Any) -> bool:
    """Whether a neuron sends out zeros and ones by construction; the output of others has to be looked at."""
    if type(module) not in BINARY_NEURONS:
        return False
    step = module.surrogate_function
    return type(step) in STEP_FUNCTIONS and bool(step.spiking)
