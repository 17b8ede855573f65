"""The LightningModule around a network: time order, direct coding, losses."""

import pytest
import torch
from spikingjelly.activation_based import functional

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.errors import NetworkError
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


class Giving(torch.nn.Module):
    """What a network makes of its scores ``[T, B, 5]``."""

    def __init__(self, change):
        super().__init__()
        self.change, self.net = change, mlp((2, 12, 12), 5)

    def forward(self, x):
        return self.change(self.net(x))


def shown(network, samples=3, classes=5):
    torch.manual_seed(0)
    x = (torch.rand(samples, T, 2, 12, 12) < 0.4).float()
    return SNNClassifier(network, classes=classes, timesteps=T).eval()(x)


def test_a_network_may_take_the_mean_over_time_itself():
    averaged = Giving(lambda scores: scores.mean(0))
    for samples in (1, 3, T):
        torch.testing.assert_close(shown(averaged, samples), shown(averaged.net, samples))


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (lambda scores: (scores, None), 5, "Giving returns a tuple of 2: wrap it in a module that returns the scores"),
        (lambda scores: [*scores], 5, "Giving returns a list of 4"),
        (lambda scores: {"scores": scores}, 5, "Giving returns a dict of 1"),
        (
            lambda scores: scores,
            4,
            r"returns \[4, 3, 5\] for 3 samples of 4 classes: its last layer must give \[T, B, 4",
        ),
        (lambda scores: scores, 6, r"returns \[4, 3, 5\] for 3 samples of 6 classes"),
        (lambda scores: scores.mean(1), 5, r"returns \[4, 5\] for 3 samples of 5 classes"),
        (lambda scores: scores.sum(), 5, r"returns \[\] for 3 samples"),
    ],
)
def test_other_outputs_are_refused_in_a_line(change, classes, message):
    with pytest.raises(NetworkError, match=message) as refused:
        shown(Giving(change), classes=classes)
    assert refused.value.exit_status == 2


def test_compiled_networks_are_taken_as_they_were_before():
    network = mlp((2, 12, 12), 5)
    expected, names = shown(network), [*network.state_dict()]
    assert SNNClassifier(torch.compile(network), classes=5, timesteps=T).network is network
    part = next(name for name, child in network.named_children() if hasattr(child, "weight"))
    network.compile()
    setattr(network, part, torch.compile(getattr(network, part)))
    torch.testing.assert_close(shown(network), expected)
    assert [*network.state_dict()] == names
