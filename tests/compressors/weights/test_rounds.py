"""Pruning in rounds over the epochs of fine-tuning, for every method that prunes single weights."""

from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from compressors.base import Compressor
from compressors.budget import BudgetError
from compressors.masks import largest
from compressors.methods.magnitude import Magnitude
from compressors.registry import COMPRESSORS
from compressors.weights.pruner import Pruner
from tests.compressors.networks import QUIET, RandomEvents, classifier, weights

EPOCHS, ROUNDS = 4, [0.8, 0.55, 0.3]
METHODS = sorted(COMPRESSORS)
PRUNERS = [name for name in METHODS if issubclass(m := COMPRESSORS[name].load(), Pruner) and "density" in m.budgets]
BY_EPOCHS = [name for name in PRUNERS if not COMPRESSORS[name].load()(0.5).rounds_at_once(EPOCHS)]
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-2, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
}


def make(name: str, schedule=ROUNDS, density: float = 0.3, **options) -> Compressor:
    if name == "lottery":
        options = {"rewind_epoch": 0} | options  # its rounds begin where those of the others do
    compressor = COMPRESSORS[name].load()(density, schedule=schedule, **options)
    compressor.state.track = lambda sequence, description: sequence
    return compressor


class Watch(Callback):
    """Takes down the compressor's masks at every epoch's end, and whether anything pruned has left a trace."""

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self.masks: list[dict[str, torch.Tensor]] = []
        self.stages: list[str] = []
        self.traces = 0.0

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, mask in self.compressor.compression.masks().items():
            weight = pl_module.get_submodule(name).weight
            state = trainer.optimizers[0].state[weight].values()
            for kept in (weight.detach(), weight.grad, *(s for s in state if torch.is_tensor(s) and s.ndim)):
                self.traces += float(kept[~mask].abs().sum())

    def on_train_epoch_end(self, trainer, pl_module):
        self.masks.append(self.compressor.compression.masks())
        self.stages.append(self.compressor.stage)

    def density(self, epoch: int) -> float:
        """Share kept over all layers at an epoch's end."""
        kept = self.masks[epoch].values()
        return sum(int(mask.sum()) for mask in kept) / sum(mask.numel() for mask in kept)


def fit(compressor, epochs=EPOCHS, optimizer="adam", callbacks=(), module=None, trainer=None, **resume):
    module = module or classifier()
    module.configure_optimizers = lambda: OPTIMIZERS[optimizer](module.parameters())
    Trainer(max_epochs=epochs, callbacks=[compressor, *callbacks], **QUIET | (trainer or {})).fit(
        module, datamodule=RandomEvents(), **resume
    )
    return module


@pytest.mark.parametrize("name", BY_EPOCHS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_density_falls_round_by_round_and_what_is_gone_stays_gone_without_trace(name, optimizer):
    compressor = make(name)
    watch = Watch(compressor)
    module = fit(compressor, optimizer=optimizer, callbacks=[watch])
    assert [watch.density(epoch) for epoch in range(EPOCHS)] == pytest.approx([0.8, 0.55, 0.3, 0.3], abs=0.02)
    for before, after in pairwise(watch.masks):
        assert not any((after[layer] & ~before[layer]).any() for layer in before)
    assert watch.traces == 0
    for layer, mask in compressor.compression.masks().items():
        weight = module.get_submodule(layer).weight
        assert not weight[~mask].any()
        assert weight[mask].all()
    assert watch.stages == [f"round {i + 1}/3, density {ROUNDS[i]:g}" for i in (0, 1, 2, 2)]


class Fickle(Magnitude):
    """Wants other weights in every round."""

    def prune(self, layer, keep, statistics):
        scores = torch.rand(layer.rows.shape, generator=torch.Generator().manual_seed(self.state.round))
        mask = largest(scores, keep)
        return layer.rows * mask, mask, None


@pytest.mark.parametrize("bits", [None, 4])
def test_no_method_brings_back_what_is_gone(bits):
    compressor = Fickle(0.3, schedule=ROUNDS, bits=bits)
    watch = Watch(compressor)
    fit(compressor, callbacks=[watch])
    assert watch.traces == 0
    for before, after in pairwise(watch.masks):
        assert not any((after[layer] & ~before[layer]).any() for layer in before)
    assert watch.density(-1) < 0.2, "the method did want others"


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("epoch", range(EPOCHS - 1))
def test_resumed_in_the_middle_of_a_schedule_gives_the_bits_of_an_uninterrupted_fit(name, epoch, tmp_path):
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    uninterrupted = make(name)
    whole = fit(uninterrupted, callbacks=[kept], trainer={"enable_checkpointing": True})

    compressor = make(name)
    path = tmp_path / f"epoch={epoch}.ckpt"
    resumed = fit(compressor, module=classifier(seed=5), ckpt_path=path, weights_only=True)
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())
    assert compressor.compression.to_dict()["layers"] == uninterrupted.compression.to_dict()["layers"]
    assert compressor.compression.density == pytest.approx(0.3, abs=0.02)


def test_resumed_in_the_middle_of_an_epoch_does_not_prune_that_round_twice(tmp_path):
    kept = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    fit(make("lamp"), callbacks=[kept], trainer={"enable_checkpointing": True})
    compressor, pruned = make("lamp"), []
    compress = compressor.compress
    compressor.compress = lambda network: pruned.append(compressor.state.round) or compress(network)
    path = tmp_path / "step=4.ckpt"  # of the second epoch's three batches the first is done
    fit(compressor, module=classifier(seed=5), ckpt_path=path, weights_only=True)
    assert pruned == [2]


@pytest.mark.parametrize("name", PRUNERS)
def test_one_round_is_what_no_schedule_is(name):
    one, none = (weights(fit(make(name, schedule), epochs=1)) for schedule in ([0.3], None))
    assert all(torch.equal(one[key], none[key]) for key in one)


def test_pruned_weights_take_no_part_in_clipping():
    """With almost everything clipped away, what a step moves is the clipped norm, all of it in weights left."""
    module, watch = classifier(), []
    compressor = make("lamp", None, 0.05)

    class Norm(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            self.before = torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()])

        def on_train_batch_end(self, trainer, pl_module, *args):
            after = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
            watch.append(float((after - self.before).norm()))

    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1.0)
    Trainer(max_epochs=1, callbacks=[compressor, Norm()], gradient_clip_val=1e-3, **QUIET).fit(
        module, datamodule=RandomEvents()
    )
    assert watch == pytest.approx([1e-3] * 3, rel=1e-2)


@pytest.mark.parametrize("epochs", [0, 2])
def test_more_rounds_than_epochs_are_refused_and_the_network_left_alone(epochs):
    module = classifier()
    before = weights(module)
    with pytest.raises(BudgetError, match=f"3 rounds down to density 0.3, but the fit has {epochs} epochs: fine-tune"):
        fit(make("magnitude"), epochs=epochs, module=module)
    assert all(torch.equal(value, before[key]) for key, value in weights(module).items())


def test_rounds_without_training_between_them_end_where_one_shot_does():
    """LAMP's scores of what survives do not depend on what is gone."""

    def still(module):
        module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
        return module

    found = []
    for schedule in (ROUNDS, None):
        compressor, module = make("lamp", schedule), still(classifier())
        Trainer(max_epochs=3, callbacks=[compressor], **QUIET).fit(module, datamodule=RandomEvents())
        found.append(compressor.compression.masks())
    assert all(torch.equal(mask, found[1][layer]) for layer, mask in found[0].items())


def test_time_of_all_rounds_is_counted():
    compressor = make("lamp")
    watch, seconds = Watch(compressor), []
    watch.on_train_epoch_end = lambda *args: seconds.append(compressor.compression.seconds)
    fit(compressor, callbacks=[watch])
    assert seconds[0] < seconds[1] < seconds[2] == seconds[3]
