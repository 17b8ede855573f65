"""Data sets as LightningDataModules; a class is imported when it is first asked for, not with the package."""

from importlib import import_module
from typing import Any

_CLASSES = {
    "BenchmarkDataModule": "base",
    "CIFAR100": "cifar100",
    "CIFAR10DVS": "cifar10_dvs",
    "DVSGesture": "dvs_gesture",
    "DataCorrupt": "errors",
    "DataMissing": "errors",
    "DigitsDVS": "digits_dvs",
    "ImageNet": "imagenet",
    "NMNIST": "nmnist",
}

__all__ = sorted(_CLASSES)


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(f"datamodules.{_CLASSES[name]}"), name)
    raise AttributeError(f"module 'datamodules' has no attribute {name!r}")
