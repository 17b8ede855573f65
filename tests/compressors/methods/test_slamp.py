"""SLAMP is LAMP with a factor a layer: where it must agree, where it must not, and what its bound holds for."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron
from torch import nn

from compressors.base import Compressor
from compressors.budget import BudgetError, OptionError
from compressors.calibration.activity import Activity, activities, changes
from compressors.methods.lamp import LAMP
from compressors.methods.magnitude import Magnitude
from compressors.methods.slamp import SLAMP, VARIANTS, distortion_bound, response_of, step_weights
from compressors.network.layers import LayerError, hooks
from compressors.weights.allocation import ALLOCATIONS
from tests.compressors.methods.leaky_networks import Events, classifier, fit, masks, same
from tests.compressors.networks import BatchFirst, layers_of

# Weights of the steps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_step_weights_are_the_sums_of_the_definition(leak, steps):
    response = torch.tensor([leak**k for k in range(steps)], dtype=torch.float64)
    expected = [sum(leak ** (t - tau) for t in range(tau, steps)) / steps for tau in range(steps)]
    torch.testing.assert_close(step_weights(response), torch.tensor(expected, dtype=torch.float64))


def test_without_leak_early_steps_weigh_most_and_without_memory_all_the_same():
    torch.testing.assert_close(step_weights(torch.ones(4)), torch.tensor([4.0, 3, 2, 1]) / 4)
    torch.testing.assert_close(step_weights(torch.tensor([1.0, 0, 0, 0])), torch.full((4,), 0.25))


def activity(values: list[float]) -> Activity:
    steps = torch.tensor(values, dtype=torch.float64)
    return Activity(norm=steps, rms=steps, events=steps[None])


@pytest.mark.parametrize("variant", ["v1", "v2"])
@given(level=st.floats(0, 1e3))
def test_at_one_step_the_factor_is_one_to_the_bit(variant, level):
    assert float(VARIANTS[variant](step_weights(torch.ones(1).double()), activity([level]))) == 1.0


def test_variants_of_the_factor():
    weights = step_weights(torch.tensor([1.0, 0.5, 0.25]).double())  # 1.75, 1.5, 1 over 3
    shape = activity([2.0, 1.0, 0.0])
    assert float(VARIANTS["v1"](weights, shape)) == pytest.approx(4.25 / 3)
    assert float(VARIANTS["v2"](weights, shape)) == pytest.approx((2 * 1.75 + 1.5) / 3)
    assert float(VARIANTS["v3"](weights, shape)) == pytest.approx((2 * 1.75 + 1.5) / 3)
    louder = activity([20.0, 10.0, 0.0])
    assert float(VARIANTS["v2"](weights, louder)) == pytest.approx((2 * 1.75 + 1.5) / 3)
    assert float(VARIANTS["v3"](weights, louder)) == pytest.approx(10 * (2 * 1.75 + 1.5) / 3)
    silent, steady = activity([0.0, 0, 0]), activity([0.7, 0.7, 0.7])
    assert float(VARIANTS["v2"](weights, silent)) == float(VARIANTS["v1"](weights, silent))
    assert float(VARIANTS["v2"](weights, steady)) == pytest.approx(float(VARIANTS["v1"](weights, steady)))
    assert float(VARIANTS["v3"](weights, silent)) == 0


# Against LAMP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("density", [0.5, 0.11, 0.02])
@pytest.mark.parametrize("seed", [0, 1])
def test_at_one_step_it_is_lamp_bit_for_bit_whatever_the_leaks(variant, density, seed):
    taus = (2.0, 5.0, 20.0)
    one = fit(SLAMP(density, variant=variant), classifier(taus, 1, seed))
    assert same(one, fit(LAMP(density), classifier(taus, 1, seed)))


@pytest.mark.parametrize("timesteps", [1, 3, 8])
@pytest.mark.parametrize("tau", [1.5, 7.0])
@pytest.mark.parametrize("density", [0.5, 0.05])
def test_with_one_leak_and_no_activity_it_is_lamp_bit_for_bit_at_any_number_of_steps(timesteps, tau, density):
    def module():
        return classifier((tau,) * 3, timesteps)

    assert same(fit(SLAMP(density, variant="v1"), module()), fit(LAMP(density), module()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_layer_whose_membrane_remembers_keeps_more(variant):
    kept = {}
    for taus in ((1.5, 2.0, 2.0), (20.0, 2.0, 2.0)):
        data = Events(8)
        data.x[:] = data.x[:, :1]  # the same at all steps
        kept[taus[0]] = int(masks(fit(SLAMP(0.2, variant=variant), classifier(taus, 8), data))["network.0"].sum())
    assert kept[20.0] > kept[1.5]


def test_absolute_activity_is_not_lamp_even_at_one_step():
    assert not same(fit(SLAMP(0.2, variant="v3"), classifier(timesteps=1)), fit(LAMP(0.2), classifier(timesteps=1)))


def test_a_layer_that_nothing_reaches_still_keeps_a_weight():
    silent = Events(4, rate=0.0)
    found = masks(fit(SLAMP(0.3, variant="v3"), classifier(), silent))
    assert all(mask.any() for mask in found.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_inside_a_layer_the_largest_weights_stay(variant):
    module = classifier((2.0, 4.0, 8.0))
    dense = {name: p.detach().clone() for name, p in module.named_parameters()}
    for name, mask in masks(fit(SLAMP(0.15, variant=variant), module)).items():
        magnitude = dense[f"{name}.weight"].abs()
        assert magnitude[mask].min() > magnitude[~mask].max()


# The bound ------------------------------------------------------------------------------------------------------------

NEURONS = {
    "lif": lambda: neuron.LIFNode(tau=2.0, v_threshold=1e9),
    "lif, slow": lambda: neuron.LIFNode(tau=9.0, v_threshold=1e9),
    "lif, input not decayed": lambda: neuron.LIFNode(tau=2.5, decay_input=False, v_threshold=1e9),
    "plif": lambda: neuron.ParametricLIFNode(init_tau=3.0, v_threshold=1e9),
    "if": lambda: neuron.IFNode(v_threshold=1e9),
    "none": None,
}
MODULES = {
    "conv": lambda: [layer.Conv2d(2, 4, 3, padding=1)],
    "conv, batch norm": lambda: [layer.Conv2d(2, 4, 3, stride=2, bias=False), trained_norm(4)],
    "grouped conv": lambda: [layer.Conv2d(2, 6, 3, groups=2)],
    "linear": lambda: [layer.Flatten(), layer.Linear(72, 5)],
}


def trained_norm(channels: int) -> nn.Module:
    norm = layer.BatchNorm2d(channels)
    for tensor in (norm.running_var, norm.weight.data):
        tensor.uniform_(0.1, 3.0)
    return norm.eval()


@pytest.mark.parametrize("make_neuron", NEURONS.values(), ids=NEURONS)
@pytest.mark.parametrize("make_modules", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize("density", [0.0, 0.5, 0.9])
def test_without_spikes_no_membrane_moves_further_than_the_bound(make_neuron, make_modules, density):
    torch.manual_seed(3)
    net = BatchFirst(*make_modules(), *([make_neuron()] if make_neuron else [])).eval()
    x = Events(6).x
    (entry,) = layers_of(net, x)
    batches = lambda: iter(x.split(5))  # noqa: E731
    (found,) = activities(net, [entry], batches).values()
    before = entry.module.weight.detach().clone()
    with torch.no_grad():
        entry.module.weight.mul_(torch.rand_like(before) < density)
    removed = (before - entry.module.weight.detach()).flatten(1) * entry.batchnorm_factor()[:, None]
    (moved,) = changes(net, [entry], {f"{entry.name}.weight": before}, batches).values()
    assert 0 < moved.potential <= distortion_bound(removed, response_of(entry), found) * (1 + 1e-5)


def test_the_bound_is_reached_where_nothing_can_cancel():
    net = BatchFirst(layer.Linear(1, 1, bias=False), neuron.LIFNode(tau=2.0, v_threshold=1e9))
    x = torch.rand(4, 6, 1)
    (entry,) = layers_of(net, x)
    (found,) = activities(net, [entry], lambda: iter([x])).values()
    before = entry.module.weight.detach().clone()
    with torch.no_grad():
        entry.module.weight.zero_()
    (moved,) = changes(net, [entry], {f"{entry.name}.weight": before}, lambda: iter([x])).values()
    assert moved.potential == pytest.approx(distortion_bound(before, response_of(entry), found), rel=1e-5)


def test_bound_and_measured_change_stand_in_the_record():
    layers = fit(SLAMP(0.3), classifier()).compression.to_dict()["layers"]
    assert json.loads(json.dumps(layers)) == layers
    for entry in layers:
        assert entry["loss"] > 0
        assert entry["change"]["potential"] > 0
        assert 0 < entry["change"]["spikes"] <= 1
    untouched = fit(SLAMP(1.0), classifier()).compression.to_dict()["layers"]
    assert all(entry["loss"] == 0 == entry["change"]["potential"] for entry in untouched)


@pytest.mark.parametrize("budget", [{"density": 0.4}, {"density": 0.4, "bits": 3}])
def test_the_first_layers_bound_holds_through_batch_norm_and_for_rounding_too(budget):
    """The first layer sees what the dense network's saw; where it never fires its bound holds exactly."""
    module = classifier()
    norm = layer.BatchNorm2d(6, step_mode="m")
    norm.weight.data.fill_(50.0)  # far above the slack that the triangle inequality leaves
    module.network.insert(1, norm)
    module.network[2].v_threshold = 1e9
    entry = fit(SLAMP(**budget), module).compression.to_dict()["layers"][0]
    assert 0 < entry["change"]["potential"] <= entry["loss"]


# Refusals -------------------------------------------------------------------------------------------------------------


def test_a_neuron_without_a_leak_to_measure_is_refused_by_name():
    module = classifier()
    module.network[1] = neuron.QIFNode(step_mode="m")
    before = module.network[0].weight.detach().clone()
    with pytest.raises(LayerError, match="'network.0': QIFNode.*'lamp'"):
        fit(SLAMP(0.3), module)
    assert torch.equal(module.network[0].weight, before)


def test_unknown_variant_and_foreign_allocation_are_refused():
    with pytest.raises(OptionError, match="variant is 'v4'"):
        SLAMP(0.1, variant="v4")
    with pytest.raises(OptionError, match="'magnitude' with allocation 'erk'"):
        SLAMP(0.1, allocation="erk")


# SynOps ---------------------------------------------------------------------------------------------------------------


def spent_share(compressor: Compressor) -> float:
    """SynOps of the masks at the dense network's activity, over those of all weights, counted by convolving them."""
    module, data = classifier((2.0, 4.0, 8.0)), Events(4)
    spent = {"kept": 0.0, "all": 0.0}

    def count(target: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        mask = found[target].double()
        events = (inputs[0] != 0).double().flatten(0, 1)
        for name, weight in (("kept", mask), ("all", torch.ones_like(mask))):
            linear = isinstance(target, nn.Linear)
            pairs = nn.functional.linear(events, weight) if linear else nn.functional.conv2d(events, weight, padding=1)
            spent[name] += float(pairs.sum())

    found = {module.get_submodule(name): mask for name, mask in masks(compressor).items()}
    with torch.no_grad(), hooks(list(found), count, before=True):
        module.eval()(data.x)
    return spent["kept"] / spent["all"]


@pytest.mark.parametrize(
    "make",
    [
        *(lambda share, rule=rule: Magnitude(synops=share, allocation=rule) for rule in ALLOCATIONS),
        lambda share: LAMP(synops=share),
        *(lambda share, variant=variant: SLAMP(synops=share, variant=variant) for variant in VARIANTS),
    ],
    ids=[*ALLOCATIONS, "LAMP", *VARIANTS],
)
@pytest.mark.parametrize("share", [0.7, 0.2])
def test_a_synops_budget_is_met_and_used_up(make, share):
    spent = spent_share(fit(make(share), classifier((2.0, 4.0, 8.0))))
    assert share - 0.03 < spent <= share


def test_at_equal_synops_the_score_per_operation_keeps_more_weights_than_the_score():
    module = lambda: classifier((2.0,) * 3)  # noqa: E731
    kept = {method: fit(method(synops=0.2), module()).compression.density for method in (LAMP, SLAMP)}
    assert kept[SLAMP] > kept[LAMP]


def test_a_synops_budget_below_one_weight_a_layer_is_refused():
    with pytest.raises(BudgetError, match="synops 1e-06 cannot be met: one weight a layer already costs"):
        fit(LAMP(synops=1e-6))


@given(factor=st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_a_factor_that_all_layers_share_does_not_even_tie_scores_that_differ_in_the_last_bit(factor):
    for low in torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist():
        small = {"a": low, "b": math.nextafter(low, 1)}
        net = {name: torch.tensor([weight, 1.0], dtype=torch.float64) for name, weight in small.items()}
        assert ALLOCATIONS["lamp"](net, 0.75, factors={"a": factor, "b": factor}) == ALLOCATIONS["lamp"](net, 0.75)


@given(density=st.floats(0.01, 1), factor=st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_only_the_ratios_of_factors_count(density, factor):
    net = {"a": torch.randn(40), "b": torch.randn(300)}
    scaled = {"a": factor, "b": 3 * factor}
    assert ALLOCATIONS["lamp"](net, density, factors=scaled) == ALLOCATIONS["lamp"](
        net, density, factors={"a": 1.0, "b": 3.0}
    )
