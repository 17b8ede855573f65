"""Wanda and RIA against references of a few lines, against magnitude pruning, and against the Hessians."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.classifier import SNNClassifier
from compressors.budget import BudgetError, OptionError
from compressors.calibration.hessians import hessians
from compressors.calibration.norms import input_norms
from compressors.masks import largest, largest_of_groups, largest_of_rows
from compressors.methods.ria import RIA
from compressors.methods.wanda import Wanda
from compressors.network.layers import LayerError
from compressors.network.neurons import membrane_filter
from tests.compressors.networks import RandomEvents, classifier, fit, layers_of

T = 4


def network(*modules: nn.Module) -> SNNClassifier:
    net = nn.Sequential(*modules)
    functional.set_step_mode(net, "m")
    return SNNClassifier(net, classes=5, timesteps=T)


def excitatory(part: nn.Module) -> nn.Module:
    """So that every neuron behind it fires."""
    for parameter in part.parameters():
        parameter.data.abs_()
    return part


def grouped(seed: int = 0) -> SNNClassifier:
    """A convolution of two groups with a stride, and a linear layer that no neuron follows."""
    torch.manual_seed(seed)
    return network(
        excitatory(layer.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)),
        neuron.LIFNode(tau=3.0, v_threshold=0.02),
        layer.Flatten(),
        layer.Linear(6 * 9, 5),
    )


def events(seed: int = 0) -> torch.Tensor:
    return (torch.rand(7, T, 4, 6, 6, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def reference(kind: str, weight: torch.Tensor, norms: torch.Tensor, keep: int) -> torch.Tensor:
    """The kept weights of one group ``[rows, d]`` with input norms ``[d]``, each row its own; ``keep`` of a row."""
    importance = weight.abs()
    if kind == "ria":
        importance = importance / importance.sum(0) + importance / importance.sum(1, keepdim=True)
        norms = norms.sqrt()
    score = importance * norms
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for row, best in enumerate(score.topk(keep, dim=1).indices):
        mask[row, best] = True
    return mask


@pytest.mark.parametrize(("kind", "method"), [("wanda", Wanda), ("ria", RIA)])
@pytest.mark.parametrize("seed", range(3))
def test_each_row_keeps_the_best_of_a_reference_computed_from_inputs(kind, method, seed):
    module, x, inputs = grouped(seed), events(seed), {}
    first, last = (found.module for found in layers_of(module, x))
    for part in (first, last):
        part.register_forward_pre_hook(lambda part, args: inputs.update({part: args[0].flatten(0, 1).double()}))
    with torch.no_grad():
        module.eval()(x)
    patches = F.unfold(inputs[first], 3, padding=1, stride=2).view(-1, 2, 18, 9)
    norms = patches.square().sum((0, 3)).sqrt()
    wanted = [
        torch.cat(
            [reference(kind, first.weight.detach().double().flatten(1)[3 * g : 3 * g + 3], norms[g], 6) for g in (0, 1)]
        ),
        reference(kind, last.weight.detach().double(), inputs[last].square().sum(0).sqrt(), 18),
    ]
    for part in (first, last):
        part._forward_pre_hooks.clear()
    before = [part.weight.detach().clone() for part in (first, last)]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(7)), batch_size=3)
    compressor = method(1 / 3, calibration=loader)
    fit(compressor, module)
    assert all("dead_inputs" not in entry.extra for entry in compressor.compression.layers)
    for entry, mask, weight, part in zip(compressor.compression.layers, wanted, before, (first, last), strict=True):
        assert torch.equal(entry.mask.flatten(1), mask)
        assert torch.equal(part.weight, weight * mask.view_as(weight)), "what is left is not updated"


@given(rows=st.integers(1, 7), columns=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=40, deadline=None)
def test_rows_share_the_weights_evenly_and_the_total_is_exact(rows, columns, seed, data):
    keep = data.draw(st.integers(0, rows * columns))
    scores = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = largest_of_rows(scores, keep)
    kept = mask.sum(1)
    assert int(kept.sum()) == keep
    assert int(kept.max() - kept.min()) <= 1
    for row, chosen, count in zip(scores, mask, kept.tolist(), strict=True):
        assert sorted(row[chosen].tolist()) == sorted(row.tolist())[columns - count :]
    richer = kept > kept.min()
    if richer.any() and not richer.all():
        following = scores.sort(1, descending=True).values[:, int(kept.min())]
        assert following[richer].min() >= following[~richer].max()


@given(
    rows=st.integers(1, 4), columns=st.integers(1, 11), of=st.integers(2, 5), seed=st.integers(0, 99), data=st.data()
)
@settings(max_examples=40, deadline=None)
def test_of_every_group_of_neighbours_the_best_stay(rows, columns, of, seed, data):
    kept = data.draw(st.integers(1, of - 1))
    scores = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = largest_of_groups(kept, of, scores)
    for row, chosen in zip(scores, mask, strict=True):
        for group, own in zip(row.split(of), chosen.split(of), strict=True):
            assert set(group[own].tolist()) == set(group.topk(min(kept, len(group))).values.tolist())


@pytest.mark.parametrize("rivals", ["row", "layer"])
def test_where_all_norms_are_equal_it_is_magnitude_pruning(rivals):
    module = classifier()
    for found in layers_of(module, RandomEvents().x):
        norms = torch.full((found.groups, found.rows.shape[1]), 0.7, dtype=torch.float64)
        keep = found.rows.numel() // 3
        _, mask, _ = Wanda(0.5, rivals=rivals).prune(found, keep, norms)
        magnitude = found.rows.abs()
        if rivals == "layer":
            assert torch.equal(mask, magnitude >= magnitude.flatten().topk(keep).values.min())
        else:
            each = keep // len(magnitude)
            assert ((mask.sum(1) == each) | (mask.sum(1) == each + 1)).all()
            assert all(own[chosen].min() >= own[~chosen].max() for own, chosen in zip(magnitude, mask, strict=True))


@pytest.mark.parametrize("filtered", [False, True])
def test_the_norms_are_the_diagonals_of_the_hessians(filtered):
    module, x = grouped(), events()
    layers = layers_of(module, x)
    responses = {found.name: membrane_filter(found) if filtered else None for found in layers}

    def batches():
        return iter(x.split(3))

    norms = input_norms(module, layers, responses, batches)
    for name, hessian in hessians(module, layers, responses, batches).items():
        torch.testing.assert_close(norms[name], (hessian.diagonal(dim1=1, dim2=2) / 2).sqrt())


def test_membranes_change_the_choice_and_a_layer_without_neuron_is_named():
    plain, membrane = Wanda(0.3), Wanda(0.3, inputs="membrane")
    fit(plain)
    fit(membrane)
    assert [entry.extra["inputs"] for entry in plain.compression.layers] == ["input current"] * 3
    told = [entry.extra["inputs"] for entry in membrane.compression.layers]
    assert told == ["membrane potential", "membrane potential", "input current"]
    differ = [
        not torch.equal(a.mask, b.mask)
        for a, b in zip(plain.compression.layers, membrane.compression.layers, strict=True)
    ]
    assert any(differ[:2])


def test_silent_inputs_are_named_and_their_weights_go_first():
    data = RandomEvents()
    data.x[:, :, 1] = 0  # the second input channel never fires
    compressor = Wanda(0.5)
    fit(compressor, data=data)
    first = compressor.compression.layers[0]
    assert first.extra["dead_inputs"] == 9
    assert first.mask[:, 0].all()
    assert not first.mask[:, 1].any()


def test_among_silent_inputs_the_largest_weights_stay():
    for found in layers_of(classifier(), RandomEvents().x):
        silent = torch.zeros(found.groups, found.rows.shape[1], dtype=torch.float64)
        for method in (Wanda, RIA):
            scores = method().prune(found, found.rows.numel() // 2, silent)[1]
            even = method().prune(found, found.rows.numel() // 2, torch.ones_like(silent))[1]
            assert torch.equal(scores, even)


@pytest.mark.parametrize("method", [Wanda, RIA])
def test_two_of_four_neighbouring_channels_stay_at_each_tap(method):
    torch.manual_seed(0)
    module = network(layer.Conv2d(8, 6, 3), neuron.LIFNode(), layer.Flatten(), layer.Linear(6 * 16, 5))
    x = (torch.rand(5, T, 8, 6, 6) < 0.3).float()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(5)))
    compressor = method(pattern="2:4", calibration=loader)
    fit(compressor, module)
    convolution, linear = (entry.mask for entry in compressor.compression.layers)
    assert (convolution.view(6, 2, 4, 9).sum(2) == 2).all()
    assert (linear.view(5, -1, 4).sum(2) == 2).all()
    assert compressor.density == compressor.compression.density == 0.5


def test_ria_spares_rows_that_are_weak_as_a_whole_and_does_not_see_the_scale_of_a_layer():
    weight = torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    weight[:, 2] *= 1e-6
    norms = torch.ones(1, 1, 8, dtype=torch.float64)
    kept = {method: largest(method().scores(weight, norms)[0], 40) for method in (Wanda, RIA)}
    assert not kept[Wanda][2].any()
    assert kept[RIA][2].any()
    torch.testing.assert_close(RIA().scores(7.0 * weight, norms), RIA().scores(weight, norms))
    torch.testing.assert_close(RIA(power=0.0).scores(weight, 3.0 * norms), RIA().scores(weight, norms))
    assert torch.isfinite(RIA().scores(torch.zeros_like(weight), norms)).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inputs": "filtered"}, OptionError, "inputs is 'filtered'"),
        ({"rivals": "rows"}, OptionError, "rivals is 'rows': did you mean 'row'"),
        ({"pattern": "block4"}, OptionError, "Wanda scores single weights"),
        ({"pattern": "2:4", "density": 0.3}, BudgetError, "2:4 keeps 0.5 of the weights"),
        ({"pattern": "2:4", "schedule": 0.7}, BudgetError, "2:4 fixes the density"),
        ({"pattern": "2:4", "rivals": "layer"}, OptionError, "2:4 says which weights compete"),
        ({"pattern": "2:4", "allocation": "erk"}, OptionError, "2:4 says which weights compete"),
    ],
)
def test_options_that_contradict_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Wanda(**options)


def test_a_neuron_without_a_filter_is_refused_for_membranes_only():
    module = classifier()
    module.network[2] = neuron.QIFNode()
    functional.set_step_mode(module.network, "m")
    fit(Wanda(0.5), module)
    with pytest.raises(LayerError, match="'network.0': the neuron QIFNode is not a linear filter"):
        fit(Wanda(0.5, inputs="membrane"), module)
