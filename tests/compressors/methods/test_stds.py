"""STDS: the threshold of every step, where gradients go, and what is left."""

import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from compressors.budget import OptionError
from compressors.methods.stds import RISES, STDS, SoftThreshold
from compressors.weights.allocation import by_magnitude, erk, kept_in_all, uniform
from tests.compressors.networks import QUIET, RandomEvents, classifier, weights

LAYERS = ("network.0", "network.5", "network.7")
EPOCHS, STEPS, RATE = 4, 12, 0.2  # three batches an epoch


class Watch(Callback):
    """Each step's values and gradients, the weights behind them, and those after the step."""

    def __init__(self):
        self.steps = []

    @staticmethod
    def of(module, attribute="data"):
        return {name: getattr(module.get_parameter(f"{name}.weight"), attribute).clone() for name in LAYERS}

    def on_before_backward(self, trainer, pl_module, loss):
        self.steps.append({"values": self.of(pl_module)})

    def on_after_backward(self, trainer, pl_module):
        self.steps[-1]["gradients"] = self.of(pl_module, "grad")

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps[-1] |= {"latent": self.of(pl_module), "handed on": self.of(pl_module, "grad")}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps[-1]["after"] = self.of(pl_module)


def watched(compressor, callbacks=(), optimizer=lambda p: torch.optim.SGD(p, lr=RATE), **trainer):
    watch, module = Watch(), classifier()
    module.configure_optimizers = lambda: optimizer(module.parameters())
    settings = QUIET | {"max_epochs": EPOCHS} | trainer
    Trainer(callbacks=[compressor, watch, *callbacks], **settings).fit(module, datamodule=RandomEvents())
    return watch.steps, module


def lively(parameters):
    return torch.optim.Adam(parameters, lr=0.1)


def thresholds(weights, keep):
    """So that as many weights of each layer exceed it; one for all of them, where that can be."""
    ordered = {name: weight.abs().flatten().sort().values for name, weight in weights.items()}
    own = {name: float(values[-keep[name] - 1]) for name, values in ordered.items()}
    one = max(own.values())
    return {name: one if one < float(values[-keep[name]]) else own[name] for name, values in ordered.items()}


@pytest.mark.parametrize(
    ("rise", "f"), [("sine", lambda x: 0.5 + 0.5 * math.sin(math.pi * x - math.pi / 2)), ("linear", lambda x: x)]
)
@pytest.mark.parametrize(
    ("allocation", "split", "until"), [("global", by_magnitude, 1.0), ("uniform", uniform, 1.0), ("erk", erk, 0.5)]
)
def test_every_step_has_the_threshold_and_the_gradient_of_the_closed_form(rise, f, allocation, split, until):
    steps, _ = watched(STDS(0.2, rise=rise, allocation=allocation, until=until))
    assert len(steps) == STEPS
    for number, step in enumerate(steps):
        first = steps[number // 3 * 3]["latent"]  # D is found anew with each epoch
        keep = split(first, 0.2)
        final = {} if allocation == "global" else {n: thresholds({n: w}, keep) for n, w in first.items()}
        final = {n: found[n] for n, found in final.items()} or thresholds(first, keep)
        for name in LAYERS:
            d = final[name] * f(min(1.0, number / STEPS / until))
            latent = step["latent"][name]
            value = torch.where(latent.abs() > d, latent - latent.sign() * d, 0.0)
            torch.testing.assert_close(step["values"][name], value, rtol=1e-5, atol=1e-6)
            assert torch.equal(step["gradients"][name], step["handed on"][name])
            torch.testing.assert_close(step["after"][name], latent - RATE * step["gradients"][name])
    assert all(torch.equal(steps[0]["values"][n], steps[0]["latent"][n]) for n in LAYERS)  # f(0) = 0


def test_thresholded_weights_learn_and_may_come_back():
    steps, _ = watched(STDS(0.1), optimizer=lively, max_epochs=10)
    there = torch.stack([torch.cat([step["values"][name].flatten() for name in LAYERS]) != 0 for step in steps])
    assert (there[1:] & ~there[:-1]).any()
    last = steps[-1]
    silent = torch.cat([last["values"][n].flatten() == 0 for n in LAYERS])
    assert torch.cat([last["handed on"][n].flatten() for n in LAYERS])[silent].any()


def test_the_threshold_is_one_for_all_layers_and_grows():
    seen, compressor = [], STDS(0.5)

    class Thresholds(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append({name: rule.threshold for name, rule in compressor.thresholds.items()})

    watched(compressor, [Thresholds()])
    assert all(now["network.0"] == now["network.5"] >= now["network.7"] for now in seen)
    assert [t["network.5"] for t in seen[:3]] == sorted(t["network.5"] for t in seen[:3])
    assert seen[-1]["network.5"] > seen[1]["network.5"] > seen[0]["network.5"] == 0


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.02])
@pytest.mark.parametrize("epochs", [0, 2])
def test_the_density_in_the_end_is_what_was_asked_for(density, epochs):
    compressor = STDS(density)
    _, module = watched(compressor, max_epochs=epochs)
    entries = compressor.compression.layers
    total = {entry.name: module.get_parameter(f"{entry.name}.weight").detach() for entry in entries}
    assert sum(entry.kept for entry in entries) == kept_in_all(total, density)
    assert all(torch.equal(total[entry.name] != 0, entry.mask) for entry in entries)
    assert all(entry.kept >= 1 for entry in entries)
    if density < 1:
        assert all(entry.to_dict()["threshold"] > 0 for entry in entries if entry.kept < entry.weights)


@pytest.mark.parametrize("cut", [0, 2])
def test_a_fit_goes_on_where_it_was_cut_off(tmp_path, cut):
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    uninterrupted, resumed, module = STDS(0.2), STDS(0.2), classifier(seed=3)
    _, whole = watched(uninterrupted, [kept], enable_checkpointing=True)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=RATE)
    Trainer(max_epochs=EPOCHS, callbacks=[resumed], **QUIET).fit(
        module, datamodule=RandomEvents(), ckpt_path=tmp_path / f"epoch={cut}.ckpt", weights_only=True
    )
    assert all(torch.equal(value, weights(module)[name]) for name, value in weights(whole).items())
    assert uninterrupted.compression.to_dict()["layers"] == resumed.compression.to_dict()["layers"]


def test_the_rule_by_hand():
    rule = SoftThreshold(1.0, 0.5)
    latent = torch.tensor([-2.0, -0.5, -0.1, 0.0, 0.4, 0.5, 0.75])
    assert rule.value(latent).tolist() == [-1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25]
    assert rule.backward(latent, latent) is latent
    assert [RISES["sine"](x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0, 0.5, 1])


def test_unknown_rises_are_refused():
    with pytest.raises(OptionError, match=r"rise is 'sin': did you mean 'sine'"):
        STDS(0.2, rise="sin")
