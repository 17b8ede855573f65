"""LSQ in whole fits: steps are trained by the network's own optimizer, and the network ends on its grids."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from compressors.budget import OptionError
from compressors.methods.lsq import LSQ
from tests.compressors.networks import QUIET, RandomEvents, classifier, weights

LAYERS = ("network.0", "network.5", "network.7")
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=1e-2),
    "groups": lambda p: torch.optim.SGD([{"params": p[:1], "lr": 0.1}, {"params": p[1:]}], lr=0.05),
}


def fit(compressor, epochs=2, optimizer="sgd", callbacks=(), module=None, trainer=None, **resume):
    module = module or classifier()
    module.configure_optimizers = lambda: OPTIMIZERS[optimizer](list(module.parameters()))
    Trainer(max_epochs=epochs, callbacks=[compressor, *callbacks], **QUIET | (trainer or {})).fit(
        module, datamodule=RandomEvents(), **resume
    )
    return module


def steps_of(compressor):
    return {name: rule.step.detach().clone() for name, rule in compressor.latent.rules.items()}


class Grids(Callback):
    """Whether each batch is computed with weights on the grids of then, and what the steps are."""

    def __init__(self, compressor):
        self.compressor, self.steps = compressor, []

    def on_before_backward(self, trainer, pl_module, loss):
        for name, rule in self.compressor.latent.rules.items():
            weight = pl_module.get_parameter(f"{name}.weight").detach().flatten(1)
            assert torch.equal(rule.grid().nearest(weight), weight)
        self.steps.append(steps_of(self.compressor))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"per": "tensor"}, {"power_of_two": True}])
def test_training_moves_every_step_and_computes_on_the_grid(optimizer, options):
    compressor = LSQ(bits=3, **options)
    seen = Grids(compressor)
    module = fit(compressor, optimizer=optimizer, callbacks=[seen])
    for name in LAYERS:
        assert not torch.equal(seen.steps[0][name], seen.steps[-1][name])
        entry = next(entry for entry in compressor.compression.layers if entry.name == name)
        weight = module.get_parameter(f"{name}.weight").detach()
        assert torch.equal(entry.weight(), weight)
        assert len(entry.grid.scale) == (1 if options.get("per") == "tensor" else len(weight))
        if options.get("power_of_two"):
            assert torch.equal(entry.grid.scale.log2(), entry.grid.scale.log2().round())


def test_one_step_of_gradient_descent_is_the_formula():
    """The step after a batch is the step before it less the rate times the published gradient."""
    compressor, seen = LSQ(bits=4), {}
    module = classifier()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.3)

    class Watch(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            name = "network.5.weight"
            seen.setdefault("rounded", pl_module.get_parameter(name).detach().clone())
            seen.setdefault("latent", compressor.latent.kept["network.5"].clone())
            seen.setdefault("step", compressor.latent.rules["network.5"].step.detach().clone())

        def on_after_backward(self, trainer, pl_module):
            seen.setdefault("gradient", pl_module.get_parameter("network.5.weight").grad.clone())

    Trainer(max_epochs=1, limit_train_batches=1, callbacks=[compressor, Watch()], **QUIET).fit(
        module, datamodule=RandomEvents()
    )
    v = seen["latent"] / seen["step"]
    slope = torch.where((v > -8) & (v < 7), v.round() - v, v.clamp(-8, 7))
    moved = 0.3 * (seen["gradient"] * slope).sum(1, keepdim=True) / (v.shape[1] * 7) ** 0.5
    assert moved.abs().max() > 0
    torch.testing.assert_close(compressor.latent.rules["network.5"].step.detach(), seen["step"] - moved)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_have_their_own_parameters_again_afterwards(optimizer):
    module, found = classifier(), []
    make = OPTIMIZERS[optimizer]
    compressor = LSQ(bits=4)
    module.configure_optimizers = lambda: found.append(make(list(module.parameters()))) or found[0]
    Trainer(max_epochs=1, callbacks=[compressor], **QUIET).fit(module, datamodule=RandomEvents())
    trained = [parameter for group in found[0].param_groups for parameter in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in module.parameters()}
    assert len(trained) == len(list(module.parameters()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("file", ["epoch=0", "epoch=1"])
def test_a_resumed_fit_gives_the_bits_of_an_uninterrupted_one(optimizer, file, tmp_path):
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = fit(LSQ(bits=3), 3, optimizer, [kept], trainer={"enable_checkpointing": True})
    resumed = fit(
        LSQ(bits=3), 3, optimizer, module=classifier(5), ckpt_path=tmp_path / f"{file}.ckpt", weights_only=True
    )
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


def test_steps_and_weights_learn_what_rounding_alone_spoils():
    """Trained on its grid, the network fits the samples better than the same network rounded afterwards."""
    trained, plain = classifier(), classifier()
    fit(LSQ(bits=2), 30, "adam", module=trained)
    fit(LSQ(bits=2), 0, module=plain)
    x, y = RandomEvents().x, RandomEvents().y
    losses = [float(module.eval().loss(module(x)[None], y, 0.0)) for module in (trained, plain)]
    assert losses[0] < 0.8 * losses[1]


def test_an_unknown_scope_is_refused():
    with pytest.raises(OptionError, match="per is 'channels': did you mean 'channel'"):
        LSQ(bits=4, per="channels")
