"""Input activity against explicit loops and counted SynOps; changes of membranes against two simulations."""

import pytest
import torch
from lightning.pytorch import Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressors.calibration.activity import activities, changes
from compressors.calibration.hessians import CalibrationError
from compressors.network.layers import Layer, hooks
from hardware import HardwareCost
from tests.compressors.networks import BatchFirst, layers_of

T, SAMPLES = 5, 6


def small_net(seed: int = 0) -> BatchFirst:
    torch.manual_seed(seed)
    return BatchFirst(
        layer.Conv2d(2, 6, 3, padding=1, stride=2, bias=False),
        layer.BatchNorm2d(6),
        neuron.LIFNode(tau=2.0, v_threshold=0.2),
        layer.Conv2d(6, 6, 3, padding=1, groups=3),
        neuron.LIFNode(tau=3.0, v_threshold=0.1),
        layer.Flatten(),
        layer.Linear(6 * 9, 5, bias=False),
        neuron.LIFNode(tau=4.0, v_threshold=0.02),
        layer.Linear(5, 3),
    ).eval()


def events(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 4, (SAMPLES, T, 2, 6, 6), generator=generator)  # several events in one bin
    return counts * (torch.rand(counts.shape, generator=generator) < 0.4).float()


@pytest.fixture
def measured():
    net, x = small_net(), events()
    layers = layers_of(net, x)
    return net, x, layers, activities(net, layers, lambda: iter(x.split(4)))


def inputs_of(net: BatchFirst, x: torch.Tensor) -> dict[nn.Module, torch.Tensor]:
    seen = {}
    modules = [m for m in net.net if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad(), hooks(modules, lambda m, args: seen.__setitem__(m, args[0].double()), before=True):
        net(x)
    return seen


def test_root_mean_square_of_each_step(measured):
    net, x, layers, found = measured
    inputs = inputs_of(net, x)
    for entry in layers:
        expected = inputs[entry.module].flatten(1).square().mean(1).sqrt()
        torch.testing.assert_close(found[entry.name].rms, expected)
        assert found[entry.name].rms.any(), "the case is not an empty one"


def test_norm_is_that_of_the_patches_of_the_busiest_group(measured):
    net, x, layers, found = measured
    inputs = inputs_of(net, x)
    for entry in layers:
        norms = torch.zeros(T, dtype=torch.float64)
        for step in range(T):
            for sample in inputs[entry.module][step]:
                parts = sample.chunk(entry.groups)
                squares = [(p if p.ndim == 1 else patches(entry.module, p)).square().sum() for p in parts]
                norms[step] += max(squares).sqrt() / SAMPLES
        torch.testing.assert_close(found[entry.name].norm, norms)


def patches(module: nn.Conv2d, channels: torch.Tensor) -> torch.Tensor:
    return nn.functional.unfold(channels[None], module.kernel_size, 1, module.padding, module.stride)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_events_price_each_weight_at_the_synops_that_the_hardware_counts(measured, density):
    """Masks are drawn for one layer at a time, so that the inputs stay those that were measured."""
    net, x, layers, found = measured
    loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=4)
    for entry in layers:
        mask = torch.rand(entry.rows.shape, generator=torch.Generator().manual_seed(1)) < density
        before = entry.module.weight.detach().clone()
        with torch.no_grad():
            entry.module.weight.mul_(mask.view_as(before))
        counter = HardwareCost()
        Trainer(logger=False, enable_progress_bar=False, callbacks=[counter]).test(net, loader, verbose=False)
        counted = {cost.name: cost.synops for cost in counter.report.layers}
        price = (found[entry.name].synops(len(entry.rows)) * mask).sum() * SAMPLES
        assert round(float(price)) == counted[entry.name] > 0
        with torch.no_grad():
            entry.module.weight.copy_(before)


def test_batches_make_no_difference(measured):
    net, x, layers, found = measured
    other = activities(net, layers, lambda: iter(x.split(1)))
    for name, activity in found.items():
        for field in ("norm", "rms", "events"):
            torch.testing.assert_close(getattr(activity, field), getattr(other[name], field), rtol=1e-12, atol=0)


def test_no_calibration_data_is_an_error(measured):
    net, _, layers, _ = measured
    with pytest.raises(CalibrationError, match="empty"):
        activities(net, layers, lambda: iter(()))


def thinned(net: BatchFirst, layers) -> dict[str, torch.Tensor]:
    """Take away weights of every layer; what they were."""
    before = {f"{entry.name}.weight": entry.module.weight.detach().clone() for entry in layers}
    with torch.no_grad():
        for entry in layers:
            entry.module.weight.mul_(entry.module.weight.abs() > entry.module.weight.abs().median())
    return before


def simulate(net: BatchFirst, x: torch.Tensor, entry) -> tuple[torch.Tensor, torch.Tensor]:
    """Potential and spikes ``[T, B, ...]`` of the layer's neuron, one step at a time."""
    seen = []
    probe = entry.neuron if entry.neuron is not None else entry.module
    functional.set_step_mode(net, "s")
    functional.reset_net(net)
    with torch.no_grad(), hooks([probe], lambda m, args, out: seen.append((getattr(m, "v", out), out))):
        for step in x.transpose(0, 1):
            net.net(step)
    functional.set_step_mode(net, "m")
    potentials, spikes = zip(*seen, strict=True)
    return torch.stack(potentials).double(), torch.stack(spikes)


def test_changes_are_those_between_two_simulations(measured):
    net, x, layers, _ = measured
    dense = {entry.name: simulate(net, x, entry) for entry in layers}
    before = thinned(net, layers)
    found = changes(net, layers, before, lambda: iter(x.split(4)))
    for entry in layers:
        (u, s), (v, r) = dense[entry.name], simulate(net, x, entry)
        distance = (u - v).flatten(2).norm(dim=2).mean()
        assert found[entry.name].potential == pytest.approx(float(distance), rel=1e-5)
        if entry.neuron is None:
            assert found[entry.name].spikes is None
        else:
            assert found[entry.name].spikes == pytest.approx(float((s != r).double().mean()))
            assert found[entry.name].spikes > 0, "the case is not an empty one"


def test_nothing_changed_is_no_change_and_the_network_is_left_as_it_was(measured):
    net, x, layers, _ = measured
    before = {f"{entry.name}.weight": entry.module.weight.detach().clone() for entry in layers}
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for change in changes(net, layers, before, lambda: iter(x.split(4))).values():
        assert change.potential == 0
        assert not change.spikes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert not any(module.store_v_seq for module in net.net if isinstance(module, neuron.LIFNode))


def test_layers_that_are_added_up_before_one_neuron_share_its_change():
    class Sum(BatchFirst):
        def forward(self, x):
            functional.reset_net(self.net)
            x = x.transpose(0, 1).flatten(2)
            return self.net[2](self.net[0](x) + self.net[1](x))

    torch.manual_seed(0)
    net = Sum(layer.Linear(72, 4), layer.Linear(72, 4), neuron.LIFNode(v_threshold=0.1)).eval()
    layers = [Layer(f"net.{i}", net.net[i], None, net.net[2], T) for i in (0, 1)]
    before = thinned(net, layers)
    found = changes(net, layers, before, lambda: iter([events()]))
    assert found["net.0"] == found["net.1"]
    assert found["net.0"].potential > 0
