"""Hessians against explicit sums, filters over time against simulated neurons."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.classifier import SNNClassifier
from compressors.calibration.activity import activities
from compressors.calibration.hessians import (
    CalibrationError,
    add_products,
    hessians,
    over_time,
    parts_of,
    symmetric,
    unfolded,
)
from compressors.network.layers import Layer, LayerError, find_layers
from compressors.network.neurons import impulse_response
from compressors.second_order.obs import damped, eliminate

T = 6
NEURONS = {
    "lif": lambda: neuron.LIFNode(tau=2.0),
    "lif, slow": lambda: neuron.LIFNode(tau=8.0),
    "lif, input not decayed": lambda: neuron.LIFNode(tau=2.5, decay_input=False),
    "lif, soft reset": lambda: neuron.LIFNode(tau=2.0, v_reset=None),
    "lif, other reset": lambda: neuron.LIFNode(tau=2.0, v_reset=-0.3),
    "plif": lambda: neuron.ParametricLIFNode(init_tau=3.0),
    "if": lambda: neuron.IFNode(),
}
CONVOLUTIONS = {
    "plain": dict(in_channels=3, out_channels=4, kernel_size=3),
    "stride": dict(in_channels=3, out_channels=4, kernel_size=3, stride=2),
    "padding": dict(in_channels=3, out_channels=4, kernel_size=3, padding=2),
    "dilation": dict(in_channels=3, out_channels=4, kernel_size=2, dilation=2),
    "groups": dict(in_channels=4, out_channels=6, kernel_size=3, groups=2, padding=1),
    "depthwise": dict(in_channels=4, out_channels=8, kernel_size=3, groups=4, padding=1),
    "oblong": dict(in_channels=2, out_channels=3, kernel_size=(1, 3), stride=(2, 1), padding=(0, 1)),
}


def wrapped(module, follower=None) -> Layer:
    return Layer("layer", module, None, follower, T)


@pytest.mark.parametrize("make", NEURONS.values(), ids=NEURONS)
def test_impulse_response_filters_any_input_as_the_neuron_does(make):
    node = make()
    response = impulse_response(node, T)
    x = torch.rand(T, 5, dtype=torch.float64)
    silent = make()
    silent.step_mode, silent.store_v_seq, silent.v_threshold = "m", True, 1e6
    silent(torch.zeros(T, 5))
    rest = silent.v_seq.double()
    functional.reset_net(silent)
    silent(x.float())
    torch.testing.assert_close(silent.v_seq.double() - rest, over_time(x, response), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", NEURONS.values(), ids=NEURONS)
def test_measuring_a_neuron_leaves_it_as_it_was(make):
    node = make()
    before = {name: getattr(node, name) for name in ("v_threshold", "v_reset", "step_mode", "store_v_seq", "v")}
    impulse_response(node, T)
    assert {name: getattr(node, name) for name in before} == before


def test_lif_response_is_the_papers_kernel():
    tau = 2.0
    steps = torch.arange(T, dtype=torch.float64)
    torch.testing.assert_close(
        impulse_response(neuron.LIFNode(tau=tau), T), (1 / tau) * (1 - 1 / tau) ** steps, rtol=0, atol=1e-7
    )
    torch.testing.assert_close(impulse_response(neuron.IFNode(), T), torch.ones(T, dtype=torch.float64))


def test_a_neuron_that_is_no_filter_is_refused():
    with pytest.raises(LayerError, match="QIFNode.*'obc'"):
        impulse_response(neuron.QIFNode(), T)


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_unfolded_inputs_reproduce_the_convolution(options):
    module = layer.Conv2d(**options, bias=False, step_mode="s").double()
    x = torch.randn(2, options["in_channels"], 7, 8, dtype=torch.float64)
    z = unfolded(wrapped(module), x)  # [groups, vectors, d]
    rows = module.weight.flatten(1).unflatten(0, (module.groups, -1))
    out = torch.einsum("gvd,grd->vgr", z, rows).flatten(1)  # [vectors, out]
    torch.testing.assert_close(out.view(2, -1, module.out_channels).mT, module(x).flatten(2))


def test_unfolded_inputs_reproduce_the_one_dimensional_convolution():
    module = nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False).double()
    x = torch.randn(3, 4, 11, dtype=torch.float64)
    z = unfolded(wrapped(module), x)
    out = torch.einsum("gvd,grd->vgr", z, module.weight.flatten(1).unflatten(0, (2, -1))).flatten(1)
    torch.testing.assert_close(out.view(3, -1, 6).mT, module(x))


def network(*modules: nn.Module) -> nn.Module:
    net = nn.Sequential(*modules)
    functional.set_step_mode(net, "m")
    return net


class BatchFirst(nn.Module):
    """Gives a time-major network batch-first inputs."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(0, 1))


def small_net():
    torch.manual_seed(0)
    return network(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        neuron.LIFNode(tau=2.0),
        layer.Flatten(),
        layer.Linear(4 * 5 * 5, 8, bias=False),
        neuron.LIFNode(tau=4.0),
        layer.Linear(8, 3, bias=False),
    )


def of(net, x, *, filtered):
    module = BatchFirst(net)
    layers = find_layers(module, lambda: module(x[:1]))
    responses = {
        found.name: impulse_response(found.neuron, x.shape[1]) if filtered and found.neuron else None
        for found in layers
    }
    return layers, hessians(module, layers, responses, lambda: iter(x.split(2)))


@pytest.mark.parametrize("filtered", [False, True], ids=["current", "membrane"])
def test_hessians_are_the_explicit_sums(filtered):
    net = small_net()
    x = (torch.rand(5, T, 2, 5, 5) < 0.4).float()
    layers, result = of(net, x, filtered=filtered)
    assert [found.name for found in layers] == ["net.0", "net.4", "net.6"]
    assert layers[2].neuron is None

    inputs = {}
    net.eval()
    for index in (0, 4, 6):
        net[index].register_forward_pre_hook(lambda m, args, index=index: inputs.__setitem__(index, args[0]))
    functional.reset_net(net)
    net(x.transpose(0, 1))
    for found, index in zip(layers, (0, 4, 6), strict=True):
        z = inputs[index].double()
        if filtered and found.neuron is not None:
            tau = found.neuron.tau
            trace = torch.zeros_like(z[0])
            filtered_z = []
            for step in z:  # the membrane of a LIF neuron that never fires
                trace = trace + (step - trace) / tau
                filtered_z.append(trace)
            z = torch.stack(filtered_z)
        if index == 0:
            z = nn.functional.unfold(z.flatten(0, 1), 3, padding=1).mT
        z = z.reshape(-1, found.rows.shape[1])
        torch.testing.assert_close(result[found.name][0], 2 * z.T @ z / len(x), rtol=1e-5, atol=1e-5)


def test_hessian_is_the_autograd_hessian_of_the_membrane_error():
    tau, batch = 3.0, 4
    net = network(layer.Linear(5, 1, bias=False), neuron.LIFNode(tau=tau))
    x = (torch.rand(batch, T, 5) < 0.5).float()
    _, result = of(net, x, filtered=True)

    def error(change):
        membrane = torch.zeros(batch, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for step in range(T):
            membrane = membrane + (x[:, step].double() @ change - membrane) / tau
            total = total + membrane.square().sum() / batch
        return total

    expected = torch.autograd.functional.hessian(error, torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(result["net.0"][0], expected, rtol=1e-5, atol=1e-6)


def test_inputs_unfolded_in_parts_give_the_same_sums(monkeypatch):
    net, x = small_net(), (torch.rand(4, T, 2, 5, 5) < 0.4).float()
    _, one = of(net, x, filtered=True)
    monkeypatch.setattr("compressors.calibration.hessians.UNFOLDED", 1)
    _, several = of(net, x, filtered=True)
    for name in one:
        torch.testing.assert_close(one[name], several[name])


def test_layers_are_cut_into_parts_that_fit_into_memory():
    layers, _ = of(small_net(), torch.rand(1, T, 2, 5, 5), filtered=False)
    sizes = [8 * found.rows.shape[1] ** 2 for found in layers]
    for limit in (1, *sizes, sum(sizes[:2]), sum(sizes)):
        parts = parts_of(layers, {found.name: size for found, size in zip(layers, sizes, strict=True)}, limit)
        assert [found for part in parts for found in part] == layers
        assert all(len(part) == 1 or 8 * sum(f.rows.shape[1] ** 2 for f in part) <= limit for part in parts)
    assert len(parts) == 1


def test_network_is_left_as_it_was():
    net, x = small_net(), torch.rand(4, T, 2, 5, 5)
    net.train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    of(net, x, filtered=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net] == [True, False, *[True] * 5]
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in net)


@pytest.mark.parametrize("case", ["one step", "constant over time"])
def test_membrane_and_current_agree_where_time_has_no_say(case):
    torch.manual_seed(1)
    x = torch.rand(8, 1, 6).expand(8, 1 if case == "one step" else T, 6).contiguous()
    net = network(layer.Linear(6, 4, bias=False), neuron.LIFNode(tau=2.0))
    _, current = of(net, x, filtered=False)
    _, membrane = of(net, x, filtered=True)
    ratio = membrane["net.0"] / current["net.0"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0, 0])), rtol=1e-6, atol=0)
    weight = net[0].weight.detach().double()
    assert torch.equal(
        eliminate(weight, damped(current["net.0"], 0.01)).order,
        eliminate(weight, damped(membrane["net.0"], 0.01)).order,
    )


def test_empty_and_bad_calibration_data_are_refused():
    net = network(layer.Linear(6, 4, bias=False), neuron.LIFNode())
    module = BatchFirst(net)
    layers = find_layers(module, lambda: module(torch.rand(1, T, 6)))
    with pytest.raises(CalibrationError, match="empty"):
        hessians(module, layers, {"net.0": None}, lambda: iter(()))
    with pytest.raises(CalibrationError, match="'net.0'.*NaN"):
        hessians(module, layers, {"net.0": None}, lambda: iter([torch.full((1, T, 6), torch.nan)]))


@pytest.mark.parametrize("size", [5, 256, 300, 600])
def test_symmetric_products_are_the_whole_ones(size):
    z = torch.randn(2, 40, size, dtype=torch.float64)
    total = torch.zeros(2, size, size, dtype=torch.float64)
    for part in z.split(15, dim=1):
        add_products(total, part)
    torch.testing.assert_close(symmetric(total), 2 * z.mT @ z)


@pytest.mark.parametrize("filtered", [False, True], ids=["current", "membrane"])
def test_an_image_shown_at_every_step_is_seen_at_every_step(filtered):
    """Before the first neurons it is computed once; statistics are those of frames that happen to be alike."""
    net = small_net()
    functional.set_step_mode(net, "m")
    module = SNNClassifier(net, classes=3, timesteps=T)
    images = torch.rand(4, 2, 5, 5)
    frames = images.unsqueeze(1).repeat(1, T, 1, 1, 1)
    found = {}
    for name, x in (("images", images), ("frames", frames)):
        layers = find_layers(module, lambda x=x: module(x[:1]))
        assert {entry.timesteps for entry in layers} == {T}
        responses = {
            entry.name: impulse_response(entry.neuron, entry.timesteps) if filtered and entry.neuron else None
            for entry in layers
        }
        seen = activities(module, layers, lambda x=x: iter(x.split(2)))
        found[name] = hessians(module, layers, responses, lambda x=x: iter(x.split(2))), seen
    (one, once), (other, often) = found["images"], found["frames"]
    for name in one:
        torch.testing.assert_close(one[name], other[name])
        torch.testing.assert_close(once[name].norm, often[name].norm)
        torch.testing.assert_close(once[name].rms, often[name].rms)
        computed = T if name == "network.0" else 1
        torch.testing.assert_close(computed * once[name].events, often[name].events)
