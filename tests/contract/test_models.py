"""Every registered network goes through these tests: what is registered is tested."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from spikingjelly.activation_based import functional
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, TensorDataset

from benchmark.catalog import DATA, MODELS
from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.nir.writing import write_nir
from benchmark.networks.weights import checkpoints
from benchmark.networks.zoo.card import SHAPES
from benchmark.networks.zoo.survey import survey
from benchmark.networks.zoo.transformers import pool_spikes
from compressors.base import Compressor
from compressors.network.layers import find_layers
from compressors.registry import COMPRESSORS
from hardware.neurons import is_neuron
from tests.compressors.networks import QUIET

CLASSES, T, BATCH = 5, 3, 4
NAMES = sorted(MODELS)


@dataclass(frozen=True)
class Tiny:
    """Options that make a network small, the input it takes, and its layers whose output meets no neuron."""

    options: dict = field(default_factory=dict)
    shape: tuple[int, int, int] = (2, 12, 12)
    without_neuron: tuple[str, ...] = ()


VOTING = {"width": 6, "hidden": 12, "voters": 2}
RESNET = Tiny({"width": 2}, without_neuron=("fc",))
TINY = {
    "mlp": Tiny({"hidden": 8}),
    "conv": Tiny({"width": 4, "hidden": 8}),
    "nir": Tiny(),
    "dvs_gesture_net": Tiny(VOTING, (2, 32, 32)),
    "cifar10_dvs_net": Tiny(VOTING, (2, 16, 16)),
    "vgg9": Tiny({"width": 4, "norm": True}, (3, 16, 16), ("29",)),
    "vgg16": Tiny({"width": 2}, (3, 32, 32), ("45",)),
    "vggsnn": Tiny({"width": 2}, (2, 16, 16), ("29",)),
    "resnet19": Tiny({"width": 2}, (3, 12, 12), ("fc.2",)),
    "resnet20": RESNET,
    **{f"sew_resnet{depth}": RESNET for depth in (18, 34, 50, 101, 152)},
    "spiking_resnet": RESNET,
    "ms_resnet": Tiny({"width": 2}, without_neuron=("head",)),
    # Pooled between convolution and neuron: the patches of the transformers.
    "spikformer": Tiny({"width": 32, "depth": 1, "heads": 2}, (3, 16, 16), ("head",)),
    "spike_driven_transformer": Tiny(
        {"width": 16, "depth": 2, "heads": 2}, (3, 16, 16), ("patch_embed.final_stage.0", "blocks.1.mlp.fc2", "head")
    ),
    "qkformer": Tiny(
        {"width": 16, "depths": (1, 1, 1), "heads": 2},
        (3, 64, 64),
        ("patch_embed1.conv[12]", "patch_embed[23].conv1", "head"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _nir_file(tmp_path_factory):
    """A network for the model that is read from a file."""
    path = tmp_path_factory.mktemp("nir") / "mlp.nir"
    shape = TINY["nir"].shape
    write_nir(path, MODELS["mlp"].load()(shape, CLASSES, hidden=8), shape)
    TINY["nir"].options["path"] = str(path)


def build(name: str, seed: int = 0) -> SNNClassifier:
    torch.manual_seed(seed)
    network = MODELS[name].load()(TINY[name].shape, CLASSES, **TINY[name].options)
    return SNNClassifier(network, classes=CLASSES, timesteps=T)


def lively(module: SNNClassifier) -> SNNClassifier:
    """So that the untrained network fires, and surrogate gradients reach the first layer."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.weight.fill_(1.0)
                part.bias.uniform_(0, 2)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return module


def inputs(name: str, batch: int = BATCH) -> torch.Tensor:
    return torch.rand(batch, T, *TINY[name].shape)


def test_every_registered_network_has_a_tiny_form():
    assert set(TINY) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_time_and_batch_come_first_and_classes_last(name):
    network = build(name).network
    assert network(torch.rand(T, BATCH, *TINY[name].shape)).shape == (T, BATCH, CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_a_gradient(name):
    module = lively(build(name))
    module.loss(module(inputs(name))[None], torch.arange(BATCH), 0.0).backward()
    without = [n for n, p in module.network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_layer_is_found_with_its_neuron(name):
    module = build(name)
    layers = find_layers(module, lambda: module(inputs(name, 1)))
    weighted = [m for m in module.modules() if getattr(m, "weight", None) is not None and m.weight.ndim > 1]
    assert {id(found.module) for found in layers} == {id(m) for m in weighted}
    assert all(found.neuron is None or is_neuron(found.neuron) for found in layers)
    patterns = [f"network.{pattern}" for pattern in TINY[name].without_neuron]
    without = [found.name for found in layers if found.neuron is None]
    assert all(any(fnmatchcase(found, pattern) for pattern in patterns) for found in without), without
    assert all(any(fnmatchcase(found, pattern) for found in without) for pattern in patterns), without


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_sees_all_time_steps(name):
    module = build(name)
    assert {found.timesteps for found in find_layers(module, lambda: module(inputs(name, 1)))} == {T}


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_restore_it_to_the_bit(name, tmp_path):
    module, other = build(name).eval(), build(name, seed=1).eval()
    path = tmp_path / "network.safetensors"
    saved = checkpoints.save(path, module.network, {"model": {"name": name}})
    loaded = checkpoints.load(path)
    assert (loaded.description, loaded.sha256) == ({"model": {"name": name}}, saved.sha256)
    checkpoints.restore(other.network, loaded, path)
    x = inputs(name)
    assert torch.equal(module(x), other(x))


@pytest.mark.parametrize("name", NAMES)
def test_neurons_forget_between_batches(name):
    module = build(name).eval()
    x = inputs(name)
    first = module(x)
    assert torch.equal(module(x), first)
    functional.reset_net(module.network)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_what_it_is(name):
    assert len((MODELS[name].load().__doc__ or "").splitlines()[0]) > 20


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nir"])
def test_card_names_a_registered_data_set_and_a_source(name):
    card = MODELS[name].load().card
    assert card.data in SHAPES
    assert card.timesteps >= 1
    assert len(card.source) > 8


@pytest.mark.parametrize("name", SHAPES)
def test_cards_know_data_sets_as_they_come(name, tmp_path):
    data_class = DATA[name].load()
    assert SHAPES[name] == (data_class(tmp_path).input_shape, data_class.num_classes)


# Every compressor on every network ------------------------------------------------------------------------------------

PAIRED = [name for name in NAMES if name not in {"sew_resnet34", "sew_resnet101", "sew_resnet152"}]  # more of the same


class Frames(LightningDataModule):
    """A few random frames of a network's input shape."""

    def __init__(self, name: str):
        super().__init__()
        self.samples = TensorDataset(inputs(name, 6), torch.arange(6) % CLASSES)

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=3)

    calibration_dataloader = train_dataloader


def half(method: str) -> Compressor:
    """The method at half the weights, or at 4 bits."""
    kind = COMPRESSORS[method].load()
    options = {"density": {"density": 0.5}, "bits": {"bits": 4}, "none": {}}
    return kind(**options[next(name for name in ("density", "bits", "none") if name in kind.budgets)])


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(COMPRESSORS))
@pytest.mark.parametrize("name", PAIRED)
def test_every_compressor_meets_every_network(name, method):
    module, compressor = lively(build(name)), half(method)
    trainer = Trainer(max_epochs=0, callbacks=[compressor], **QUIET)
    trainer.fit(module, datamodule=Frames(name))
    assert compressor.compression.layers
    scores = module(inputs(name))
    assert scores.shape == (BATCH, CLASSES)
    assert torch.isfinite(scores).all()


# Full size ------------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "resnet19": 12.6,  # arXiv 2202.11946
    "sew_resnet18": 11.69,  # arXiv 2102.04159
    "sew_resnet34": 21.79,
    "sew_resnet50": 25.56,
    "sew_resnet101": 44.55,
    "sew_resnet152": 60.19,
    "spikformer": 16.81,  # arXiv 2209.15425
    "spike_driven_transformer": 16.81,  # arXiv 2307.01694
    "qkformer": 16.47,  # arXiv 2403.16552
}
"""Millions of parameters that the papers state."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_is_the_published_one(name):
    assert survey(name).parameters / 1e6 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_a_survey_counts_by_hand():
    found = survey("mlp")
    assert (found.parameters, found.neurons) == (2312 * 256 + 256 * 10, 256 + 10)
    assert (found.layers, found.with_neuron) == (2, 2)
    assert (found.data, found.timesteps) == ("nmnist", 100)


# What the zoo takes from SpikingJelly stays SpikingJelly's ------------------------------------------------------------


def _spikingjelly(name: str) -> tuple[nn.Module, nn.Module]:
    """A network of the zoo at full width, and SpikingJelly's own, with the zoo's weights."""
    from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

    from benchmark.networks.zoo.neurons import integrate_and_fire

    theirs = {
        "sew_resnet18": lambda: sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=integrate_and_fire),
        "sew_resnet50": lambda: sew_resnet.sew_resnet50(cnf="ADD", spiking_neuron=integrate_and_fire),
        "spiking_resnet": lambda: spiking_resnet.spiking_resnet18(spiking_neuron=integrate_and_fire),
    }[name]()
    ours = MODELS[name].load()((3, 96, 96), 1000)
    functional.set_step_mode(theirs, "m")
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sew_resnet18", "sew_resnet50", "spiking_resnet"])
def test_residual_networks_are_spikingjellys(name):
    torch.manual_seed(0)
    ours, theirs = _spikingjelly(name)
    x = torch.rand(2, 1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert [type(m) for m in ours.modules() if is_neuron(m)] == [type(m) for m in theirs.modules() if is_neuron(m)]


@pytest.mark.parametrize("name", ["spikformer", "spike_driven_transformer", "qkformer", "ms_resnet"])
def test_mean_over_time_is_what_spikingjellys_network_gives(name):
    from spikingjelly.activation_based.model.ms_resnet import MSResNet
    from spikingjelly.activation_based.model.qkformer import QKFormer
    from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer
    from spikingjelly.activation_based.model.spikformer import Spikformer

    shape = TINY[name].shape
    theirs = {
        "spikformer": lambda: pool_spikes(
            Spikformer(
                img_size_h=16, img_size_w=16, patch_size=4, num_classes=CLASSES, embed_dims=32, num_heads=2, depths=1
            )
        ),
        "spike_driven_transformer": lambda: SpikeDrivenTransformer(
            num_classes=CLASSES, embed_dims=16, num_heads=2, depths=2, pooling_stat="0011"
        ),
        "qkformer": lambda: QKFormer(num_classes=CLASSES, embed_dims=16, num_heads=(2, 2, 2), depths=(1, 1, 1)),
        "ms_resnet": lambda: MSResNet(
            in_channels=2, num_classes=CLASSES, base_channels=2, stem_kernel_size=3, stem_stride=1
        ),
    }[name]()
    ours = build(name).network
    for bias in theirs.load_state_dict(ours.state_dict(), strict=False).missing_keys:
        assert bias.startswith("patch_embed")  # before a BatchNorm; the papers' code has none
        nn.init.zeros_(theirs.get_parameter(bias))
    x = torch.rand(T, BATCH, *shape)
    expected = theirs(x)
    torch.testing.assert_close(ours(x).mean(0), expected.mean(0) if expected.ndim == 3 else expected)
