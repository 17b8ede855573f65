"""What methods are checked on: a small network that fires, random events, and a fit of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmark.networks.classifier import SNNClassifier
from compressors.base import Compressor
from compressors.budget import EXAMPLES

T, CLASSES = 4, 3
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


@dataclass(frozen=True)
class Method:
    """A compressor's class, and the options that its checks give it."""

    target: type[Compressor]
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, density: float | None = None, **more: Any) -> Compressor:
        """A compressor with a density, or with an example of the first kind of budget that it meets."""
        options: dict[str, Any] = {"density": density}
        if density is None:
            options = EXAMPLES[self.target.budgets[0]]
        return self.target(**(options | dict(self.options) | more))


class RandomEvents(LightningDataModule):
    """A few random event frames; ``x [B, T, 2, 6, 6]``."""

    def __init__(self, samples: int = 12, value: float | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(samples, T, 2, 6, 6, generator=generator) < 0.4).float()
        self.x = x if value is None else x.fill_(value)
        self.y = torch.randint(CLASSES, (samples,), generator=generator)

    def train_dataloader(self) -> DataLoader[Any]:
        """All samples in batches of four."""
        return DataLoader(TensorDataset(self.x, self.y), batch_size=4)

    def calibration_dataloader(self) -> DataLoader[Any]:
        """The same as for training."""
        return self.train_dataloader()

    def test_dataloader(self) -> DataLoader[Any]:
        """The same as for training."""
        return self.train_dataloader()


def classifier(seed: int = 0) -> SNNClassifier:
    """A network of a convolution and two linear layers, untrained."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        neuron.LIFNode(tau=2.0, detach_reset=True),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(6 * 9, 8, bias=False),
        neuron.LIFNode(tau=4.0, detach_reset=True),
        layer.Linear(8, CLASSES),
    )
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        for name in ("0.weight", "5.weight"):
            net.get_parameter(name).mul_(6)  # so that the untrained network fires
    return SNNClassifier(net, classes=CLASSES, timesteps=T)


def fit(
    compressor: Compressor,
    module: SNNClassifier | None = None,
    epochs: int = 0,
    data: LightningDataModule | None = None,
    callbacks: Sequence[Callback] = (),
    **trainer: Any,
) -> SNNClassifier:
    """Fit a network with a compressor, as a user does; the network."""
    module = module or classifier()
    runner = Trainer(max_epochs=epochs, callbacks=[compressor, *callbacks], **QUIET, **trainer)
    runner.fit(module, datamodule=data or RandomEvents())
    return module


def weights(module: SNNClassifier) -> dict[str, Tensor]:
    """A copy of the network's state."""
    return {name: value.clone() for name, value in module.network.state_dict().items()}
