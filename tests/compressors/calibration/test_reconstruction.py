"""What is left of a network learns, without a label, to act as the dense one did."""

from copy import deepcopy
from statistics import mean

import pytest
import torch
from torch.utils.data import DataLoader

from compressors.calibration import reconstruction
from compressors.calibration.reconstruction import Teacher
from compressors.network.neurons import impulse_response
from compressors.registry import COMPRESSORS
from tests.compressors.networks import RandomEvents, T, classifier, fit, weights

CARE = ("reconstruct",)
BUDGETS = {
    "magnitude": {"density": 0.3},
    "sbc": {"density": 0.4, "bits": 3},
    "rtn": {"bits": 3},
    "qpsnn": {"density": 0.6},
}


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 40)
    monkeypatch.setattr(reconstruction, "LOOK_EVERY", 10)


def compressed(name, aftercare=CARE, events=None):
    compressor = COMPRESSORS[name].load()(**BUDGETS[name], aftercare=aftercare)
    module = fit(compressor, classifier(), **({} if events is None else {"data": events}))
    return module, compressor


def assert_same(one, other):
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.mark.parametrize("name", BUDGETS)
def test_masks_and_grids_hold_and_the_distance_falls(name):
    module, compressor = compressed(name)
    account = compressor.compression
    for layer in account.layers:
        weight = module.get_parameter(f"{layer.name}.weight").detach()
        assert not weight[~layer.mask].any()
        assert layer.grid is None or torch.equal(weight, layer.weight())
    (stage,) = account.stages
    assert account.aftercare == {"reconstruct": [layer.name for layer in account.layers]}
    before, after = (stage[when]["output"] + mean(stage[when]["spikes"]) for when in ("before", "after"))
    assert (after < before) == (stage["steps"] > 0)
    assert stage["steps"] > 0 or name not in ("magnitude", "rtn"), "elsewhere so few steps may find nothing"


@pytest.mark.parametrize("name", BUDGETS)
def test_without_steps_nothing_changes_to_the_bit(name, monkeypatch):
    monkeypatch.setattr(reconstruction, "LEARNING_RATES", ())
    module, compressor = compressed(name)
    plain, _ = compressed(name, aftercare=())
    assert_same(module, plain)
    assert compressor.compression.stages[0]["steps"] == 0


def test_what_makes_it_worse_is_not_kept(monkeypatch):
    monkeypatch.setattr(reconstruction, "LEARNING_RATES", (1e6,))
    module, compressor = compressed("magnitude")
    plain, _ = compressed("magnitude", aftercare=())
    assert compressor.compression.stages[0]["steps"] == 0
    assert_same(module, plain)


def test_a_frozen_network_learns_too_and_stays_frozen():
    plain, _ = compressed("magnitude")
    compressor = COMPRESSORS["magnitude"].load()(**BUDGETS["magnitude"], aftercare=CARE)
    frozen = fit(compressor, classifier().requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert_same(plain, frozen)


class OtherLabels(RandomEvents):
    """The same events with labels that mean nothing."""

    def calibration_dataloader(self):
        labels = torch.randint(3, (len(self.x),), generator=torch.Generator().manual_seed(7))
        return DataLoader([*zip(self.x, labels, strict=True)], batch_size=4)


class SameLabels(RandomEvents):
    """The same events in the same batches with labels that are all one."""

    def calibration_dataloader(self):
        return DataLoader([(x, 0) for x in self.x], batch_size=4)


def test_labels_take_no_part():
    one, _ = compressed("magnitude", events=SameLabels())
    other, _ = compressed("magnitude", events=OtherLabels())
    assert_same(one, other)


def test_the_distance_is_that_of_its_formula():
    """Kullback-Leibler divergence of sharpened scores, and van Rossum distances relative to the dense energy."""
    dense, events = classifier().eval(), RandomEvents()
    pruned = deepcopy(dense)
    with torch.no_grad():
        for layer in (0, 5, 7):
            pruned.network[layer].weight[::2] = 0
    network, accounts = opened(pruned, events)
    pupil = reconstruction._Pupil(network, accounts, Teacher(dense).module, events.x)
    distance = pupil._held_out(events.x)

    def observed(module):
        spikes = {}
        nodes = [node for node in module.network if hasattr(node, "v_threshold")]
        handles = [node.register_forward_hook(lambda n, i, out: spikes.__setitem__(n, out)) for node in nodes]
        with torch.no_grad():
            scores = module(events.x)
        for handle in handles:
            handle.remove()
        return scores, [spikes[node] for node in nodes], nodes

    wanted, trains, nodes = observed(dense)
    scores, own, _ = observed(pruned)
    p, q = ((values / wanted.std()).softmax(1) for values in (wanted, scores))
    torch.testing.assert_close(distance.output, (p * (p / q).log()).sum(1).mean())
    for place, (a, b, node) in enumerate(zip(own, trains, nodes, strict=True)):
        response = impulse_response(node, T).float()
        filtered = [
            sum(response[t - s] * train[s] for s in range(t + 1)).flatten() for train in (a - b, b) for t in range(T)
        ]
        error, energy = (torch.cat(part).square().sum() for part in (filtered[:T], filtered[T:]))
        torch.testing.assert_close(distance.spikes[place], error / energy)


def test_a_network_that_can_be_as_the_dense_one_comes_near_it(monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 300)
    monkeypatch.setattr(reconstruction, "PATIENCE", 30)
    dense, events = classifier().eval(), RandomEvents(100)
    moved = deepcopy(dense)
    with torch.no_grad():
        moved.network[0].weight.mul_(0.5)
        moved.network[5].weight[3:] = 0
    network, accounts = opened(moved, events)
    reached = Teacher(dense).reconstruct(network, accounts)
    assert reached.after.total < 0.6 * reached.before.total


def opened(module, events):
    """The network as compressors see it, and the account of nothing done to it."""
    from compressors.calibration.network import open_network
    from compressors.compression import LayerCompression

    batches = [(events.x, None)]
    network = open_network(module, batches, ("*",), (), lambda items, text: items, "looking")
    whole = [
        LayerCompression(layer.name, tuple(layer.module.weight.shape), torch.ones_like(layer.module.weight).bool())
        for layer in network.layers
    ]
    return network, whole
