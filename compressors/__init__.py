"""Compressors of spiking neural networks, as Lightning callbacks: ``from compressors import SBC``.

Classes are imported on first use, so that listing the registry costs nothing.
"""

from typing import Any

from compressors.registry import COMPRESSORS


def __getattr__(name: str) -> Any:
    for entry in COMPRESSORS.values():
        if entry.target.endswith(f":{name}"):
            return entry.load()
    raise AttributeError(f"module 'compressors' has no attribute {name!r}")
