"""Speed of dense inference: our forward pass beside SpikingJelly's own models, run as its documentation does."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from statistics import quantiles
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer, spiking_vgg
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.zoo import resnet, transformers, vgg
from benchmark.perf.clock import seconds

STEPS = 4
ROUNDS = 10
SURROGATE = {"surrogate_function": surrogate.ATan(), "detach_reset": True}

Run = Callable[[Tensor], Tensor]


def measure(device: str = "cpu", small: bool = False) -> list[dict[str, Any]]:
    """Time a batch of images in inference mode, by us and by SpikingJelly with the same weights.

    SpikingJelly's page "Train large scale SNN" and its example `train_imagenet` run a model of its library in
    multi-step mode on the image repeated T times. Its loop over single steps, as on its page of basic concepts, stands
    beside. Every round runs all of them right after each other. Speed is that of the fastest round by the clock on the
    wall; ratios are of processor time, because the machine's other work comes between, and medians over the rounds.

    Args:
        device: what all run on.
        small: the first network alone, for tests.

    Returns:
        Rows with `network`, `batch`, `ours`, `multi_step` and `single_step` (SpikingJelly's; not where its model knows
        multi-step mode alone) in images per second, `ratio` of our speed to that of multi-step mode, `quartiles` of
        it, and `same_bits`: whether all scores are equal to the last bit.

    Raises:
        RuntimeError: ours and SpikingJelly's predictions differ.
    """
    cases = islice(_cases(), 1) if small else _cases()
    return [_compare(*case, device) for case in cases]


def _cases() -> Iterator[tuple[str, nn.Module, nn.Module, Tensor]]:
    """Name, our network, SpikingJelly's, and a batch of images."""
    small, large = (3, 32, 32), (3, 224, 224)
    theirs = spiking_vgg.spiking_vgg16_bn(spiking_neuron=neuron.LIFNode, tau=4 / 3, **SURROGATE)
    theirs.avgpool, theirs.classifier = layer.AdaptiveAvgPool2d((1, 1)), layer.Linear(512, 100)
    yield "vgg16", vgg.vgg16(small, 100), theirs, torch.rand(16, *small)
    theirs = sew_resnet.sew_resnet18(spiking_neuron=neuron.IFNode, cnf="ADD", **SURROGATE)
    yield "sew_resnet18", resnet.sew_resnet18(large, 1000), theirs, torch.rand(4, *large)
    sizes = {"img_size_h": 32, "img_size_w": 32, "patch_size": 4, "embed_dims": 384, "num_heads": 12, "depths": 4}
    theirs = transformers.pool_spikes(spikformer.Spikformer(num_classes=100, **sizes))
    yield "spikformer", transformers.spikformer(small, 100, depth=4), theirs, torch.rand(8, *small)


def _compare(name: str, ours: nn.Module, theirs: nn.Module, images: Tensor, device: str) -> dict[str, Any]:
    ours, theirs, images = ours.to(device), theirs.to(device), images.to(device)
    normalise(ours, images)
    for mine, other in zip(_weighted(ours), _weighted(theirs), strict=True):
        other.load_state_dict(mine.state_dict(), strict=False)  # what ours lacks are biases, which begin as zero
    theirs.eval()
    runs: dict[str, Run] = {"ours": SNNClassifier(ours, classes=100, timesteps=STEPS).eval()}
    multi = copy.deepcopy(theirs)
    functional.set_step_mode(multi, "m")
    runs["multi_step"] = partial(_multi_step, multi)
    if not isinstance(theirs, spikformer.Spikformer):
        runs["single_step"] = partial(_single_step, theirs)
    with torch.inference_mode():
        scores = {who: run(images) for who, run in runs.items()}
        rounds = [{who: seconds(partial(run, images), device) for who, run in runs.items()} for _ in range(ROUNDS)]
    if any(not torch.equal(scores["ours"].argmax(1), other.argmax(1)) for other in scores.values()):
        raise RuntimeError(f"{name}: our predictions are not SpikingJelly's")
    first, ratio, third = quantiles([times["multi_step"].busy / times["ours"].busy for times in rounds], n=4)
    return {
        "network": name,
        "batch": len(images),
        **{who: len(images) / min(times[who].wall for times in rounds) for who in runs},
        "ratio": ratio,
        "quartiles": f"{first:.2f} to {third:.2f}",
        "same_bits": all(torch.equal(scores["ours"], other) for other in scores.values()),
    }


def normalise(network: nn.Module, images: Tensor) -> None:
    """Let every BatchNorm take the statistics of these images, so that neurons of all layers fire; then evaluate."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None  # statistics become those of what has been seen, not a running mean
    with torch.no_grad():
        network.train()
        _multi_step(network, images)
    network.eval()


def _weighted(network: nn.Module) -> list[nn.Module]:
    """Layers with weights or statistics of their own, in the order of their definition."""
    return [module for module in network.modules() if module.state_dict() and not any(module.children())]


def _multi_step(network: nn.Module, images: Tensor) -> Tensor:
    scores = network(images.repeat(STEPS, 1, 1, 1, 1)).mean(0)
    functional.reset_net(network)
    return scores


def _single_step(network: nn.Module, images: Tensor) -> Tensor:
    scores = torch.stack([network(images) for _ in range(STEPS)]).mean(0)
    functional.reset_net(network)
    return scores
