"""Networks without values: what a network is, and how large, is known before any memory is spent on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from benchmark.networks.errors import NetworkError


@contextmanager
def outlined(most_parameters: int | None = None) -> Iterator[None]:
    """Inside, networks are made on the device ``meta``: with names, shapes and types, and without values.

    Args:
        most_parameters: how many parameters (tensors) may be made, so that no depth takes for ever.

    Raises:
        NetworkError: more are.
    """
    made = 0

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal made
        made += 1
        if most_parameters is not None and made > most_parameters:
            raise NetworkError(f"it has more than {most_parameters:,} parameters")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            yield
    finally:
        hook.remove()


def values(network: nn.Module) -> int:
    """How many numbers a network's parameters and buffers hold."""
    return sum(tensor.numel() for tensor in network.state_dict().values())
