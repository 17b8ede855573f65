"""What is left of a network learns, without a label, to act as the dense one did."""

from copy import deepcopy
from dataclasses import replace
from statistics import mean

import pytest
import torch
from torch.utils.data import DataLoader

from compressors.budget import BudgetError, OptionError
from compressors.calibration import reconstruction
from compressors.calibration.augmentation import AUGMENTATIONS, augmented
from compressors.calibration.held_out import HELD_OUT
from compressors.calibration.hessians import CalibrationError
from compressors.calibration.reconstruction import Course, Distance, Reached, Teacher
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


def compressed(name, aftercare=CARE, events=None, **options):
    if aftercare == CARE:
        options = {"reconstruction_steps": 40} | options
    compressor = COMPRESSORS[name].load()(**BUDGETS[name], aftercare=aftercare, **options)
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


class OthersHeldOut(RandomEvents):
    """The same events but for every fifth, which is silent."""

    def __init__(self):
        super().__init__()
        self.x[HELD_OUT - 1 :: HELD_OUT] = 0


@pytest.mark.parametrize("care", ["batchnorm", "means", "scales"])
@pytest.mark.parametrize("name", ["sbc", "mimic"])
def test_nothing_is_fitted_to_the_samples_that_learning_is_judged_by(name, care, monkeypatch):
    rehearsed, reconstruct = [], Teacher.reconstruct

    def watched(teacher, network, accounts, course):
        rehearsed.append(weights(network.module))
        return reconstruct(teacher, network, accounts, course)

    monkeypatch.setattr(Teacher, "reconstruct", watched)
    for events in (RandomEvents(), OthersHeldOut()):
        options = {"reconstruction_steps": 16, "aftercare": (care, "reconstruct")}
        fit(COMPRESSORS[name].load()(0.4, **options), classifier(), data=events)
    one, other = rehearsed
    for layer, value in one.items():
        assert torch.equal(value, other[layer]), layer


def test_what_was_found_on_a_part_is_done_with_all_samples(monkeypatch):
    """The network learns from all samples, for as many steps and at the rate that were best on a part of them."""
    monkeypatch.setattr(reconstruction, "LEARNING_RATES", (0.1,))
    seen, repeat = [], Teacher.repeat

    def watched(teacher, reached, network, accounts, course):
        before = [parameter.clone() for parameter in network.module.parameters()]
        seen.append((reached, sum(map(len, network.calibration()))))
        accounts = repeat(teacher, reached, network, accounts, course)
        moved = [not torch.equal(*pair) for pair in zip(before, network.module.parameters(), strict=True)]
        seen.append(any(moved))
        return accounts

    monkeypatch.setattr(Teacher, "repeat", watched)
    _, compressor = compressed("magnitude")
    (reached, samples), moved = seen
    assert samples == len(RandomEvents().x)
    assert moved
    assert reached.steps > 0
    assert compressor.compression.stages == (reached.to_dict(),)


def test_progress_says_what_is_only_rehearsed():
    texts = []
    compressor = COMPRESSORS["sbc"].load()(**BUDGETS["sbc"], aftercare=CARE, reconstruction_steps=8)
    compressor.state.track = lambda items, text: texts.append(text) or items
    fit(compressor, classifier())
    rehearsed = [text.removeprefix("rehearsal: ") for text in texts if text.startswith("rehearsal: ")]
    done = [text for text in texts if not text.startswith("rehearsal: ")]
    cut = [text for text in done if "reconstructing" not in text]
    assert cut
    assert [text for text in rehearsed if "reconstructing" not in text] == cut


LAST = [0, 0, 0, 0, 0, 0, 0, 1]
EVERY = [1 / 8] * 8
EVERY_OTHER_HALF = [1 / 128, 1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2]


@pytest.mark.parametrize(("share", "weights"), [(0, LAST), (1, EVERY), (1 / 4, EVERY_OTHER_HALF)])
def test_what_is_kept_is_a_mean_of_the_last_steps(share, weights, monkeypatch):
    monkeypatch.setattr(reconstruction, "AVERAGED", share)
    module, visited = classifier().eval(), []
    network, accounts = opened(module, RandomEvents())
    network = replace(network, note=lambda figures: visited.append([*map(torch.clone, module.parameters())]))
    nowhere = Distance(torch.zeros(()), torch.zeros(0))
    with torch.no_grad():
        module.network[0].weight.mul_(0.9)
    Teacher(classifier()).repeat(Reached(0.1, 8, nowhere, nowhere), network, accounts, Course(8))
    for kept, *values in zip(module.parameters(), *visited, strict=True):
        expected = sum(weight * value for weight, value in zip(weights, values, strict=True))
        torch.testing.assert_close(kept, expected, rtol=1e-5, atol=1e-6)


def test_what_makes_it_worse_is_not_kept(monkeypatch):
    monkeypatch.setattr(reconstruction, "LEARNING_RATES", (1e6,))
    module, compressor = compressed("magnitude")
    plain, _ = compressed("magnitude", aftercare=())
    assert compressor.compression.stages[0]["steps"] == 0
    assert_same(module, plain)


def test_the_start_that_is_ahead_goes_on_as_if_it_were_alone(monkeypatch):
    """Whichever comes first, and whatever the others led to: nothing of them is left."""
    results = {}
    for rates in [(0.1,), (0.1, 1e6), (1e6, 0.1), (1e30, 0.1)]:
        monkeypatch.setattr(reconstruction, "LEARNING_RATES", rates)
        results[rates], compressor = compressed("magnitude")
        assert compressor.compression.stages[0]["learning_rate"] == 0.1
    alone, *beside = results.values()
    for other in beside:
        assert_same(alone, other)


def test_scales_of_grids_are_learnt_with_the_weights(monkeypatch):
    scales = {}
    for share in (0.0, reconstruction.STEP_SHARE):
        monkeypatch.setattr(reconstruction, "STEP_SHARE", share)
        _, compressor = compressed("rtn")
        assert compressor.compression.stages[0]["steps"] > 0
        scales[share] = [layer.grid.scale for layer in compressor.compression.layers]
    assert not any(torch.equal(one, other) for one, other in zip(*scales.values(), strict=True))


def test_a_frozen_network_learns_too_and_stays_frozen():
    plain, _ = compressed("magnitude")
    compressor = COMPRESSORS["magnitude"].load()(**BUDGETS["magnitude"], aftercare=CARE, reconstruction_steps=40)
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
    monkeypatch.setattr(reconstruction, "PATIENCE", 30)
    dense, events = classifier().eval(), RandomEvents(100)
    moved = deepcopy(dense)
    with torch.no_grad():
        moved.network[0].weight.mul_(0.5)
        moved.network[5].weight[3:] = 0
    network, accounts = opened(moved, events)
    reached = Teacher(dense).reconstruct(network, accounts, Course(300))
    assert reached.after.total < 0.6 * reached.before.total


def test_where_memory_is_short_samples_go_through_in_parts_to_the_same_end(monkeypatch):
    """The gradient of a step is a mean over its samples, however many the network sees at once."""
    dense, events, learnt, seen = classifier().eval(), RandomEvents(12), {}, {}
    run = reconstruction.run
    for room in (reconstruction.MEMORY_BYTES, 1):
        monkeypatch.setattr(reconstruction, "MEMORY_BYTES", room)
        sizes = seen[room] = []

        def watched(module, x, neurons, sizes=sizes):
            sizes.append(len(x))
            return run(module, x, neurons)

        monkeypatch.setattr(reconstruction, "run", watched)
        moved = deepcopy(dense)
        with torch.no_grad():
            moved.network[0].weight.mul_(0.5)
        network, accounts = opened(moved, events)
        Teacher(dense).reconstruct(network, accounts, Course(8, starts=1))
        learnt[room] = weights(moved)
    whole, one = seen
    assert (max(seen[whole]), max(seen[one])) == (10, 1)
    assert not torch.equal(learnt[whole]["0.weight"], 0.5 * weights(dense)["0.weight"])
    for name, value in learnt[whole].items():
        torch.testing.assert_close(learnt[one][name], value, atol=1e-4, rtol=1e-4)


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


# Rounds, augmentation, further samples ------------------------------------------------------------------------------


def test_rounds_without_epochs_are_cut_and_learnt_one_after_the_other():
    module, compressor = compressed("magnitude", schedule=(0.7, 0.5))
    account = compressor.compression
    assert account.density == pytest.approx(0.3, abs=0.01)
    assert [stage["stage"] for stage in account.stages] == ["reconstruct"] * 3
    assert all(stage["steps"] <= 40 // 3 for stage in account.stages[:2])
    for layer in account.layers:
        assert not module.get_parameter(f"{layer.name}.weight").detach()[~layer.mask].any()


def test_what_a_round_cut_stays_away_and_the_last_is_held_against_the_dense_network(monkeypatch):
    """With nothing learnt, rounds are those cuts alone; the distance of the last is that to the network at first."""
    monkeypatch.setattr(reconstruction, "LEARNING_RATES", ())
    by_rounds, compressor = compressed("magnitude", schedule=(0.6, 0.45))
    at_once, plain = compressed("magnitude")
    assert_same(by_rounds, at_once)
    assert compressor.compression.stages[-1] == plain.compression.stages[0]


def test_without_reconstruction_rounds_need_epochs():
    with pytest.raises(BudgetError, match="or let aftercare 'reconstruct' follow each"):
        compressed("magnitude", aftercare=(), schedule=(0.6, 0.45))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmented_samples_are_the_old_ones_moved_or_mirrored(name):
    x = torch.arange(1.0, 1 + 6 * 2 * 3 * 32 * 32).view(6, 2, 3, 32, 32)
    one, again, other = (augmented(x, (name,), seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    kinds = set()
    for before, after in zip(x, one, strict=True):
        found = [kind for kind, moved in every_way(before).items() if torch.equal(moved, after)]
        assert len(found) == 1
        kinds |= {*found}
    assert len(kinds) > 1, "each sample is changed in its own way"
    assert all((kind in ("as it was", "mirrored")) == (name == "flip") or kind == "as it was" for kind in kinds)


def every_way(sample):
    """A sample mirrored, and shifted by up to two pixels each way."""
    ways = {"mirrored": sample.flip(-1), "as it was": sample}
    padded = torch.nn.functional.pad(sample, (2, 2, 2, 2))
    for dy in range(5):
        for dx in range(5):
            if (dy, dx) != (2, 2):
                ways[dy - 2, dx - 2] = padded[..., dy : dy + 32, dx : dx + 32]
    return ways


def test_no_augmentation_leaves_the_batch_alone_and_vectors_are_refused():
    x = torch.rand(4, 5, 6)
    assert augmented(x, (), 0) is x
    with pytest.raises(CalibrationError, match=r"leave it out for inputs \[4, 5, 6\]"):
        augmented(x, ("shift",), 0)


def test_augmentation_changes_what_is_learnt_and_the_same_seed_gives_the_same_bits():
    plain, (one, _), (again, _) = compressed("magnitude")[0], *(compressed("magnitude", augment="flip") for _ in "ab")
    assert_same(one, again)
    assert any(not torch.equal(value, weights(plain)[name]) for name, value in weights(one).items())


class Growing(RandomEvents):
    """Gives as many calibration samples as are asked for."""

    def calibration_dataloader(self, samples=None):
        return DataLoader(torch.utils.data.TensorDataset(self.x[: samples or 6], self.y[: samples or 6]), batch_size=4)


class Fifteen(Growing):
    """Has so many for everybody."""

    def calibration_dataloader(self, samples=15):
        return super().calibration_dataloader(samples)


@pytest.mark.parametrize(("name", "care"), [("sbc", ()), ("sbc", CARE), ("magnitude", CARE)])
def test_unlabelled_samples_take_the_place_of_the_calibration_samples(name, care):
    asked, _ = compressed(name, events=Growing(20), unlabelled=15, aftercare=care)
    had, _ = compressed(name, events=Fifteen(20), aftercare=care)
    fewer, _ = compressed(name, events=Growing(20), aftercare=care)
    assert_same(asked, had)
    assert any(not torch.equal(value, weights(fewer)[layer]) for layer, value in weights(asked).items())


def test_unlabelled_samples_need_a_data_module_that_has_them():
    with pytest.raises(CalibrationError, match="unlabelled=15 asks the data module for so many training samples"):
        compressed("magnitude", unlabelled=15)


@pytest.mark.parametrize("option", [{"reconstruction_steps": 3}, {"augment": "shift"}])
def test_options_of_reconstruction_without_it_are_refused(option):
    with pytest.raises(OptionError, match=f"{next(iter(option))} is for aftercare 'reconstruct'"):
        compressed("magnitude", aftercare=("means",), **option)


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(OptionError, match="unknown augment blur: known: shift, flip"):
        compressed("magnitude", augment="blur")
