"""The two rules of how few time steps a network needs, where the answer is known."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.distributions import Categorical, kl_divergence

from compressors.calibration.early_time import early, fewest_steps, settled
from compressors.network.layers import LayerError
from tests.compressors.networks import RandomEvents, T, classifier


class Known(LightningModule):
    """Says after so many steps what stands in a table, ``[T, classes]``, for the class that the input names."""

    def __init__(self, table):
        super().__init__()
        self.table, self.timesteps = torch.tensor(table), len(table)

    def forward(self, x):
        return torch.stack([self.table[self.timesteps - 1].roll(int(label)) for label in x])


LABELS = [(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])), (torch.tensor([1]), torch.tensor([1]))]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[0.0, 0, 0], [5.0, 0, 0], [5.01, 0, 0], [5.02, 0, 0]], {"early": 2, "settled": 2}),
        ([[0.0, 0, 0], [2.0, 0, 0], [6.0, 0, 0], [8.0, 0, 0]], {"early": 2, "settled": 3}),
        ([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [8.0, 0, 0]], {"early": 4, "settled": 4}),
        ([[3.0, 0, 0], [3.0, 0, 0]], {"early": 1, "settled": 1}),
        ([[9.0, 0, 0], [0.0, 0, 0]], {"early": 2, "settled": 1}),  # the best of the labels is not the last
    ],
)
@pytest.mark.parametrize("rule", ["early", "settled"])
def test_a_network_that_says_what_is_known(table, expected, rule):
    module = Known(table)
    assert fewest_steps(module, LABELS, rule) == expected[rule]
    assert module.timesteps == len(table)


def test_the_rules_by_hand():
    assert early({1: 1.0, 2: 0.61, 3: 0.59, 4: 0.0}, {}) == 3
    assert early({1: 0.0, 2: 0.0}, {}) == 1
    assert settled({}, {1: 2.0, 2: 1.02, 3: 1.009, 4: 1.0}) == 3
    assert settled({}, {1: 1.0, 2: 1.0}) == 1


@pytest.mark.parametrize("rule", ["early", "settled"])
def test_a_spiking_network_sample_by_sample(rule):
    module, data, sums = classifier(), RandomEvents(), {1: [], 2: [], 3: [], T: []}
    said = {}
    for steps in sums:
        module.timesteps = steps
        said[steps] = Categorical(logits=module.eval()(data.x).detach().double())
    certain = Categorical(probs=torch.eye(3, dtype=torch.float64)[data.y])
    by_output = {steps: float(kl_divergence(said[T], now).sum()) for steps, now in said.items()}
    by_label = {steps: float(kl_divergence(certain, now).sum()) for steps, now in said.items()}
    assert max(by_output.values()) > 0
    expected = {"early": early, "settled": settled}[rule](by_output, by_label)
    module.timesteps = T
    assert fewest_steps(module, data.calibration_dataloader(), rule) == expected


def test_a_network_without_time_steps_is_refused():
    with pytest.raises(LayerError, match="LightningModule has no attribute `timesteps` to lower"):
        fewest_steps(LightningModule(), LABELS, "early")
