"""Whole numbers in floats give the spikes of whole numbers, to the bit; and what has no such form is refused."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.fixed_point.choosing import spikes_apart
from benchmark.networks.fixed_point.network import dequantised, fixed_point
from benchmark.networks.fixed_point.neurons import IntegerNeuron
from benchmark.networks.fixed_point.scheme import FixedPoint, FixedPointError
from benchmark.networks.inference.forward import compiled
from compressors.quantization.grids import fit_grid
from hardware import profile
from hardware.storage import note
from tests.benchmark.networks.fixed_point import reference

T, B = 5, 3
SHAPE = (2, 8, 8)


def run(network, x):
    with torch.no_grad(), compiled(network):
        functional.reset_net(network)
        return network(x)


def events(seed=0, steps=T, batch=B, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((steps, batch, *shape), 0.7), generator=generator)


SCHEMES = st.builds(
    FixedPoint,
    weight_bits=st.integers(2, 8),
    potential_bits=st.integers(8, 24),
    overflow=st.sampled_from(["saturate", "wrap"]),
    leak=st.sampled_from(["shift", "factor"]),
)
NEURONS = {
    "IF": lambda: neuron.IFNode(v_reset=0.0, step_mode="m"),
    "IF soft": lambda: neuron.IFNode(v_threshold=0.7, v_reset=None, step_mode="m"),
    "LIF": lambda: neuron.LIFNode(tau=2.0, step_mode="m"),
    "LIF soft": lambda: neuron.LIFNode(tau=3.3, decay_input=False, v_reset=None, step_mode="m"),
    "LIF from -0.5": lambda: neuron.LIFNode(tau=4.0, v_threshold=0.9, v_reset=-0.5, step_mode="m"),
    "PLIF": lambda: neuron.ParametricLIFNode(init_tau=5.0, step_mode="m"),
}
CONVOLUTIONS = {
    "conv": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "bias": False},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "dilated": {"kernel_size": (3, 1), "dilation": 2, "padding": (2, 0), "bias": False},
}
POOLS = {
    "mean": lambda: layer.AvgPool2d(2, step_mode="m"),
    "sum": lambda: layer.AvgPool2d(2, divisor_override=1, step_mode="m"),
    "max": lambda: layer.MaxPool2d(2, step_mode="m"),
}


@st.composite
def networks(draw):
    """A convolution, perhaps BatchNorm, neurons, perhaps a pool on either side of them, and a linear layer or two."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    parts = [layer.Conv2d(2, 4, step_mode="m", **CONVOLUTIONS[draw(st.sampled_from([*CONVOLUTIONS]))])]
    if draw(st.booleans()):
        norm = layer.BatchNorm2d(4, step_mode="m")
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        parts.append(norm)
    place = draw(st.sampled_from(["none", "before", "after"]))
    pool = POOLS[draw(st.sampled_from([*POOLS]))]
    middle = [NEURONS[draw(st.sampled_from([*NEURONS]))]()]
    parts += {"none": middle, "before": [pool(), *middle], "after": [*middle, pool()]}[place]
    parts += [layer.Flatten(step_mode="m")]
    features = nn.Sequential(*parts).eval()
    wide = run(features, events()).shape[-1]
    parts += [layer.Linear(wide, 5, bias=draw(st.booleans()), step_mode="m")]
    if draw(st.booleans()):
        parts += [NEURONS[draw(st.sampled_from([*NEURONS]))]()]
    network = nn.Sequential(*parts).eval()
    with torch.no_grad():
        for module in network:
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(3)
    return network


def by_reference(network, fixed, x):
    """A sequential network's whole numbers, run in NumPy."""
    values = x.long().numpy()
    for name, module in network.named_children():
        flat = values.reshape(-1, *values.shape[2:])
        if name in fixed.layers:
            one = fixed.layers[name]
            weight, bias = one.weight.numpy(), None if one.bias is None else one.bias.numpy()
            if isinstance(module, nn.Linear):
                flat = reference.linear(flat, weight, bias)
            else:
                settings_ = (module.stride, module.padding, module.dilation, module.groups)
                flat = reference.convolution(flat, weight, bias, *settings_)
        elif name in fixed.neurons:
            one = fixed.neurons[name]
            values = reference.neuron(values, one.threshold, one.reset is None, one.leak, fixed.scheme)
            continue
        elif isinstance(module, layer.AvgPool2d | layer.MaxPool2d):
            flat = reference.pool(flat, 2, np.max if isinstance(module, layer.MaxPool2d) else np.sum)
        elif isinstance(module, layer.Flatten):
            flat = flat.reshape(len(flat), -1)
        values = flat.reshape(*values.shape[:2], *flat.shape[1:])
    return values


@settings(max_examples=30, deadline=None)
@given(networks(), SCHEMES, st.integers(0, 99))
def test_every_kind_of_layer_is_computed_to_the_bit(network, scheme, seed):
    fixed = fixed_point(network, events(), scheme)
    x = events(seed)
    expected = by_reference(network, fixed, x)
    got = run(fixed.network, x)
    if network[-1] in [network.get_submodule(name) for name in fixed.neurons]:
        assert torch.equal(got.long(), torch.from_numpy(expected))
    else:  # currents, which are told in the network's own unit
        unit = [*fixed.layers.values()][-1].unit
        assert torch.equal(got, (torch.from_numpy(expected).double() * unit).float())
    for one in fixed.layers.values():
        assert -(2 ** (scheme.weight_bits - 1)) <= one.codes.min()
        assert one.codes.max() < 2 ** (scheme.weight_bits - 1)


def residual(join: str):
    """Two branches that meet: as currents in front of neurons, or as spikes behind them."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m"), NEURONS["IF"]())
            self.branch = layer.Conv2d(4, 4, 3, padding=1, bias=False, step_mode="m")
            self.shortcut = layer.Conv2d(4, 4, 1, bias=False, step_mode="m")
            self.fire = NEURONS["LIF"]()
            self.head = nn.Sequential(layer.Flatten(step_mode="m"), layer.Linear(256, 3, step_mode="m"))

        def forward(self, x):
            x = self.stem(x)
            if join == "currents":
                return self.head(self.fire(self.branch(x) + self.shortcut(x)))
            if join == "spikes":
                return self.head(self.fire(self.branch(x)) + x)
            return self.head(self.fire(self.branch(x) + x))

    torch.manual_seed(1)
    network = Residual().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)
    return network


@pytest.mark.parametrize("join", ["currents", "spikes"])
def test_branches_that_meet_count_in_one_unit(join):
    network, x = residual(join), events(3)
    fixed = fixed_point(network, events(), FixedPoint(6, 14))

    def computed(name, values):
        one, module = fixed.layers[name], network.get_submodule(name)
        flat = values.reshape(-1, *values.shape[2:])
        total = reference.convolution(flat, one.weight.numpy(), None, *((1, 1), module.padding, (1, 1), 1))
        return total.reshape(*values.shape[:2], *total.shape[1:])

    def fired(name, currents):
        one = fixed.neurons[name]
        return reference.neuron(currents, one.threshold, one.reset is None, one.leak, fixed.scheme)

    spikes = fired("stem.1", computed("stem.0", x.long().numpy()))
    if join == "currents":
        last = fired("fire", computed("branch", spikes) + computed("shortcut", spikes))
    else:
        last = fired("fire", computed("branch", spikes)) + spikes
    one = fixed.layers["head.1"]
    scores = reference.linear(last.reshape(T, B, -1), one.weight.numpy(), one.bias.numpy())
    assert torch.equal(run(fixed.network, x), (torch.from_numpy(scores).double() * one.unit).float())
    assert last.any()


def mlp(hidden=8):
    torch.manual_seed(0)
    network = nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.Linear(128, hidden, bias=False, step_mode="m"),
        neuron.IFNode(v_reset=None, step_mode="m"),
        layer.Linear(hidden, 4, bias=False, step_mode="m"),
        neuron.IFNode(v_reset=None, step_mode="m"),
    ).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    return network


def test_layers_of_torch_and_sequences_are_computed_to_the_bit():
    """A convolution along one axis is one along two of which the first has one entry."""
    torch.manual_seed(0)
    network = nn.Sequential(
        layer.Conv1d(2, 3, 3, padding=1, stride=2, bias=False, step_mode="m"),
        NEURONS["LIF"](),
        layer.Flatten(step_mode="m"),
        nn.Linear(12, 4),
        NEURONS["IF soft"](),
    ).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    x = events(2, shape=(2, 8))
    fixed = fixed_point(network, x, FixedPoint(5, 13))
    first, second = fixed.neurons["1"], fixed.neurons["4"]
    flat = x.long().numpy().reshape(-1, 2, 1, 8)
    weight = fixed.layers["0"].weight.numpy()[:, :, None]
    currents = reference.convolution(flat, weight, None, (1, 2), (0, 1), (1, 1), 1)
    spikes = reference.neuron(currents.reshape(T, B, -1), first.threshold, False, first.leak, fixed.scheme)
    one = fixed.layers["3"]
    currents = reference.linear(spikes, one.weight.numpy(), one.bias.numpy())
    expected = reference.neuron(currents, second.threshold, True, second.leak, fixed.scheme)
    assert torch.equal(run(fixed.network, x).long(), torch.from_numpy(expected))
    assert expected.any()


def test_sums_beyond_float32_are_taken_in_float64():
    """The bound is proved for every input that is let through, so a larger one is refused."""
    network = mlp()
    many = 1000 * events()
    fixed = fixed_point(network, many, FixedPoint(8, 24))
    assert fixed.dtypes == {"1": "float64", "3": "float32"}
    assert torch.equal(run(fixed.network, many).long(), torch.from_numpy(by_reference(network, fixed, many)))
    with pytest.raises(FixedPointError, match="sums are exact up to"):
        run(fixed.network, 2000 * many)
    with pytest.raises(FixedPointError, match="not of whole numbers"):
        run(fixed.network, events() / 2)
    with pytest.raises(FixedPointError, match="layer '1' may sum up more than"):
        fixed_point(network, 1_000_000 * events(), FixedPoint(8, 24))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**16),
    SCHEMES,
    st.sampled_from([None, 1.0, 2.0, 5.5]),
    st.booleans(),
    st.integers(1, 2**23 - 1),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_neurons_are_the_same_in_compiled_loops_and_in_torchs_operations(seed, scheme, tau, soft, threshold, dtype):
    generator = torch.Generator().manual_seed(seed)
    high = 2 * scheme.highest
    currents = torch.randint(-high, high, (6, 2, 7), generator=generator).to(dtype)
    node = IntegerNeuron(min(threshold, scheme.highest), soft, scheme.leak_of(tau), scheme, 1.0)
    spikes = node(currents)
    expected = reference.neuron(currents.long().numpy(), node.v_threshold, soft, node.leak, scheme)
    assert torch.equal(spikes.long(), torch.from_numpy(expected))
    left, outside = node.v.clone(), node.overflows
    assert left.dtype == torch.int32
    assert int(left.min()) >= scheme.lowest
    assert int(left.max()) <= scheme.highest
    again = torch.empty_like(spikes)
    node.v = torch.zeros_like(left)
    assert node._stepwise(currents, again) == (outside, 0)
    assert torch.equal(again, spikes)
    assert torch.equal(node.v, left)


def test_a_fraction_in_a_current_is_found():
    node = IntegerNeuron(3, True, FixedPoint().leak_of(None), FixedPoint(), 1.0)
    with pytest.raises(FixedPointError, match="1 currents are no whole numbers"):
        node(torch.tensor([[1.0, 2.5]]))


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_potentials_beyond_their_range(overflow):
    scheme = FixedPoint(8, 8, overflow)
    node = IntegerNeuron(127, True, scheme.leak_of(None), scheme, 1.0)
    spikes = node(torch.tensor([[100.0], [100.0], [0.0]]))
    assert spikes.flatten().tolist() == ([0, 1, 0] if overflow == "saturate" else [0, 0, 0])
    assert node.v.item() == (0 if overflow == "saturate" else 200 - 256)
    assert (node.overflows, node.updates) == (1, 3)


REFUSED = {
    "takes means of 9 entries": [layer.Conv2d(2, 2, 3, step_mode="m"), NEURONS["IF"](), layer.AvgPool2d(3)],
    "with no layer between": [NEURONS["IF"]()],
    "takes the output of another layer with no neuron between": [
        layer.Conv2d(2, 2, 3, step_mode="m"),
        layer.Conv2d(2, 2, 3, step_mode="m"),
    ],
    r"'1' \(EIFNode\) has no form in whole numbers": [
        layer.Conv2d(2, 2, 3, step_mode="m"),
        neuron.EIFNode(step_mode="m"),
    ],
    "does not follow a layer of its own": [layer.BatchNorm2d(2, step_mode="m")],
    "pads with reflect": [layer.Conv2d(2, 2, 3, padding=1, padding_mode="reflect", step_mode="m")],
    "threshold that is not above": [
        layer.Conv2d(2, 2, 3, step_mode="m"),
        neuron.IFNode(v_threshold=-1.0, step_mode="m"),
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_exact_form_is_refused_by_name(message):
    with pytest.raises(FixedPointError, match=message):
        fixed_point(nn.Sequential(*REFUSED[message]).eval(), events(), FixedPoint())


def test_spikes_added_to_currents_are_refused():
    with pytest.raises(FixedPointError, match="adds values of different units"):
        fixed_point(residual("both"), events(), FixedPoint())


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"weight_bits": 9}, "weights of 9 bits: give 2 to 8"),
        ({"potential_bits": 25}, "potentials of 25 bits: give 8 to 24"),
        ({"overflow": "clip"}, "overflow is 'clip'"),
        ({"leak": "none"}, "leak is 'none'"),
    ],
)
def test_widths_out_of_range(settings_, message):
    with pytest.raises(FixedPointError, match=message):
        FixedPoint(**settings_)


def test_many_bits_change_few_spikes_and_few_bits_more():
    network, x = mlp(hidden=32), events(7, batch=16)
    wanted = run(network, x)
    differ = [
        float((run(fixed_point(network, events(), FixedPoint(*bits)).network, x) != wanted).double().mean())
        for bits in ((8, 24), (4, 16), (2, 8))
    ]
    assert wanted.mean() > 0.02
    assert differ[0] < 0.01
    assert differ[0] <= differ[1] <= differ[2]


def test_spikes_that_are_late_are_nearer_than_silence():
    wanted = torch.zeros(8, 1)
    wanted[::2] = 1
    late = wanted.roll(1, 0)
    assert spikes_apart(late, wanted) == 0.5
    assert spikes_apart(torch.zeros(8, 1), wanted) == 2.5
    assert spikes_apart(wanted, wanted) == 0


def test_floats_on_the_grid_fire_as_the_whole_numbers_do():
    """Without a leak and an overflow the whole numbers are the network in floats, but for what these round."""
    network, x = mlp(), events(5)
    fixed = fixed_point(network, events(), FixedPoint(4, 20))
    floats = dequantised(network, fixed)
    assert torch.equal(run(floats, x), run(fixed.network, x))
    assert not torch.equal(floats[1].weight, network[1].weight)
    assert len(floats[1].weight.unique()) <= 16


def test_weights_on_a_grid_of_one_scale_stay_as_they_are():
    network = mlp()
    with torch.no_grad():
        grid = fit_grid(network[1].weight, 3, per="tensor")
        network[1].weight.copy_(grid.nearest(network[1].weight))
    note(network[1], grid.stored())
    fixed = fixed_point(network, events(), FixedPoint(8, 24))
    assert torch.equal(dequantised(network, fixed)[1].weight, network[1].weight)


def test_the_network_stays_as_it_is():
    network = mlp()
    before = copy.deepcopy(network.state_dict())
    fixed_point(network, events(), FixedPoint(2, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert isinstance(network[2].v, float)


def test_zeros_stay_zeros_and_the_state_is_counted_as_wide_as_it_is():
    network = mlp()
    with torch.no_grad():
        network[1].weight[:, ::2] = 0
    fixed = fixed_point(network, events(), FixedPoint(4, 12))
    assert not fixed.layers["1"].codes[:, ::2].any()
    report = profile(
        SNNClassifier(fixed.network, classes=4, timesteps=T), [(events().transpose(0, 1), None)], state_bits=12
    )
    assert [layer_.bits for layer_ in report.layers] == [4, 4]
    assert [neurons.state_bits for neurons in report.neurons] == [8 * 12, 4 * 12]
