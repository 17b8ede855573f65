"""The weights of public releases: their names and shapes, and that they compute what their own code does."""

import pytest
import torch

from benchmark.catalog import MODELS
from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints
from tests.benchmark.networks.weights import public_networks

SHAPE = (3, 12, 12)


def restore(network, state):
    checkpoints.restore(network, checkpoints.Checkpoint(state, {}, ""), "release")
    return network


def sew_resnet(seed: int, depth: int = 18) -> torch.nn.Module:
    torch.manual_seed(seed)
    return MODELS[f"sew_resnet{depth}"].load()(SHAPE, 5, width=4).eval()


def former_state(seed: int, depth: int = 18):
    return {public_networks.former(name): tensor for name, tensor in sew_resnet(seed, depth).state_dict().items()}


@pytest.mark.parametrize("depth", [18, 50])
def test_former_names_of_sew_resnet_are_understood(depth):
    restored = restore(sew_resnet(1, depth), former_state(0, depth))
    x = torch.rand(4, 2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(restored(x), sew_resnet(0, depth)(x))


def test_what_has_no_counterpart_is_reported():
    state = former_state(0)
    state["module.head.weight"] = state.pop("module.fc.weight")
    with pytest.raises(CheckpointError, match=r"fc.weight is missing; module.head.weight is not in the network"):
        restore(sew_resnet(1), state)


def test_two_names_for_one_parameter_are_not_merged():
    state = dict(sew_resnet(0).state_dict())
    state["module.fc.weight"] = torch.zeros_like(state["fc.weight"])
    with pytest.raises(CheckpointError, match="module.fc.weight is not in the network"):
        restore(sew_resnet(1), state)


RELEASES = {
    "spikformer-imagenet": (
        lambda: public_networks.spikformer(16, 2, 2, 5, "conv"),
        ("spikformer", {"width": 16, "depth": 2, "heads": 2}),
    ),
    "spikformer-cifar": (
        lambda: public_networks.spikformer(16, 2, 4, 5, "linear"),
        ("spikformer", {"width": 16, "depth": 2, "heads": 4}),
    ),
    "spike-driven": (
        lambda: public_networks.spike_driven_transformer(16, 2, 4, 5),
        ("spike_driven_transformer", {"width": 16, "depth": 2, "heads": 4}),
    ),
    "qkformer": (
        lambda: public_networks.qkformer(16, (1, 2, 2), 2, 5),
        ("qkformer", {"width": 16, "depths": (1, 2, 2), "heads": 2}),
    ),
    "ms_resnet": (lambda: public_networks.ms_resnet(4, 5), ("ms_resnet", {"width": 4})),
}


def network(release: str) -> torch.nn.Module:
    name, options = RELEASES[release][1]
    return MODELS[name].load()((3, 32, 32), 5, **options)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_public_release_gives_the_scores_of_its_own_code(release, prefix):
    weights, forward = RELEASES[release][0]()
    restored = restore(network(release).double().eval(), {prefix + key: tensor for key, tensor in weights.items()})
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        scores = restored(images.expand(public_networks.T, *images.shape)).mean(0)
    assert (scores.std(0) > 0).all()  # spikes that differ from image to image reach the last layer
    torch.testing.assert_close(scores, forward(images))


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_lacks_or_has_too_much_is_named(release):
    state = dict(RELEASES[release][0]()[0])
    state["somewhere.else"] = state.pop(list(state)[-1])
    with pytest.raises(CheckpointError, match=r"head.bias is missing; somewhere.else is not in the network"):
        restore(network(release), state)


def test_half_of_what_lies_together_here_is_not_enough():
    state = dict(RELEASES["qkformer"][0]()[0])
    del state["stage1.0.tssa.k_conv.weight"]
    missing = "stage1.0.attn.qk_conv_bn.0.weight is missing; stage1.0.tssa.q_conv.weight is not in the network"
    with pytest.raises(CheckpointError, match=missing):
        restore(network("qkformer"), state)


def test_another_width_is_told_by_its_shape():
    wider = MODELS["spikformer"].load()((3, 32, 32), 5, width=32, depth=2, heads=2)
    with pytest.raises(CheckpointError, match=r"proj_conv_bn.0.weight is \[16, 16, 1\] instead of \[32, 32, 1\]"):
        restore(wider, RELEASES["spikformer-imagenet"][0]()[0])
