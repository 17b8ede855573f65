"""Every registered network goes through these tests: what is registered is tested."""

import pytest
import torch
from spikingjelly.activation_based import functional

from benchmark import checkpoints
from benchmark.catalog import MODELS
from benchmark.classifier import SNNClassifier
from benchmark.models.nir_export import write_nir
from compressors.layers import find_layers, is_neuron

SHAPE, CLASSES, T, BATCH = (2, 12, 12), 5, 3, 4
NAMES = sorted(MODELS)
OPTIONS: dict[str, dict] = {}


@pytest.fixture(scope="module", autouse=True)
def _nir_file(tmp_path_factory):
    """A network for the model that is read from a file."""
    path = tmp_path_factory.mktemp("nir") / "mlp.nir"
    write_nir(path, MODELS["mlp"].load()(SHAPE, CLASSES, hidden=8), SHAPE)
    OPTIONS["nir"] = {"path": str(path)}


def build(name: str, seed: int = 0) -> SNNClassifier:
    torch.manual_seed(seed)
    network = MODELS[name].load()(SHAPE, CLASSES, **OPTIONS.get(name, {}))
    return SNNClassifier(network, classes=CLASSES, timesteps=T)


@pytest.mark.parametrize("name", NAMES)
def test_time_and_batch_come_first_and_classes_last(name):
    network = build(name).network
    assert network(torch.rand(T, BATCH, *SHAPE)).shape == (T, BATCH, CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_a_gradient(name):
    module = build(name)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(
                    4
                )  # so that the untrained network fires and its surrogate gradients reach the first layer
    module.loss(module(torch.rand(BATCH, T, *SHAPE)), torch.arange(BATCH)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_layer_is_found_with_its_neuron(name):
    module = build(name)
    layers = find_layers(module, lambda: module(torch.rand(1, T, *SHAPE)))
    weighted = [m for m in module.modules() if getattr(m, "weight", None) is not None and m.weight.ndim > 1]
    assert {id(found.module) for found in layers} == {id(m) for m in weighted}
    assert all(found.neuron is not None and is_neuron(found.neuron) for found in layers)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_restore_it_to_the_bit(name, tmp_path):
    module, other = build(name).eval(), build(name, seed=1).eval()
    path = tmp_path / "network.safetensors"
    saved = checkpoints.save(path, module.network, {"model": {"name": name}})
    loaded = checkpoints.load(path)
    assert (loaded.description, loaded.sha256) == ({"model": {"name": name}}, saved.sha256)
    checkpoints.restore(other.network, loaded, path)
    x = torch.rand(BATCH, T, *SHAPE)
    assert torch.equal(module(x), other(x))


@pytest.mark.parametrize("name", NAMES)
def test_neurons_forget_between_batches(name):
    module = build(name).eval()
    x = torch.rand(BATCH, T, *SHAPE)
    first = module(x)
    assert torch.equal(module(x), first)
    functional.reset_net(module.network)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_what_it_is(name):
    assert len((MODELS[name].load().__doc__ or "").splitlines()[0]) > 20
