"""Speed of a training step: ours beside SpikingJelly's documented training of the same network."""

import copy
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from benchmark.networks.classifier import SNNClassifier, outputs
from benchmark.networks.precision import computes_bfloat16
from benchmark.networks.zoo import conv, resnet, vgg
from benchmark.perf.clock import seconds

ROUNDS = 5
CLASSES = 10

Step = Callable[[], Tensor]


def measure(device: str = "cpu", small: bool = False) -> list[dict[str, Any]]:
    """Time a step of Adam on one batch, by us and as SpikingJelly's documentation trains.

    Its page on training runs a network of its layers in multi-step mode on frames ``[T, B, ...]`` (a picture is
    repeated T times before), takes the mean of the outputs over time, a step, and resets the network. Both train the
    same layers from the same weights on the same batch, a step of each in turn. Speed is that of the fastest round by
    the clock on the wall; ratios are of processor time, because the machine's other work comes between, and medians
    over the rounds. Both also train in mixed precision, where the device computes in bfloat16.

    Args:
        device: what both train on.
        small: networks and batches for tests.

    Returns:
        Rows with `network`, `timesteps`, `batch`, `precision`, `ours` and `spikingjelly` in samples per second, and
        `ratio` of our speed to SpikingJelly's with its `quartiles`.
    """
    width, batch = (4, 2) if small else (32, 16)
    precisions = ["32-true", "bf16-mixed"] if computes_bfloat16(device) else ["32-true"]
    return [_compare(*case, precision, device) for case in _cases(width, batch) for precision in precisions]


def _cases(width: int, batch: int) -> Iterator[tuple[str, nn.Module, Tensor, int]]:
    """Name, network, a batch of pictures ``[B, C, H, W]`` or of events ``[B, T, C, H, W]``, T."""
    events, pictures = (2, 34, 34), (3, 32, 32)
    yield "conv", conv.conv(events, CLASSES), (torch.rand(batch, 20, *events) < 0.05).float(), 20
    yield "vgg9", vgg.vgg9(pictures, CLASSES, width=width, norm=True), torch.rand(batch, *pictures), 4
    yield "resnet19", resnet.resnet19(pictures, CLASSES, width=width), torch.rand(batch, *pictures), 4


def _compare(name: str, network: nn.Module, x: Tensor, timesteps: int, precision: str, device: str) -> dict[str, Any]:
    network, x = copy.deepcopy(network).to(device), x.to(device)
    theirs = copy.deepcopy(network).train()
    ours = SNNClassifier(network, classes=CLASSES, timesteps=timesteps, loss="cross_entropy").train()
    labels = torch.arange(len(x), device=device) % CLASSES

    def our_loss() -> Tensor:
        return ours.loss(outputs(ours.network, x, CLASSES, timesteps).float(), labels, 0.0)

    def their_loss() -> Tensor:
        frames = x.transpose(0, 1) if x.ndim == 5 else x.repeat(timesteps, 1, 1, 1, 1)
        loss = nn.functional.cross_entropy(theirs(frames).mean(0), labels)
        functional.reset_net(theirs)
        return loss

    mixed = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    steps = {"ours": _stepper(network, mixed(our_loss)), "spikingjelly": _stepper(theirs, mixed(their_loss))}
    for step in steps.values():
        step()  # compiles
    rounds = [{who: seconds(step, device) for who, step in steps.items()} for _ in range(ROUNDS)]
    first, ratio, third = quantiles([times["spikingjelly"].busy / times["ours"].busy for times in rounds], n=4)
    return {
        "network": name,
        "timesteps": timesteps,
        "batch": len(x),
        "precision": precision,
        **{who: len(x) / min(times[who].wall for times in rounds) for who in steps},
        "ratio": ratio,
        "quartiles": f"{first:.2f} to {third:.2f}",
    }


def _stepper(network: nn.Module, loss: Step) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step
