"""Small networks, data and fits that the tests of compressors share."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmark.networks.classifier import SNNClassifier
from compressors.base import Compressor
from compressors.network.layers import find_layers
from compressors.registry import COMPRESSORS

T, CLASSES = 4, 3
QUIET = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)


class RandomEvents(LightningDataModule):
    """A few random event frames; ``x [B, T, 2, 6, 6]``."""

    def __init__(self, samples: int = 12, value: float | None = None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(samples, T, 2, 6, 6, generator=generator) < 0.4).float()
        self.x = x if value is None else x.fill_(value)
        self.y = torch.randint(CLASSES, (samples,), generator=generator)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=4)

    calibration_dataloader = test_dataloader = train_dataloader


def classifier(seed: int = 0) -> SNNClassifier:
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
        for index in (0, 5):
            net[index].weight.mul_(6)  # so that the untrained network fires
    return SNNClassifier(net, classes=CLASSES, timesteps=T)


EXAMPLES = {"density": {"density": 0.3}, "bits": {"bits": 4}, "density+bits": {"density": 0.5, "bits": 3},
            "synops": {"synops": 0.4}, "none": {}}  # fmt: skip


def make(name: str, density: float | None = None, **options) -> Compressor:
    """A compressor with a density, or with an example of the first kind of budget that it meets."""
    method = COMPRESSORS[name].load()
    budget = EXAMPLES[method.budgets[0]] if density is None else {"density": density}
    return method(**{**budget, **options})


def fit(compressor: Compressor, module: SNNClassifier | None = None, epochs: int = 0, data=None, **trainer):
    """Fit the small classifier, or a module of one's own, with a compressor; the fitted module."""
    module = module or classifier()
    Trainer(max_epochs=epochs, callbacks=[compressor], **QUIET, **trainer).fit(
        module, datamodule=data or RandomEvents()
    )
    return module


def weights(module: SNNClassifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.network.state_dict().items()}


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
