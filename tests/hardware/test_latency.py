"""The least time on a chip of Loihi's kind, in closed form."""

import pytest
import torch
from torch import nn

from hardware import profile
from hardware.latency import latency
from tests.hardware.networks import Alone, Spiking, loader, spikes


def test_one_core_in_closed_form():
    """Three neurons without spikes of their own; in the one step both samples bring four events to all of them."""
    report = profile(Alone(nn.Linear(4, 3, bias=False)), loader(torch.ones(2, 4)))
    least = latency(report)
    assert least.cores == 1
    assert least.heaviest == "layer"
    somas = 3 * 6.0 + 3 * 3.7
    assert least.low_s == pytest.approx(1e-9 * (4 * 16.0 + 12 * 3.1 + 600))  # the neurons are done before
    assert least.high_s == pytest.approx(1e-9 * (somas + 4 * 16.0 + 12 * 4.7 + 1800))


def test_work_is_shared_by_the_cores_of_a_layer():
    wide = profile(Alone(nn.Linear(64, 2048, bias=False)), loader(torch.ones(1, 64)))
    least = latency(wide)
    assert least.cores == 2
    per_core = 2048 / least.cores
    assert least.low_s == pytest.approx(1e-9 * (64 / least.cores * 16 + 64 * per_core * 3.1 + 600))
    assert least.high_s == pytest.approx(1e-9 * (per_core * (6.0 + 3.7) + 64 * 16 + 64 * per_core * 4.7 + 1800))


def test_neurons_decide_where_few_events_come():
    quiet = torch.zeros(1, 64)
    quiet[0, 0] = 1
    least = latency(profile(Alone(nn.Linear(64, 1000, bias=False)), loader(quiet)))
    updated = 1000 / 64  # neurons, at the least, that a thousand operations are enough for
    assert least.low_s == pytest.approx(1e-9 * (1000 * 6.0 + updated * 3.7 + 600))


def test_each_step_takes_as_long_as_its_heaviest_layer():
    torch.manual_seed(0)
    report = profile(Spiking(), loader(spikes(6, 3, 2, 8, 8)))
    least = latency(report)
    assert report.timesteps * 600e-9 < least.low_s < least.high_s
    assert least.heaviest in {layer.name for layer in report.layers}
    silent = latency(profile(Spiking(), loader(0 * spikes(6, 3, 2, 8, 8))))
    assert silent.low_s < least.low_s


def test_a_network_without_weights_has_no_time():
    assert latency(profile(nn.Identity(), loader(torch.ones(1, 4)))) is None
