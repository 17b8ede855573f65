"""Data sets as LightningDataModules, found by name without importing anything heavy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import BenchmarkDataModule

DATA_SETS = {
    "digits_dvs": "datamodules.digits_dvs:DigitsDVS",
    "nmnist": "datamodules.nmnist:NMNIST",
}
"""Name of each data set -> ``module:class``; the module is imported by `load_class` only."""

_EXPORTS = {path.partition(":")[2]: path for path in DATA_SETS.values()} | {
    "BenchmarkDataModule": "datamodules.base:BenchmarkDataModule",
    "DataMissing": "datamodules.errors:DataMissing",
    "DataCorrupt": "datamodules.errors:DataCorrupt",
}

__all__ = ["DATA_SETS", "load_class", *_EXPORTS]


def load_class(name: str) -> "type[BenchmarkDataModule]":
    """Import and return the data module class of the set `name`; KeyError for a name that is not listed."""
    return _resolve(DATA_SETS[name])


def _resolve(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return _resolve(_EXPORTS[name])
    raise AttributeError(f"module 'datamodules' has no attribute {name!r}")
