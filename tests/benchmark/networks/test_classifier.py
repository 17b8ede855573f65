"""The LightningModule around a network: time order, direct coding, losses."""

import pytest
import torch
from spikingjelly.activation_based import functional

from benchmark.networks.classifier import SNNClassifier, rate_mse
from benchmark.networks.zoo.conv import conv
from benchmark.networks.zoo.mlp import mlp

T = 4


@pytest.fixture(params=[conv, mlp])
def module(request):
    torch.manual_seed(0)
    network = request.param((2, 12, 12), 5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)  # so that the untrained network fires
    return SNNClassifier(network, classes=5, timesteps=T).eval()


def test_scores_are_the_mean_over_time_of_the_networks_output(module):
    x = torch.rand(3, T, 2, 12, 12)
    scores = module(x)
    functional.reset_net(module.network)
    torch.testing.assert_close(scores, module.network(x.transpose(0, 1)).mean(0))
    assert scores.any()


def test_direct_coding_is_the_repeated_image(module):
    image = torch.rand(3, 2, 12, 12)
    torch.testing.assert_close(module(image), module(image.unsqueeze(1).expand(-1, T, -1, -1, -1)))


def test_an_image_passes_the_first_layer_once(module):
    seen = []
    first = next(m for m in module.network if hasattr(m, "weight"))
    first.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    module(torch.rand(3, 2, 12, 12))
    assert seen == [1]


def test_samples_do_not_see_each_other(module):
    x = torch.rand(4, T, 2, 12, 12)
    torch.testing.assert_close(module(x)[2:3], module(x[2:3]))
    torch.testing.assert_close(module(x), module(x))


def test_rate_mse_is_summed_over_classes_and_takes_shares():
    rates = torch.tensor([[0.5, 0.25], [1.0, 0.0]])
    assert rate_mse(rates, torch.tensor([0, 1])) == pytest.approx((0.25 + 0.0625 + 1 + 1) / 2)
    assert rate_mse(rates, torch.tensor([[0.5, 0.25], [0.5, 0.5]])) == pytest.approx(0.25)
