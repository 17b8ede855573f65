"""Small networks and runs that several tests share."""

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hardware import profile


class Alone(nn.Module):
    """One layer, fed with [B, ...]."""

    def __init__(self, module):
        super().__init__()
        self.layer = module

    def forward(self, x):
        return self.layer(x)


class Spiking(nn.Module):
    """Two convolutions and a classifier, multi-step or step by step: x [B, T, 2, 8, 8] -> [B, 5]."""

    def __init__(self, multi_step=True):
        super().__init__()
        self.multi_step = multi_step
        self.body = nn.Sequential(
            layer.Conv2d(2, 6, 3, padding=1, stride=2, bias=False),
            neuron.IFNode(v_threshold=0.5),
            layer.Conv2d(6, 4, 3, padding=1, groups=2),
            neuron.LIFNode(v_threshold=0.2),
            layer.Flatten(),
            layer.Linear(64, 5),
        )
        functional.set_step_mode(self, "m" if multi_step else "s")

    def forward(self, x):
        functional.reset_net(self)
        x = x.transpose(0, 1)
        return self.body(x).mean(0) if self.multi_step else torch.stack([self.body(step) for step in x]).mean(0)


def sparsify(net, density=0.6, generator=None):
    """Give every weight values of order one and set some to zero, in place."""
    with torch.no_grad():
        for weight in (p for p in net.parameters() if p.dim() > 1):
            weight.copy_(torch.randn(weight.shape, generator=generator))
            weight.mul_(torch.rand(weight.shape, generator=generator) < density)
    return net


def loader(x, batch_size=None):
    """Batches (x, y) with dummy labels."""
    return DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=batch_size or len(x))


def spikes(*shape, rate=0.4, generator=None):
    """Zeros and ones."""
    return (torch.rand(shape, generator=generator) < rate).float()


def cost_of(module, x):
    """The cost of one layer on one batch [B, ...]."""
    return profile(Alone(module), loader(x)).layers[0]


def deep_report():
    """The cost of a network whose layers have long names, as those in blocks of blocks have."""
    torch.manual_seed(0)
    return profile(Nested(), loader(spikes(2, 3, 2, 8, 8)))


class Nested(nn.Module):
    """`Spiking`, deep inside."""

    def __init__(self):
        super().__init__()
        self.features = nn.ModuleDict({"stage_of_residual_blocks": nn.ModuleList([sparsify(Spiking())])})

    def forward(self, x):
        return self.features["stage_of_residual_blocks"][0](x)
