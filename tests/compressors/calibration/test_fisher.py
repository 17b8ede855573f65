"""The Hessian that knows the loss, against gradients taken another way and sums written out."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import nn

from compressors import OBC, SBC
from compressors.budget import OptionError
from compressors.calibration import fisher
from compressors.calibration.fisher import fisher_hessians, groups_of
from compressors.calibration.hessians import CalibrationError, hessians, vectors
from compressors.network.layers import find_layers
from tests.compressors.calibration.test_passes import InPlace, Looped, ShownByHand, T, Whole, events
from tests.compressors.networks import BatchFirst, RandomEvents, classifier, fit


class MeanOverTime(BatchFirst):
    """Scores ``[B, K]`` of a time-major network."""

    def forward(self, x):
        return super().forward(x).mean(0)


def drawn_labels(scores, number=0):
    """The labels that a batch of so many samples gets."""
    return torch.multinomial(scores.softmax(1), 1, generator=torch.Generator().manual_seed(number))[:, 0]


@pytest.mark.parametrize("method", [OBC, SBC])
def test_it_is_the_sum_over_inputs_weighed_by_squared_gradients_of_their_group(method):
    """Gradients by torch's own hooks for them, sums over single vectors."""
    data, module = RandomEvents(8), classifier().eval()
    layers = find_layers(module, lambda: module(data.x[:1]))
    responses = {found.name: method().response(found) for found in layers}
    found = fisher_hessians(module, layers, responses, lambda: iter([data.x]))

    inputs, gradients = {}, {}
    for each in layers:
        each.module.register_forward_hook(lambda m, i, o: inputs.__setitem__(m, i[0].detach()))
        each.module.register_full_backward_hook(lambda m, i, o: gradients.__setitem__(m, o[0]))
    functional.reset_net(module)
    scores = module(data.x.requires_grad_(True))
    scores = scores / scores.detach().std(correction=0)
    nn.functional.cross_entropy(scores, drawn_labels(scores.detach()), reduction="sum").backward()

    for each in layers:
        groups = groups_of(each)
        squares = gradients[each.module].double().flatten(0, 1).square()
        squares = squares.flatten(2) if squares.dim() > 2 else squares[:, :, None]
        weights = squares.unflatten(1, (groups, -1)).mean(2).permute(1, 0, 2).flatten(1)
        z = torch.cat([*vectors(each, inputs[each.module].double(), responses[each.name])], dim=1)[0]
        assert groups > 1
        for group in range(groups):
            expected = 2 * sum(w * torch.outer(v, v) for w, v in zip(weights[group], z, strict=True)) / len(data.x)
            torch.testing.assert_close(found[each.name][group], expected, rtol=1e-4, atol=1e-9)


def test_where_every_error_costs_the_same_it_is_the_layers_own(monkeypatch):
    """A loss whose gradient is the same at every output and step."""
    monkeypatch.setattr(fisher.F, "cross_entropy", lambda scores, labels, reduction: scores.sum())
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(2), layer.Linear(72, 8, bias=False))
    module, data = MeanOverTime(linear), RandomEvents()
    layers = find_layers(module, lambda: module(data.x[:1]))
    none = {found.name: None for found in layers}
    [weighed] = fisher_hessians(module, layers, none, lambda: iter(data.x.split(3))).values()
    [plain] = hessians(module, layers, none, lambda: iter(data.x.split(3))).values()
    for group in weighed:
        torch.testing.assert_close(group / group.trace(), plain[0] / plain[0].trace())


def test_batches_and_parts_of_the_network_change_nothing_but_the_labels_drawn(monkeypatch):
    data, module = RandomEvents(12), classifier().eval()
    layers = find_layers(module, lambda: module(data.x[:1]))
    responses = {found.name: SBC().response(found) for found in layers}
    whole = fisher_hessians(module, layers, responses, lambda: iter([data.x]))
    monkeypatch.setattr(fisher, "BATCH", 5)
    in_parts = fisher_hessians(module, layers, responses, lambda: iter([data.x]))
    alone = fisher_hessians(module, layers[1:2], responses, lambda: iter([data.x]))
    for name, hessian in whole.items():
        torch.testing.assert_close(in_parts[name], hessian, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(alone[layers[1].name], in_parts[layers[1].name])


def test_labels_of_the_data_take_no_part_and_little_memory_changes_nothing():
    one, other = (fit(SBC(0.3, hessian="fisher", max_memory=limit)) for limit in (2**33, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    plain = fit(SBC(0.3))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), plain.parameters(), strict=True))


def test_the_account_says_so_and_splits_by_loss_are_possible():
    compressor = SBC(0.3, hessian="fisher", allocation="loss", bits=4)
    fit(compressor)
    assert {entry.extra["weighed"] for entry in compressor.compression.layers} == {"by the Fisher information"}
    assert compressor.compression.density == pytest.approx(0.3, abs=0.01)


def test_what_contradicts_itself_is_refused():
    with pytest.raises(OptionError, match="propagate aims at the layer's own output: take propagate False with"):
        SBC(0.3, hessian="fisher", propagate=True)
    with pytest.raises(OptionError, match="hessian is 'newton': give 'layer' or 'fisher'"):
        SBC(0.3, hessian="newton")
    module = classifier()
    layers = find_layers(module, lambda: module(RandomEvents().x[:1]))
    with pytest.raises(CalibrationError, match="empty"):
        fisher_hessians(module, layers, {found.name: None for found in layers}, lambda: iter([]))


@pytest.mark.parametrize("kind", [Looped, InPlace])
def test_it_is_the_same_however_the_network_hands_its_inputs_on(kind):
    x, found = events(), {}
    for net in (Whole(), kind()):
        module = MeanOverTime(net)
        layers = find_layers(module, lambda module=module: module(x))
        responses = {each.name: SBC().response(each) for each in layers}
        found[type(net)] = fisher_hessians(module, layers, responses, lambda: iter(x.split(2)))
    for name, hessian in found[Whole].items():
        torch.testing.assert_close(found[kind][name], hessian, rtol=1e-4, atol=1e-9)
        assert hessian.abs().max() > 0


def test_an_image_that_the_network_repeats_by_itself_is_seen_at_every_step():
    x = torch.rand(4, 1, 6).expand(4, T, 6).contiguous()
    module = BatchFirst(ShownByHand())
    module.forward = lambda batch: BatchFirst.forward(module, batch)[0]
    layers = find_layers(module, lambda: module(x))
    assert layers[0].repeated
    found = fisher_hessians(module, layers, {each.name: None for each in layers}, lambda: iter([x]))
    assert torch.linalg.matrix_rank(found["net.0.first"][0]) == 4, "one vector for each image"
