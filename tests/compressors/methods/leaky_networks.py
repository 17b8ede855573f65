"""Small networks of neurons with leaks of one's choice, for the tests of LAMP and SLAMP."""

import torch
from lightning.pytorch import LightningDataModule, Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmark.networks.classifier import SNNClassifier
from compressors.base import Compressor
from tests.compressors.networks import CLASSES, QUIET


class Events(LightningDataModule):
    """Random event frames; ``x [B, T, 2, 6, 6]``."""

    def __init__(self, timesteps: int, rate: float = 0.4):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = (torch.rand(12, timesteps, 2, 6, 6, generator=generator) < rate).float()
        self.y = torch.randint(CLASSES, (12,), generator=generator)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=4)

    calibration_dataloader = test_dataloader = train_dataloader


def classifier(taus=(2.0, 2.0, 2.0), timesteps: int = 4, seed: int = 0) -> SNNClassifier:
    torch.manual_seed(seed)
    net = nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1, bias=False),
        neuron.LIFNode(tau=taus[0], v_threshold=0.3),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(6 * 9, 16, bias=False),
        neuron.LIFNode(tau=taus[1], v_threshold=0.2),
        layer.Linear(16, CLASSES),
        neuron.LIFNode(tau=taus[2], v_threshold=0.2),
    )
    functional.set_step_mode(net, "m")
    return SNNClassifier(net, classes=CLASSES, timesteps=timesteps)


def fit(compressor: Compressor, module: SNNClassifier | None = None, data=None) -> Compressor:
    module = module or classifier()
    data = data or Events(module.timesteps)
    compressor.state.track = lambda sequence, description: sequence
    Trainer(max_epochs=0, callbacks=[compressor], **QUIET).fit(module, datamodule=data)
    return compressor


def masks(compressor: Compressor) -> dict[str, torch.Tensor]:
    return compressor.compression.masks()


def same(first: Compressor, second: Compressor) -> bool:
    one, other = masks(first), masks(second)
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
