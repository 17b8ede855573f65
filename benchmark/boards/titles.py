"""Real names of what is compared: of data sets, networks and methods, for people."""

from collections.abc import Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

from benchmark.catalog import MODELS
from benchmark.questions.builders import signature_of
from benchmark.questions.names import Data, NamedNetwork
from hardware.registry import OWN

DATA = {
    "digits_dvs": "Digits-DVS",
    "mnist_dvs": "MNIST-DVS, simulated",
    "nmnist": "N-MNIST",
    "cifar10_dvs": "CIFAR10-DVS",
    "dvs_gesture": "DVS128 Gesture",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny ImageNet",
    "imagenet": "ImageNet",
}
NETWORKS = {
    "mlp": "MLP",
    "conv": "small CNN",
    "dvs_gesture_net": "5Conv2FC",
    "cifar10_dvs_net": "4Conv2FC",
    "vgg9": "VGG9",
    "vgg16": "VGG16",
    "vggsnn": "VGGSNN",
    "resnet19": "ResNet-19",
    "resnet20": "ResNet-20",
    "spiking_resnet": "Spiking ResNet",
    "ms_resnet": "MS-ResNet",
    "spikformer": "Spikformer",
    "spike_driven_transformer": "Spike-driven Transformer",
    "qkformer": "QKFormer",
    **{f"sew_resnet{depth}": f"SEW-ResNet-{depth}" for depth in (18, 34, 50, 101, 152)},
}

OF_FILES = frozenset({"official_checksums"})
"""Options of data sets that say something of their files, and nothing of what is in them."""

_SHARES = {
    0.125: "an eighth of the",
    0.25: "a quarter of the",
    0.5: "half the",
    2.0: "twice the",
    4.0: "four times the",
}
_WORDS = {"norm": "BatchNorm", "window_us": "windows of {} µs", "hidden": "{} hidden neurons", "split": "{} split"}


def data_title(data: Data, split: str) -> str:
    """A data set and what is special about how it is shown: ``N-MNIST, pooled split``."""
    options = {name: value for name, value in data.options.items() if name not in OF_FILES}
    if split not in ("official", "fixed"):
        options["split"] = split
    return ", ".join([DATA.get(data.name, data.name), *(_said(name, options[name]) for name in sorted(options))])


def network_title(model: NamedNetwork) -> str:
    """A network and how it differs from the registered one: ``VGG9, a quarter of the width, BatchNorm``."""
    if model.weights is not None and model.name == "nir":
        return f"{PurePath(model.weights).stem} (NIR)"
    defaults = _defaults(model.name)
    own = {name: value for name, value in model.options.items() if str(value) != defaults.get(name)}
    words = [_compared(name, own[name], defaults.get(name)) for name in sorted(own, key=lambda name: name != "width")]
    weights = [] if model.weights is None else [f"weights of {PurePath(model.weights).stem}"]
    return ", ".join([NETWORKS.get(model.name, model.name), *words, *weights])


@cache
def _defaults(network: str) -> Mapping[str, str]:
    """Options of a network's builder -> their defaults as its source has them; of other people's, none."""
    entry = MODELS.get(network)
    signature = signature_of(entry.target, decorated=True) if entry is not None and entry.origin == OWN else None
    return {} if signature is None else {name: repr(taken.default) for name, taken in signature.parameters.items()}


def _compared(name: str, value: Any, default: str | None) -> str:
    if name == "width" and isinstance(value, int) and default is not None and default.isdigit():
        share = _SHARES.get(value / int(default))
        if share is not None:
            return f"{share} width"
    return _said(name, value)


def _said(name: str, value: Any) -> str:
    """An option in words. Names come from records, and are never taken for the format of a text."""
    word = _WORDS.get(name)
    if word is not None and "{}" in word:
        return word.format(value)
    plain = word or name.replace("_", " ")
    if isinstance(value, bool):
        return plain if value else f"no {plain}"
    return f"{plain} {value}"
