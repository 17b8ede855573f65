"""OBC and SBC where some inputs never send anything: what they feed goes first, the budget is met all the same."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron

from benchmark.networks.classifier import SNNClassifier
from compressors import OBC, SBC
from tests.compressors.networks import RandomEvents, fit


class WithSilence(RandomEvents):
    """Random events of which some pixels never send any."""

    def __init__(self, silent) -> None:
        super().__init__()
        self.x[:, :, *silent] = 0


def silent_convolution(groups=1):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        layer.Conv2d(2, 4, 3, groups=groups, bias=False), neuron.LIFNode(), layer.Flatten(), layer.Linear(64, 3)
    )
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.mul_(6)
    return SNNClassifier(net, classes=3, timesteps=4)


CHANNEL = (1,)


@pytest.mark.parametrize("options", [{}, {"solver": "fast"}, {"solver": "refined"}, {"variant": "paper"}, {"bits": 3}])
def test_a_silent_channel_of_a_grouped_convolution_goes_first_and_is_named(options, caplog):
    compressor, module = SBC(0.5, **options), silent_convolution(groups=2)
    fit(compressor, module, data=WithSilence(CHANNEL))
    entry = compressor.compression.layers[0]
    assert not entry.mask[2:].any()
    assert not module.network[0].weight[2:].any()
    assert entry.mask[:2].any()
    assert entry.to_dict()["dead_inputs"] == 9
    assert "layer network.0: no input of it" in caplog.text


@pytest.mark.parametrize("allocation", ["lamp", "loss", "relative_loss"])
@pytest.mark.parametrize("budget", [{"density": 0.5}, {"bits": 4}, {"density": 0.5, "bits": 4}])
def test_a_silent_layer_does_not_stop_the_network(allocation, budget):
    module = silent_convolution()
    with torch.no_grad():
        module.network[0].weight.mul_(-1).sub_(1)  # nothing fires behind it
    compressor = OBC(**budget, allocation=allocation)
    fit(compressor, module)
    first, last = compressor.compression.layers
    assert (last.kept, last.to_dict()["dead_inputs"]) == (0, 64)
    assert first.kept > 0
    assert torch.isfinite(module.network[0].weight).all()


def weights_of(module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


@pytest.mark.parametrize("allocation", ["lamp", "uniform", "erk", "global", "loss", "relative_loss"])
@pytest.mark.parametrize("density", [0.1, 0.2])
def test_the_density_is_met_where_a_layer_is_silent(allocation, density):
    module = silent_convolution()  # 72 weights, and 192 behind it
    with torch.no_grad():
        module.network[0].weight.mul_(-1).sub_(1)  # nothing fires behind it
    compressor = OBC(density, allocation=allocation)
    fit(compressor, module)
    first, last = compressor.compression.layers
    assert (first.kept, last.kept) == (round(density * weights_of(module)), 0)


@pytest.mark.parametrize(
    "options",
    [
        *({"allocation": allocation} for allocation in ("lamp", "uniform", "erk", "global", "loss", "relative_loss")),
        *({"solver": "fast"}, {"solver": "refined"}, {"variant": "paper"}),
    ],
    ids=str,
)
def test_the_density_is_met_where_inputs_are_dead(options):
    module = silent_convolution(groups=2)  # 36 weights, of which 18 are dead, and 192 behind it
    compressor = OBC(0.85, **options)
    fit(compressor, module, data=WithSilence(CHANNEL))
    entries = compressor.compression.layers
    assert sum(entry.kept for entry in entries) == pytest.approx(round(0.85 * weights_of(module)), abs=1)
    assert not entries[0].mask[2:].any()


def test_where_less_lives_than_is_asked_for_all_of_it_stays_as_it_was():
    module = silent_convolution()
    with torch.no_grad():
        module.network[0].weight.mul_(-1).sub_(1)
    before = module.network[0].weight.detach().clone()
    compressor = OBC(0.9)
    fit(compressor, module)
    assert [entry.kept for entry in compressor.compression.layers] == [72, 0]
    assert torch.equal(module.network[0].weight, before)


@pytest.mark.parametrize(
    "options",
    [
        {"density": 0.5},
        {"pattern": "2:4"},
        {"density": 0.5, "pattern": "block4"},
        {"bits": 3},
        {"density": 0.5, "bits": 3},
        {"density": 0.5, "solver": "fast"},
        {"pattern": "2:4", "solver": "fast"},
        {"bits": 3, "solver": "fast"},
        {"density": 0.5, "variant": "paper"},
        {"density": 0.5, "propagate": True},
    ],
    ids=str,
)
def test_without_damping_weights_of_dead_inputs_are_set_to_zero(options):
    """As in the published code; the others are what they would be if the dead inputs were not there."""
    compressor, module = OBC(damping=0, exclude=["network.3"], **options), silent_convolution()
    fit(compressor, module, data=WithSilence(CHANNEL))
    (entry,) = compressor.compression.layers
    weight = module.network[0].weight.detach()
    assert not weight[:, 1].any()
    assert not entry.mask[:, 1].any()
    assert weight[:, 0].any()
    assert torch.isfinite(weight).all()
    assert entry.to_dict()["dead_inputs"] == 9
