"""QP-SNN as a whole: what it cuts and rounds, when, and what it refuses."""

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.optimization import Optimization
from compressors.budget import OptionError
from compressors.methods.qpsnn import QPSNN
from compressors.network.layers import LayerError
from tests.compressors.networks import QUIET, RandomEvents, classifier, fit, weights


def silent_channel(module, channel):
    """A channel of the first convolution that never fires."""
    with torch.no_grad():
        module.network[1].weight[channel] = 0
        module.network[1].bias[channel] = -1
    return module


@pytest.mark.parametrize("criterion", ["svs", "svs-library"])
def test_a_silent_channel_goes_first_and_takes_nothing_with_it(criterion):
    module, data = silent_channel(classifier(), 2), RandomEvents()
    before = module.eval()(data.x)
    pruner = QPSNN(criterion=criterion, ratios={"network.0": 0.16})
    fit(pruner, module)
    assert pruner.compression.layers[0].outputs.tolist() == [0, 1, 3, 4, 5]
    torch.testing.assert_close(module.eval()(data.x), before)


def test_ratios_say_how_many_channels_each_layer_loses():
    pruner = QPSNN(ratios={"network.0": 0.5, "network.*": 0.25})
    module = fit(pruner)
    assert (module.network[0].out_channels, module.network[5].out_features) == (3, 6)  # of 6 and 8
    assert pruner.compression.layers[0].to_dict()["before"] == [6, 2, 3, 3]
    assert pruner.compression.density == pytest.approx((3 * 18 + 6 * 27 + 3 * 6) / 564)


@pytest.mark.parametrize("share", ["uniform", "global"])
def test_the_network_is_narrower_and_computes_with_what_is_left(share):
    pruner = QPSNN(0.4, share=share)
    module = fit(pruner)
    first, second, last = (module.network[i] for i in (0, 5, 7))
    assert module.network[1].num_features == first.out_channels == second.in_features // 9
    assert second.out_features == last.in_features
    kept = sum(m.weight.numel() for m in (first, second, last))
    assert 0.25 * 564 < kept <= 0.4 * 564
    assert kept == sum(entry.kept for entry in pruner.compression.layers)
    assert module(RandomEvents().x).shape == (12, 3)


def test_first_and_last_layer_stay_floats_unless_asked():
    for ends, expected in [(False, ["network.5"]), (True, ["network.0", "network.5", "network.7"])]:
        pruner = QPSNN(bits=4, quantize_ends=ends)
        module = fit(pruner)
        assert list(pruner.compression.codings()) == expected
        for entry in pruner.compression.layers:
            weight = module.get_submodule(entry.name).weight
            assert (entry.grid is None) == (entry.name not in expected)
            if entry.grid is not None:
                assert torch.equal(entry.weight(), weight)
                assert len(weight[0].unique()) <= 16


@pytest.mark.parametrize(("ratio", "width"), [(0.0, 10), (0.1, 9), (0.3, 7), (0.45, 5), (0.9, 1), (0.99, 1)])
def test_widths_of_ratios_are_rounded_down_but_never_to_nothing(ratio, width):
    module = classifier()
    module.network[5], module.network[7] = layer.Linear(54, 10, step_mode="m"), layer.Linear(10, 3, step_mode="m")
    fit(QPSNN(ratios={"network.5": ratio}), module)
    assert module.network[5].out_features == width


def test_what_can_lose_no_channels_can_be_rounded():
    fit(QPSNN(bits=4, quantize_ends=True, include=["network.7"]))
    with pytest.raises(LayerError, match="no layer can lose channels: 'network.7': it is the network's output; take"):
        fit(QPSNN(0.5, include=["network.7"]))


@pytest.mark.parametrize("options", [{"density": 0.5}, {"ratios": {"*": 0.5}}])
def test_where_nothing_can_be_cut_every_layer_has_its_reason(options):
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.first, self.spike = layer.Flatten(), layer.Linear(72, 8), neuron.LIFNode()
            self.last = layer.Linear(8, 3)

        def forward(self, x):
            return self.last(self.spike(self.first(self.flat(x))).cumsum(-1))

    net = Mixed()
    functional.set_step_mode(net, "m")
    with pytest.raises(LayerError) as error:
        fit(QPSNN(**options), SNNClassifier(net, classes=3, timesteps=4))
    assert "'network.first': it reaches cumsum(), 'network.last': it is the network's output" in str(error.value)


def test_size_as_the_paper_counts_it():
    pruner = QPSNN(bits=2)
    fit(pruner)
    sizes = [entry.to_dict()["paper_bits"] for entry in pruner.compression.layers]
    assert sizes == [32 * (108 + 12), 2 * 432, 32 * (24 + 3)]


class OneImage(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)), batch_size=1)

    calibration_dataloader = train_dataloader


@pytest.mark.parametrize(
    ("early", "late", "megabytes"), [(0.45, 0.51, (4.28, 2.16, 1.10)), (0.49, 0.80, (1.45, 0.74, 0.39))]
)
def test_sizes_of_the_papers_vgg16_are_those_it_reports(early, late, megabytes):
    """CIFAR-10, 8, 4 and 2 bits (Table 1): the first seven convolutions early, the others but the last late."""
    widths, blocks, channels = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6, [], 3
    for number, width in enumerate(widths):
        convolution = layer.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks += [convolution, layer.BatchNorm2d(width), neuron.LIFNode()]
        blocks += [layer.AvgPool2d(2)] * (number in (1, 3, 6, 9, 12))
        channels = width
    net = nn.Sequential(*blocks, layer.Flatten(), layer.Linear(512, 10, bias=False))
    functional.set_step_mode(net, "m")
    names = [f"network.{place}" for place, part in enumerate(net) if isinstance(part, layer.Conv2d)]
    ratios = dict.fromkeys(names[:7], early) | dict.fromkeys(names[7:-1], late)
    pruner = QPSNN(bits=2, ratios=ratios)
    fit(pruner, SNNClassifier(net, classes=10, timesteps=1), data=OneImage())
    for bits, size in zip((8, 4, 2), megabytes, strict=True):
        entries = [entry.to_dict() for entry in pruner.compression.layers]
        counted = sum(e["paper_bits"] + (bits - 2) * e["kept"] * ("bits" in e) for e in entries)
        assert round(counted / 8e6, 2) == size


@pytest.mark.parametrize("options", [{}, {"order": "prune-quantize"}, {"gradient": "scaled"}, {"gamma": "max"}])
def test_quantised_training_learns_and_ends_on_the_grid(options):
    module = classifier()
    module.optimization = Optimization(learning_rate=0.02)
    pruner = QPSNN(0.5, bits=4, **options)
    fit(pruner, module, epochs=6)
    entry = pruner.compression.layers[1]
    assert torch.equal(entry.weight(), module.network[5].weight)
    assert len(module.network[5].weight[0].unique()) <= 16
    assert module.network[0].out_channels < 6
    start = fit(QPSNN(0.5, bits=4, **options))
    if start.network[5].weight.shape == module.network[5].weight.shape:
        assert not torch.equal(start.network[5].weight, module.network[5].weight)


def widths(module):
    return module.network[0].out_channels, module.network[5].out_features


class Widths(Callback):
    """Writes down what the network is at the end of every epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        levels = len(pl_module.network[5].weight[0].unique())
        self.seen.append((widths(pl_module), levels))


def test_the_second_step_comes_after_two_thirds_of_the_epochs():
    for order in ("quantize-prune", "prune-quantize"):
        watch, pruner, module = Widths(), QPSNN(0.4, bits=2, order=order), classifier()
        Trainer(max_epochs=3, callbacks=[pruner, watch], **QUIET).fit(module, datamodule=RandomEvents())
        whole = [seen[0] == (6, 8) for seen in watch.seen]
        assert whole == ([True, True, False] if order == "quantize-prune" else [False] * 3)
        assert len(module.network[5].weight[0].unique()) <= 4


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("order", [{}, {"order": "prune-quantize"}])
def test_resuming_before_and_after_the_second_step_gives_the_same_bits(epoch, order, tmp_path):
    def make():
        return QPSNN(0.4, bits=3, first_share=0.5, **order)

    whole = fit(make(), epochs=4)

    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    options = {**QUIET, "enable_checkpointing": True}
    Trainer(max_epochs=4, callbacks=[make(), kept], **options).fit(classifier(), datamodule=RandomEvents())
    resumed, pruner = classifier(seed=5), make()
    Trainer(max_epochs=4, callbacks=[pruner], **QUIET).fit(
        resumed, datamodule=RandomEvents(), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", weights_only=True
    )
    expected = weights(whole)
    assert weights(resumed).keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())


class StopAfterTwoEpochs(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 1


def test_a_checkpoint_of_rounded_weights_goes_on_from_those_behind_them(tmp_path):
    def make():
        return QPSNN(0.4, bits=3, first_share=0.5)

    whole, part = fit(make(), epochs=4), classifier()
    trainer = Trainer(max_epochs=4, callbacks=[make(), StopAfterTwoEpochs()], **QUIET)
    trainer.fit(part, datamodule=RandomEvents())
    assert len(part.network[5].weight[0].unique()) <= 8, "the end of the fit has left rounded weights"
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    resumed = classifier(seed=5)
    Trainer(max_epochs=4, callbacks=[make()], **QUIET).fit(
        resumed, datamodule=RandomEvents(), ckpt_path=tmp_path / "part.ckpt", weights_only=True
    )
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())


def test_the_result_loads_without_this_project(tmp_path):
    module = fit(QPSNN(0.4, bits=4), epochs=1)
    torch.save(module.network, tmp_path / "network.pt")
    loaded = torch.load(tmp_path / "network.pt", weights_only=False)
    assert not any(type(part).__module__.startswith("compressors") for part in loaded.modules())
    functional.reset_net(loaded)
    x = RandomEvents().x
    assert torch.equal(loaded.eval()(x.transpose(0, 1)).mean(0), module.eval()(x))


def test_a_layer_that_no_neuron_follows_is_named():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = layer.Linear(72, 8)
            self.last = layer.Linear(8, 3)
            functional.set_step_mode(self, "m")

        def forward(self, x):
            return self.last(self.first(x.flatten(2)).relu())

    module = classifier()
    module.network = Gated()
    with pytest.raises(LayerError, match="'network.first': no spiking neuron follows"):
        fit(QPSNN(0.5), module)


def test_a_neuron_with_other_channels_than_its_layer_is_named():
    module = classifier()
    module.network[3] = layer.Flatten(step_mode="m")
    module.network[3], module.network[2] = module.network[2], module.network[3]  # flattened before the neuron
    module.network[5] = layer.Linear(6 * 36, 8, bias=False, step_mode="m")
    with pytest.raises(LayerError, match="'network.0' has 6 outputs, and the neuron after it 216 channels"):
        fit(QPSNN(0.5), module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": "maen"}, "gamma is 'maen': did you mean 'mean'"),
        ({"criterion": "sav"}, "criterion is 'sav': did you mean"),
        ({"order": "prune"}, "order is 'prune'"),
        ({"first_share": 2}, "first_share is 2"),
        ({"ratios": {"network.0": 1.0}}, "ratio of 'network.0' is 1.0"),
        ({"density": 0.5, "ratios": {"network.0": 0.1}}, "give one of them"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        QPSNN(**options)


def test_a_pattern_of_ratios_without_a_match_names_the_layers():
    with pytest.raises(LayerError, match="'network.7' of ratios matches no layer.*network.0, network.5"):
        fit(QPSNN(ratios={"network.7": 0.5}))
