"""The lottery: rounds share the fit, go back to the early state to the bit, and can be resumed anywhere."""

from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from benchmark.networks.optimization import Optimization
from compressors.budget import BudgetError, OptionError
from compressors.methods.lottery import Lottery
from compressors.methods.magnitude import Magnitude
from tests.compressors.networks import QUIET, RandomEvents, classifier, weights

LAYERS = ("network.0", "network.5", "network.7")
OPTIMIZERS = {
    "sgd": Optimization("sgd", learning_rate=0.1, weight_decay=1e-3),
    "adam": Optimization("adam", learning_rate=1e-2, warmup_epochs=1),
}


class Watch(Callback):
    """What every epoch begins and ends with; listed after the compressor."""

    def __init__(self, compressor):
        self.compressor, self.begin, self.end, self.masks, self.rates, self.memory = compressor, [], [], [], [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.begin.append(weights(pl_module))
        self.masks.append(self.compressor.compression.masks())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        memory = trainer.optimizers[0].state_dict()["state"]
        self.memory.append({i: {k: torch.as_tensor(v).clone() for k, v in s.items()} for i, s in memory.items()})

    def on_train_epoch_end(self, trainer, pl_module):
        self.end.append(weights(pl_module))


def fit(compressor, epochs, callbacks=(), module=None, optimizer="sgd", trainer=None, **resume):
    module = module or classifier()
    module.optimization = OPTIMIZERS[optimizer]
    runner = Trainer(max_epochs=epochs, callbacks=[compressor, *callbacks], **QUIET | (trainer or {}))
    runner.fit(module, datamodule=RandomEvents(), **resume)
    assert runner.max_epochs == epochs
    assert runner.current_epoch == epochs
    return module


def watched(compressor, epochs, **options):
    watch = Watch(compressor)
    return watch, fit(compressor, epochs, [watch], **options)


def density(masks):
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


@pytest.mark.parametrize(("weights_option", "optimizer"), [("kept", "adam"), ("new", "sgd")])
@pytest.mark.parametrize("rewind", [0, 1, 2])
def test_each_round_begins_with_the_early_state_to_the_bit(optimizer, weights_option, rewind):
    compressor = Lottery(0.3, schedule=[0.7, 0.5, 0.3], rewind_epoch=rewind, weights=weights_option)
    watch, _ = watched(compressor, 10, optimizer=optimizer)
    starts = compressor.beginnings[1:]
    assert len(starts) == (2 if weights_option == "kept" else 3)
    early = watch.begin[rewind]
    for start in starts:
        for name, value in watch.begin[start].items():
            mask = watch.masks[start].get(f"network.{name.removesuffix('.weight')}")
            assert torch.equal(value, early[name] if mask is None else early[name] * mask), name
        assert watch.rates[start] == watch.rates[rewind]
        for index, state in watch.memory[start].items():
            for key, value in state.items():
                kept = watch.memory[rewind][index][key]
                assert torch.equal(value[value != 0], kept[value != 0])
        assert not all(torch.equal(watch.end[start - 1][f"{n[8:]}.weight"], early[f"{n[8:]}.weight"]) for n in LAYERS)


def test_each_cut_takes_the_smallest_weights_of_the_whole_network_as_trained():
    compressor = Lottery(0.3, schedule=[0.7, 0.5, 0.3], rewind_epoch=1)
    watch, _ = watched(compressor, 7)
    for start in compressor.beginnings[1:]:
        left, gone = [], []
        for name in LAYERS:
            trained, mask = watch.end[start - 1][f"{name[8:]}.weight"].abs(), watch.masks[start][name]
            left.append(trained[mask].sort().values[:-1])  # the largest of a layer stays whatever it is
            gone.append(trained[~mask])
        assert torch.cat(left).min() >= torch.cat(gone).max()
    for before, after in pairwise(watch.masks):
        assert not any((after[name] & ~before[name]).any() for name in LAYERS)


@pytest.mark.parametrize(
    ("epochs", "rewind", "new", "expected"),
    [
        (10, 1, False, [0, 4, 7]),
        (9, 0, False, [0, 3, 6]),
        (4, 1, False, [0, 2, 3]),
        (11, 2, False, [0, 5, 8]),
        (9, 1, True, [0, 3, 5, 7]),
    ],
)
def test_rounds_share_the_epochs_that_are_not_rewound_over(epochs, rewind, new, expected):
    """Every round has at most one epoch more than another, the last the most; the first has those before rewinding."""
    compressor = Lottery(0.3, schedule=[0.7, 0.5, 0.3], rewind_epoch=rewind, weights="new" if new else "kept")
    watch, _ = watched(compressor, epochs)
    assert compressor.beginnings == expected
    falling = [1.0, 0.7, 0.5, 0.3] if new else [0.7, 0.5, 0.3]
    wanted = [falling[sum(start <= epoch for start in expected) - 1] for epoch in range(epochs)]
    assert [density(masks) for masks in watch.masks] == pytest.approx(wanted, abs=0.01)
    stages = compressor.compression.to_dict()["stages"]
    assert [stage["epochs"] for stage in stages] == [*expected[1:], epochs]
    assert [stage["density"] for stage in stages] == pytest.approx(falling, abs=0.01)


def test_the_learning_rate_runs_its_whole_course_in_every_round():
    """A cosine over one training of 4 epochs, of which rounds after the first begin with the second."""
    compressor = Lottery(0.3, schedule=[0.7, 0.5, 0.3], rewind_epoch=1)
    watch, _ = watched(compressor, 10)
    course = [0.1 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 4))).item() / 2 for epoch in range(4)]
    assert watch.rates == pytest.approx(course + course[1:] + course[1:])


def test_new_weights_are_drawn_by_the_seed_and_first_trained_densely():
    found = [watched(Lottery(0.5, weights="new", seed=seed), 4)[0] for seed in (3, 3, 4)]
    dense = weights(classifier())
    for name in ("0.weight", "5.weight", "7.weight", "7.bias"):
        assert torch.equal(found[0].begin[0][name], found[1].begin[0][name])
        assert not torch.equal(found[0].begin[0][name], found[2].begin[0][name])
        assert not torch.equal(found[0].begin[0][name], dense[name])
    assert density(found[0].masks[0]) == 1.0


@pytest.mark.parametrize("epochs", [0, 1])
def test_one_round_is_global_magnitude_pruning_and_fine_tuning(epochs):
    one, other = (fit(method, epochs) for method in (Lottery(0.2), Magnitude(0.2, allocation="global")))
    expected = weights(other)
    assert all(torch.equal(value, expected[name]) for name, value in weights(one).items())


@pytest.mark.parametrize(("epochs", "count"), [(0, 1), (1, 1), (2, 1), (3, 2), (5, 4), (6, 5), (20, 5)])
def test_without_a_schedule_there_are_as_many_of_the_authors_rounds_as_epochs(epochs, count):
    """Down to 0.3 by quarters: 0.75, 0.5625, 0.42, 0.32, 0.3."""
    compressor = Lottery(0.3)
    fit(compressor, epochs)
    assert len(compressor.rounds) == count
    ladder = [0.75, 0.5625, 0.421875, 0.31640625, 0.3][-count:]
    assert [budget.density for budget in compressor.rounds] == pytest.approx(ladder)
    assert compressor.compression.density == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("weights_option", "optimizer"), [("kept", "sgd"), ("new", "adam")])
@pytest.mark.parametrize("epoch", range(6))
def test_resumed_between_and_inside_rounds_it_ends_with_the_same_bits(epoch, weights_option, optimizer, tmp_path):
    """Rounds begin with epochs 0 and 4, or 0, 3 and 5; the state of epoch 1 is the early one."""

    def make():
        return Lottery(0.3, schedule=[0.6, 0.3], rewind_epoch=1, weights=weights_option)

    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    uninterrupted = make()
    whole = fit(uninterrupted, 7, [kept], optimizer=optimizer, trainer={"enable_checkpointing": True})
    compressor, path = make(), tmp_path / f"epoch={epoch}.ckpt"
    resumed = fit(compressor, 7, module=classifier(5), optimizer=optimizer, ckpt_path=path, weights_only=True)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    done, wanted = compressor.compression.to_dict(), uninterrupted.compression.to_dict()
    assert done["layers"] == wanted["layers"]
    assert [stage["density"] for stage in done["stages"]] == [stage["density"] for stage in wanted["stages"]]


@pytest.mark.parametrize(("step", "cuts"), [(2, [1]), (5, [1]), (10, [1]), (13, [])])
def test_resumed_in_the_middle_of_an_epoch_it_goes_back_to_the_same_state(step, cuts, tmp_path):
    """Of three batches an epoch; the early state is that before step 4, and round two begins with step 13."""

    def make():
        return Lottery(0.3, schedule=[0.6, 0.3], rewind_epoch=1)

    kept, first = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1), make()
    watch = Watch(first)
    fit(first, 7, [watch, kept], trainer={"enable_checkpointing": True})
    compressor, pruned = make(), []
    again, compress = Watch(compressor), compressor.compress
    compressor.compress = lambda network: pruned.append(compressor.state.round) or compress(network)
    path = tmp_path / f"step={step}.ckpt"
    fit(compressor, 7, [again], module=classifier(5), ckpt_path=path, weights_only=True)
    assert pruned == cuts
    if step > 3:
        early = watch.begin[1]["1.weight"]
        assert torch.equal(compressor.state.early["module"]["network.1.weight"], early)


def test_aftercare_is_done_on_the_network_that_was_put_back():
    """Means are corrected after the weights are early ones again, so the biases differ from theirs."""
    plain, cared = (
        watched(Lottery(0.3, schedule=[0.6, 0.3], rewind_epoch=1, aftercare=care), 5)[0] for care in ((), ("means",))
    )
    start = 3
    assert torch.equal(plain.begin[start]["7.bias"], plain.begin[1]["7.bias"])
    assert not torch.equal(cared.begin[start]["7.bias"], cared.begin[1]["7.bias"])


@pytest.mark.parametrize(
    ("options", "epochs", "error", "message"),
    [
        ({"schedule": [0.7, 0.5, 0.3]}, 3, BudgetError, "3 trainings down to density 0.3, .* at least 4"),
        ({"schedule": [0.7, 0.5, 0.3], "weights": "new"}, 4, BudgetError, "4 trainings .* at least 5"),
        ({"weights": "new"}, 0, BudgetError, "weights='new' needs epochs"),
    ],
)
def test_too_few_epochs_are_refused_and_the_network_left_alone(options, epochs, error, message):
    module = classifier()
    before = weights(module)
    with pytest.raises(error, match=message):
        fit(Lottery(0.3, **options), epochs, module=module)
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


def test_averages_over_several_trainings_are_refused():
    with pytest.raises(OptionError, match=r"EMAWeightAveraging would average .*schedule=\[0.3\]"):
        fit(Lottery(0.3), 5, [EMAWeightAveraging(decay=0.9)])


def test_a_trainer_is_as_long_as_before_when_a_fit_fails():
    class Breaks(Callback):
        def on_train_start(self, trainer, pl_module):
            raise RuntimeError("broken")

    trainer = Trainer(max_epochs=6, callbacks=[Lottery(0.3), Breaks()], **QUIET)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(classifier(), datamodule=RandomEvents())
    assert trainer.max_epochs == 6


def test_unknown_weights_are_refused():
    with pytest.raises(OptionError, match="weights is 'news': did you mean 'new'"):
        Lottery(0.3, weights="news")


# Fewer time steps ----------------------------------------------------------------------------------------------------


class Steps(Callback):
    """The time steps of every batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, *args):
        self.seen.append(pl_module.timesteps)


def searched_at(monkeypatch, steps):
    """The rule's answer, and the networks that it was asked about."""
    asked = []

    def fewest(module, batches, rule):
        asked.append((rule, weights(module), [y for _, y in batches]))
        return steps

    monkeypatch.setattr("compressors.methods.lottery.fewest_steps", fewest)
    return asked


@pytest.mark.parametrize("start", ["kept", "new"])
@pytest.mark.parametrize(("rule", "last"), [("early", 4), ("settled", 2)])
def test_tickets_are_searched_at_fewer_time_steps(monkeypatch, rule, last, start):
    asked, watch = searched_at(monkeypatch, 2), Steps()
    dense = classifier()
    before = weights(dense)
    compressor = Lottery(0.3, schedule=[0.6], timesteps=rule, weights=start, rewind_epoch=1)
    epochs = 5 if start == "new" else 4
    module = fit(compressor, epochs, [watch], module=dense)
    batches = [watch.seen[3 * epoch] for epoch in compressor.beginnings]
    assert batches == ([4] if start == "new" else []) + [2, last]
    assert module.timesteps == last
    ((told, network, labels),) = asked  # decided once, when the first weights go
    assert told == rule
    assert len(labels) == 3
    assert all(torch.equal(value, network[name]) for name, value in before.items()) == (start == "kept")
    assert [stage["timesteps"] for stage in compressor.compression.stages] == batches


@pytest.mark.parametrize("cut", [0, 2])
def test_a_lottery_at_fewer_time_steps_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, cut):
    asked = searched_at(monkeypatch, 3)
    options = {"schedule": [0.6], "timesteps": "settled", "rewind_epoch": 0}
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = fit(Lottery(0.3, **options), 4, [kept], trainer={"enable_checkpointing": True})
    resumed = fit(
        Lottery(0.3, **options),
        4,
        module=classifier(seed=7),
        ckpt_path=tmp_path / f"epoch={cut}.ckpt",
        weights_only=True,
    )
    assert len(asked) == 1
    assert whole.timesteps == resumed.timesteps == 3
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_fewer_time_steps_need_training_and_a_network_that_has_them():
    with pytest.raises(BudgetError, match="timesteps='settled' needs epochs of fine-tuning"):
        Trainer(max_epochs=0, callbacks=[Lottery(0.3, timesteps="settled")], **QUIET).fit(
            classifier(), datamodule=RandomEvents()
        )
    with pytest.raises(OptionError, match="timesteps is 'earli': did you mean 'early'"):
        Lottery(0.3, timesteps="earli")
    assert not Lottery(timesteps="early").idle
