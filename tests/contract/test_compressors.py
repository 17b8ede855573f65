"""Every registered compressor goes through these tests: what is registered is tested."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import layer
from torch import nn

from compressors.budget import BudgetError
from compressors.calibration.hessians import CalibrationError
from compressors.network.layers import LayerError
from compressors.registry import COMPRESSORS
from tests.compressors.networks import EXAMPLES, QUIET, RandomEvents, classifier, fit, make, weights

METHODS = sorted(COMPRESSORS)
KINDS = {name: COMPRESSORS[name].load().budgets for name in METHODS}
WITH_DENSITY = [name for name in METHODS if "density" in KINDS[name]]
STRUCTURED = [name for name in METHODS if COMPRESSORS[name].load().structured]  # their grids are their own


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_layers_of_a_kind_that_nobody_handles_are_left_alone_and_named(name):
    module = classifier()
    module.network.insert(0, layer.ConvTranspose2d(2, 2, 3, padding=1, step_mode="m"))
    before = module.network[0].weight.detach().clone()
    compressor = make(name)
    fit(compressor, module)
    assert compressor.compression.to_dict()["left_alone"] == ["network.0 (ConvTranspose2d)"]
    assert torch.equal(module.network[0].weight, before)


class Branching(nn.Module):
    """A layer that runs for some inputs."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.early = network, layer.Conv2d(2, 2, 1, step_mode="m")

    def forward(self, x):
        return self.network(self.early(x) if x.any() else x)


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_a_branch_on_values_is_refused_before_anything_changes(name):
    module = classifier()
    module.network = Branching(module.network)
    before = weights(module)
    with pytest.raises(LayerError, match=r"whether network.early runs depends on the data"):
        fit(make(name), module)
    assert all(torch.equal(value, before[key]) for key, value in weights(module).items())


@pytest.mark.parametrize("name", WITH_DENSITY)
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
def test_budget_is_met_and_the_account_is_true(name, density):
    compressor = make(name, density)
    module = fit(compressor)
    compression = compressor.compression
    assert [entry.name for entry in compression.layers] == ["network.0", "network.5", "network.7"]
    total = sum(entry.weights for entry in compression.layers)
    kept = sum(entry.kept for entry in compression.layers)
    assert total == 6 * 18 + 8 * 54 + 3 * 8
    if compressor.structured:
        channel = 18 + 8 * 9  # the largest that can go
        assert density * total - channel < kept <= density * total
    else:
        assert kept == pytest.approx(density * total, abs=len(compression.layers))
    for entry in compression.layers:
        weight = module.get_submodule(entry.name).weight
        assert weight.shape == entry.mask.shape == torch.Size(entry.shape)
        assert not weight[~entry.mask].any()
        assert torch.isfinite(weight).all()
    assert compression.density == kept / total


@pytest.mark.parametrize("name", [name for name in METHODS if "bits" not in KINDS[name][0]])
def test_at_full_density_nothing_changes(name):
    module = classifier()
    before = weights(module)
    fit(make(name, 1.0), module)
    for key, value in weights(module).items():
        torch.testing.assert_close(value, before[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in METHODS for kind in KINDS[name] if "bits" in kind and name not in STRUCTURED],
)
@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("epochs", [0, 1])
def test_quantised_weights_lie_on_their_grid_and_the_map_rebuilds_them_to_the_bit(name, kind, per, symmetric, epochs):
    compressor = make(name, **{"density": 1.0, **EXAMPLES[kind]}, per=per, symmetric=symmetric)
    module = fit(compressor, epochs=epochs)
    for entry in compressor.compression.layers:
        weight = module.get_submodule(entry.name).weight.detach()
        assert torch.equal(entry.weight(), weight)
        assert not weight[~entry.mask].any()
        scale, zero = entry.grid.scale, entry.grid.zero
        steps = weight.flatten(1) / scale + zero
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert int(entry.codes.min()) >= 0
        assert int(entry.codes.max()) < 2 ** EXAMPLES[kind]["bits"]
        assert entry.coding().bits == EXAMPLES[kind]["bits"]
    assert compressor.compression.density == pytest.approx(EXAMPLES[kind].get("density", 1.0), abs=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_aftercare_is_done_and_told(name):
    compressor = make(name, aftercare=("means", "batchnorm"))
    module, plain = fit(compressor), fit(make(name))
    care = compressor.compression.aftercare
    assert care == {"batchnorm": ["network.1"], "means": ["network.0", "network.7"]}
    assert not torch.equal(module.network[1].running_var, plain.network[1].running_var)
    assert torch.equal(module.network[0].weight, plain.network[0].weight)
    assert compressor.compression.to_dict()["aftercare"] == care


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_gives_the_same_bits(name):
    first, second = weights(fit(make(name))), weights(fit(make(name)))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", METHODS)
def test_result_is_plain_layers(name):
    module = classifier()
    kinds, parameters = [type(m) for m in module.modules()], [id(p) for p in module.parameters()]
    keys = list(module.state_dict())
    fit(make(name), module)
    assert [type(m) for m in module.modules()] == kinds
    assert [id(p) for p in module.parameters()] == parameters
    assert list(module.state_dict()) == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_masks_survive_fine_tuning_with_momentum_and_weight_decay(name):
    module = classifier()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    compressor = make(name)
    before = weights(fit(make(name)))
    fit(compressor, module, epochs=3)
    assert any(not torch.equal(value, before[key]) for key, value in weights(module).items()), "it did train"
    for layer_name, mask in compressor.compression.masks().items():
        assert not module.get_submodule(layer_name).weight[~mask].any()


@pytest.mark.parametrize("name", METHODS)
def test_resumed_fit_gives_the_bits_of_an_uninterrupted_one(name, tmp_path):
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    uninterrupted, whole = make(name), classifier()
    Trainer(max_epochs=2, callbacks=[uninterrupted, kept], **QUIET | {"enable_checkpointing": True}).fit(
        whole, datamodule=RandomEvents()
    )

    resumed, compressor = classifier(seed=5), make(name)
    Trainer(max_epochs=2, callbacks=[compressor], **QUIET).fit(
        resumed, datamodule=RandomEvents(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True
    )
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())
    assert compressor.compression.to_dict()["layers"] == uninterrupted.compression.to_dict()["layers"]


@pytest.mark.parametrize("name", METHODS)
def test_patterns_leave_layers_alone(name):
    module = classifier()
    before = weights(module)
    compressor = make(name, exclude=["network.0"])
    fit(compressor, module)
    assert [entry.name for entry in compressor.compression.layers] == ["network.5", "network.7"]
    assert torch.equal(module.network[0].weight, before["0.weight"])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda m, d: m.network[5].weight.data.fill_(math.nan), LayerError, "'network.5' has NaN"),
        (lambda m, d: d.x.fill_(math.inf), CalibrationError, "NaN or infinite"),
        (lambda m, d: setattr(d, "calibration_dataloader", list), CalibrationError, "empty"),
    ],
    ids=["weights", "data", "no data"],
)
def test_bad_input_is_refused_and_the_network_left_alone(name, spoil, error, message):
    module, data = classifier(), RandomEvents()
    spoil(module, data)
    before = weights(module)
    with pytest.raises(error, match=message):
        fit(make(name), module, data=data)
    assert all(torch.equal(value, before[key]) or value.isnan().any() for key, value in weights(module).items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.parametrize("name", METHODS)
def test_a_pattern_without_a_match_names_the_layers(name):
    with pytest.raises(LayerError, match="'conv1' matches no layer.*network.0, network.5, network.7"):
        fit(make(name, include=["conv1"]))


@pytest.mark.parametrize("name", METHODS)
def test_a_datamodule_without_calibration_data_names_the_remedy(name):
    data = RandomEvents()
    loader = data.train_dataloader()
    with pytest.raises(CalibrationError, match="calibration=DataLoader"):
        Trainer(max_epochs=0, callbacks=[make(name)], **QUIET).fit(classifier(), train_dataloaders=loader)
    Trainer(max_epochs=0, callbacks=[make(name, calibration=loader)], **QUIET).fit(
        classifier(), train_dataloaders=loader
    )


@pytest.mark.parametrize("name", WITH_DENSITY)
@pytest.mark.parametrize("density", [0, -0.1, 1.5, math.nan, math.inf, "half"])
def test_density_outside_its_range_is_refused(name, density):
    with pytest.raises(BudgetError, match="density is .*above 0 and at most 1"):
        make(name, density)


@pytest.mark.parametrize("name", METHODS)
def test_docstring_names_method_and_arguments(name):
    method = COMPRESSORS[name].load()
    assert len((method.__doc__ or "").splitlines()[0]) > 20
    assert isinstance(method.version, int)
    assert set(method.options()) >= {"include", "exclude", "calibration"}
