"""Trained leaks: LIF neurons become parametric LIF neurons, which compute the same until they are trained."""

from collections.abc import Mapping
from typing import Any

from spikingjelly.activation_based.neuron import LIFNode, ParametricLIFNode
from torch import Tensor, nn

from compressors.network.layers import forget_state


def make_leaks_trainable(network: nn.Module) -> list[str]:
    """Replace every LIF neuron by a parametric one of the same leak, in place; the names of the replaced neurons.

    Neurons lose their membrane potentials.
    """
    names = [name for name, module in network.named_modules() if type(module) is LIFNode]
    for name in names:
        _replace(network, name)
    forget_state(network)
    return names


def adopt_leaks(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Prepare a network to load a state dict with trained leaks: LIF neurons whose ``w`` is in it become parametric."""
    modules = dict(network.named_modules())
    for key in state:
        name, _, leaf = key.rpartition(".")
        if leaf == "w" and type(modules.get(name)) is LIFNode:
            _replace(network, name)
    forget_state(network)


def _replace(network: nn.Module, name: str) -> None:
    old: Any = network.get_submodule(name)
    new = ParametricLIFNode(
        init_tau=old.tau,
        decay_input=old.decay_input,
        v_threshold=old.v_threshold,
        v_reset=old.v_reset,
        surrogate_function=old.surrogate_function,
        detach_reset=old.detach_reset,
        step_mode=old.step_mode,
        store_v_seq=old.store_v_seq,
    )
    parent, _, child = name.rpartition(".")
    device = next((tensor.device for tensor in network.parameters()), None)
    setattr(network.get_submodule(parent), child, new.to(device).train(old.training))
