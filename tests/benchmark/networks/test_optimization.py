"""Optimizers get what was asked for, and learning rates take their course."""

from math import cos, pi

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from spikingjelly.activation_based import layer
from torch import nn

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.optimization import Optimization
from benchmark.networks.zoo.neurons import lif
from tests.compressors.networks import QUIET, RandomEvents, classifier

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def rates(optimization, epochs):
    """The learning rate of each epoch."""
    optimizer, schedule = optimization.of(nn.Linear(2, 2), epochs)
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_the_rate_rises_evenly_then_falls_along_a_cosine(warmup):
    epochs, rate = 9, 0.5
    rising = [rate * (epoch + 1) / (warmup + 1) for epoch in range(warmup)]
    falling = [rate * (1 + cos(pi * epoch / (epochs - warmup))) / 2 for epoch in range(epochs - warmup)]
    seen = rates(Optimization(learning_rate=rate, warmup_epochs=warmup), epochs)
    assert seen == pytest.approx(rising + falling, abs=1e-9)


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_rate_falls_to_a_tenth_after_each_milestone(warmup):
    seen = rates(Optimization(learning_rate=1.0, milestones=(4, 6), warmup_epochs=warmup), 8)
    assert seen[warmup:] == pytest.approx([1.0] * (4 - warmup) + [0.1] * 2 + [0.01] * 2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_is_the_one_by_name(name):
    optimizer, _ = Optimization(name, learning_rate=0.2, weight_decay=0.3, momentum=0.4).of(nn.Linear(2, 2), 3)
    assert type(optimizer) is OPTIMIZERS[name]
    assert optimizer.defaults["weight_decay"] == 0.3
    assert optimizer.defaults.get("momentum") == (0.4 if name == "sgd" else None)


def test_weight_decay_can_leave_norms_and_biases_alone():
    net = nn.Sequential(
        layer.Conv2d(2, 3, 1, step_mode="m"), layer.BatchNorm2d(3, step_mode="m"), nn.LayerNorm(3), lif(2.0)
    )
    optimizer, _ = Optimization("adamw", weight_decay=0.1, decay_norm=False).of(net, 1)
    decayed, free = optimizer.param_groups
    assert [parameter.shape for parameter in decayed["params"]] == [(3, 2, 1, 1)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len([*net.parameters()])


def test_fine_tuning_keeps_the_optimizer_and_begins_at_its_own_rate():
    tuned = Optimization("sgd", learning_rate=0.3, momentum=0.5, warmup_epochs=2, milestones=(4,)).fine_tuning(0.01)
    assert tuned == Optimization("sgd", learning_rate=0.01, momentum=0.5)


class Norms(Callback):
    """The norm of all gradients together, at every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        if gradients:
            self.seen.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradients_are_no_longer_than_asked_for(limit):
    norms = Norms()
    module = SNNClassifier(classifier().network, classes=3, timesteps=4, gradient_clip=limit)
    Trainer(max_epochs=1, callbacks=[norms], **QUIET).fit(module, datamodule=RandomEvents())
    assert norms.seen
    assert (max(norms.seen) <= 1e-3 * 1.001) == (limit is not None)
