"""GradR: signs are fixed, connections come back, the prior draws as published, and the budget is met."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributions import Laplace

from compressors.methods.gradr import GradR, Signed, prior_mean
from compressors.weights.allocation import kept_in_all
from tests.compressors.methods.test_stds import LAYERS, RATE, Watch, lively
from tests.compressors.networks import QUIET, RandomEvents, classifier, weights

EPOCHS, STEPS = 8, 24  # three batches an epoch


class Drawn(Watch):
    """And the weights behind the values before the prior draws."""

    def __init__(self, compressor):
        super().__init__()
        self.compressor = compressor

    def on_before_backward(self, trainer, pl_module, loss):
        super().on_before_backward(trainer, pl_module, loss)
        self.steps[-1]["before"] = {name: latent.clone() for name, latent in self.compressor.latent.kept.items()}


def watched(compressor, epochs=EPOCHS, callbacks=(), optimizer=lambda p: torch.optim.SGD(p, lr=RATE), **trainer):
    watch, module = Drawn(compressor), classifier()
    module.configure_optimizers = lambda: optimizer(module.parameters())
    Trainer(max_epochs=epochs, callbacks=[compressor, watch, *callbacks], **QUIET | trainer).fit(
        module, datamodule=RandomEvents()
    )
    return watch.steps, module


@pytest.mark.parametrize("density", [0.9, 0.5, 0.3, 0.02])
@pytest.mark.parametrize("alpha", [1e-3, 2.0])
def test_the_share_of_the_prior_above_zero_is_the_density(density, alpha):
    prior = Laplace(torch.tensor(prior_mean(density, alpha), dtype=torch.float64), 1 / alpha)
    assert 1 - float(prior.cdf(torch.zeros((), dtype=torch.float64))) == pytest.approx(density)


def test_a_step_is_the_papers():
    """Theta moves by the rate times the gradient of the value, and by alpha times the rate towards the mean."""
    alpha, density = 0.3, 0.4
    mean = prior_mean(density, alpha)
    steps, _ = watched(GradR(density, alpha=alpha, until=0.5))
    signs = {name: torch.where(steps[0]["before"][name] < 0, -1.0, 1.0) for name in LAYERS}
    towards = set()
    for number, step in enumerate(steps):
        for name in LAYERS:
            theta, gradient = signs[name] * step["before"][name], signs[name] * step["gradients"][name]
            if number < STEPS // 2:
                assert torch.equal(step["values"][name], signs[name] * theta.relu())
                expected = theta - RATE * gradient - alpha * RATE * (theta - mean).sign()
                torch.testing.assert_close(signs[name] * step["after"][name], expected)
                towards |= {*(theta - mean).sign().unique().tolist()}
    assert towards <= {-1.0, 0.0, 1.0}
    assert 1.0 in towards


def test_signs_never_change_and_connections_come_back_until_the_rewiring_ends():
    steps, module = watched(GradR(0.1, alpha=0.5, until=0.5), optimizer=lively)
    values = torch.stack([torch.cat([step["values"][name].flatten() for name in LAYERS]) for step in steps])
    signs = torch.where(values[0] < 0, -1.0, 1.0)
    assert (values * signs >= 0).all()
    there = values != 0
    returned = there[1:] & ~there[:-1]
    assert returned[: STEPS // 2 - 1].any()
    assert there[0].all()
    left = there[STEPS // 2 + 1]
    assert int(there[STEPS // 2].sum()) > int(left.sum())
    assert not (there[STEPS // 2 + 1 :] & ~left).any()
    final = torch.cat([module.get_parameter(f"{name}.weight").detach().flatten() for name in LAYERS])
    assert (final * signs >= 0).all()
    moving = values[STEPS // 2 + 1 :, left]
    assert (moving[0] != moving[-1]).any()  # what is left learns on


def test_the_strongest_connections_of_the_network_are_left():
    steps, _ = watched(GradR(0.1, until=0.5))
    before, after = steps[STEPS // 2], steps[STEPS // 2 + 1]
    there = {name: before["latent"][name].abs() * (before["values"][name] != 0) for name in LAYERS}
    left = {name: after["values"][name] != 0 for name in LAYERS}
    keep = kept_in_all(there, 0.1)
    assert sum(int(mask.sum()) for mask in left.values()) == keep
    weakest = torch.cat([magnitude.flatten() for magnitude in there.values()]).sort(descending=True).values[keep - 1]
    for name in LAYERS:
        assert left[name].any()
        if int(left[name].sum()) > 1:  # the best of each layer stays in any case
            assert there[name][left[name]].min() >= weakest


@pytest.mark.parametrize(("density", "epochs"), [(1.0, 0), (0.1, 0), (0.02, 0), (1.0, 2), (0.1, 8)])
def test_the_density_in_the_end_is_at_most_what_was_asked_for(density, epochs):
    compressor = GradR(density)
    _, module = watched(compressor, epochs=epochs)
    entries = compressor.compression.layers
    total = {entry.name: module.get_parameter(f"{entry.name}.weight").detach() for entry in entries}
    kept, asked = sum(entry.kept for entry in entries), kept_in_all(total, density)
    assert kept == asked if density == 1 or not epochs else asked * 0.9 <= kept <= asked
    assert all(not total[entry.name][~entry.mask].any() for entry in entries)
    assert sum(int(weight.count_nonzero()) for weight in total.values()) == kept


def test_a_prior_that_leaves_too_few_leaves_these():
    compressor = GradR(0.1, alpha=1.0, until=1.0)
    watched(compressor)
    assert compressor.compression.density < 0.05


@pytest.mark.parametrize("cut", [1, 5])
def test_a_fit_goes_on_where_it_was_cut_off(tmp_path, cut):
    options = {"density": 0.2, "until": 0.5}
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    uninterrupted, resumed, module = GradR(**options), GradR(**options), classifier(seed=3)
    _, whole = watched(uninterrupted, callbacks=[kept], enable_checkpointing=True)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=RATE)
    Trainer(max_epochs=EPOCHS, callbacks=[resumed], **QUIET).fit(
        module, datamodule=RandomEvents(), ckpt_path=tmp_path / f"epoch={cut}.ckpt", weights_only=True
    )
    assert all(torch.equal(value, weights(module)[name]) for name, value in weights(whole).items())
    assert uninterrupted.compression.to_dict()["layers"] == resumed.compression.to_dict()["layers"]


def test_the_rule_by_hand():
    latent = torch.tensor([1.0, -1.0, 0.5, -0.5, 0.0])
    rule = Signed(torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0]))
    assert rule.theta(latent).tolist() == [1.0, 1.0, -0.5, -0.5, 0.0]
    assert rule.value(latent).tolist() == [1.0, -1.0, 0.0, 0.0, 0.0]
    assert torch.equal(rule.backward(torch.ones(5), latent), torch.ones(5))
    held = Signed(rule.sign, torch.tensor([True, False, True, True, True]))
    assert held.value(latent).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert held.backward(torch.ones(5), latent).tolist() == [1.0, 0.0, 1.0, 1.0, 1.0]
