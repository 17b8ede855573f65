"""What a profile says beside its table: the entropy of the weights, and the least time."""

import pytest
import torch
from torch import nn

from benchmark.single_network.profile import Profile, summary_lines
from hardware import WeightCoding, profile
from hardware.energy import energy
from tests.hardware.networks import Alone, loader


@pytest.fixture
def measured():
    network = Alone(nn.Linear(100, 40, bias=False))
    with torch.no_grad():
        network.layer.weight.fill_(1)[:, 50:] = 0
    report = profile(network, loader(torch.ones(2, 100)), {"layer": WeightCoding(bits=2)})
    return Profile(report, energy(report), 0.5, ())


def test_the_entropy_of_the_weights_stands_beside_their_bits(measured):
    """Half of 4,000 weights, one of three codes each: 4,000 + 2,000 log2(3) bits; in blocks of 4 x 4 a little more."""
    assert measured.report.bound_bits == pytest.approx(4000 + 2000 * 1.585, abs=1)
    (line,) = [line for line in summary_lines(measured) if line.startswith("weights: ")]
    assert line.endswith("7.17 k by their entropy")


def test_the_least_time_is_a_range(measured):
    (line,) = [line for line in summary_lines(measured) if line.startswith("least time")]
    least = measured.to_dict()["latency"]
    assert line == (
        f"least time on 1 core of Loihi's kind: {1e6 * least['low_s']:,.4g} to {1e6 * least['high_s']:,.4g} us, "
        "layer being slowest"
    )
    assert least["low_s"] < least["high_s"]
