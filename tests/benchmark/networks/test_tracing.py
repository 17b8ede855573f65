"""What a network computes by functions, and layers say as well."""

import nir
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.fixed_point.network import fixed_point
from benchmark.networks.fixed_point.scheme import FixedPoint
from benchmark.networks.nir.writing import to_nir
from tests.benchmark.networks.fixed_point.test_network import events, run

SHAPE = (2, 4, 4)


class ByHand(nn.Module):
    """Flattens between its convolution and its linear layer as hand-written networks do."""

    def __init__(self, flatten):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fire = layer.Conv2d(2, 3, 3), neuron.IFNode()
        self.flatten = flatten
        self.head, self.answer = layer.Linear(12, 5), neuron.IFNode()
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.answer(self.head(self.flatten(self.fire(self.conv(x)))))


FUNCTIONS = {
    "method": lambda x: x.flatten(2),
    "by name": lambda x: x.flatten(start_dim=2),
    "function": lambda x: torch.flatten(x, 2, -1),
    "function by name": lambda x: torch.flatten(input=x, start_dim=2),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_flattening_by_a_function_is_flattening_by_a_layer(function):
    by_layer, by_function = ByHand(layer.Flatten(step_mode="m")), ByHand(function)
    x = 3 * events(shape=SHAPE)
    wanted, numbers = (fixed_point(net, x, FixedPoint(6, 16)) for net in (by_layer, by_function))
    spikes = run(wanted.network, x)
    assert spikes.any()
    assert torch.equal(run(numbers.network, x), spikes)
    shapes = [[type(node) for node in to_nir(net, SHAPE).nodes.values()] for net in (by_layer, by_function)]
    assert shapes[0] == shapes[1]
    assert nir.Flatten in shapes[0]


def test_what_mixes_time_or_batch_into_features_stays_refused():
    with pytest.raises(ValueError, match="flatten"):
        fixed_point(ByHand(lambda x: x.flatten(1)), events(shape=SHAPE), FixedPoint(6, 16))
