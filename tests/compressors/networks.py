"""Small networks, data and fits that the tests of compressors share."""

import torch
from lightning.pytorch import LightningModule
from spikingjelly.activation_based import functional
from torch import nn

from benchmark.contract.subject import CLASSES, QUIET, Method, RandomEvents, T, classifier, fit, weights
from compressors.base import Compressor
from compressors.budget import EXAMPLES
from compressors.network.layers import find_layers
from compressors.registry import COMPRESSORS

__all__ = [
    "CLASSES",
    "EXAMPLES",
    "QUIET",
    "RandomEvents",
    "T",
    "classifier",
    "fit",
    "make",
    "weights",
]


def make(name: str, density: float | None = None, **options) -> Compressor:
    """A registered compressor with a density, or with an example of the first kind of budget that it meets."""
    return Method(COMPRESSORS[name].load()).make(density, **options)


class BatchFirst(LightningModule):
    """Gives a time-major network batch-first inputs."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*modules)
        functional.set_step_mode(self.net, "m")

    def forward(self, x):
        functional.reset_net(self.net)
        return self.net(x.transpose(0, 1))

    def test_step(self, batch, index):
        self(batch[0])


def layers_of(net: BatchFirst, x: torch.Tensor):
    return find_layers(net, lambda: net(x[:1]))
