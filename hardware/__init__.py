"""Hardware cost of spiking networks: exact synaptic operations, memory in bits, energy, chip fit.

The names below are loaded on first use, so that `import hardware` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hardware.callback import HardwareCost
    from hardware.memory import WeightCoding
    from hardware.profiling import profile
    from hardware.report import CostReport, LayerCost, NeuronCost, OtherCost

__all__ = ["CostReport", "HardwareCost", "LayerCost", "NeuronCost", "OtherCost", "WeightCoding", "profile"]

_HOME = {
    "CostReport": "hardware.report",
    "HardwareCost": "hardware.callback",
    "LayerCost": "hardware.report",
    "NeuronCost": "hardware.report",
    "OtherCost": "hardware.report",
    "WeightCoding": "hardware.memory",
    "profile": "hardware.profiling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hardware' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
