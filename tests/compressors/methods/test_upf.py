"""UPF: masks and their gradients, what the price counts, and dead neurons on their way to records, cost and files."""

import itertools

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import layer, neuron
from torch import nn

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.weights import checkpoints
from compressors.methods.upf import FIRST, LAST, UPF, ChannelGates, Gates, Masked, connections
from compressors.weights.allocation import kept_in_all
from hardware import HardwareCost
from tests.compressors.networks import CLASSES, QUIET, RandomEvents, T, classifier, weights

LAYERS = ("network.0", "network.5", "network.7")
EPOCHS = 4


def fitted(compressor, epochs=EPOCHS, callbacks=(), module=None, **trainer):
    module = module or classifier()
    module.configure_optimizers = lambda: torch.optim.Adam(module.parameters(), lr=0.02)
    Trainer(max_epochs=epochs, callbacks=[compressor, *callbacks], **QUIET | trainer).fit(
        module, datamodule=RandomEvents()
    )
    return module


def opened(density=0.3, **options):
    """A compressor whose masks are set up and still learnt, and its network."""
    compressor = UPF(density, **options)

    class Stop(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            trainer.should_stop = True
            return -1

    compressor.settle = lambda module: None
    module = fitted(compressor, 1, [Stop()])
    return compressor, module


def set_masks(gates, values):
    """Masks of zero and one."""
    gates.learnt.data.copy_(torch.where(values.bool(), 1.0, -1.0))
    gates.beta = 1e4


def counted(module, weight_masks, alive):
    """Connections of the small network, counted one by one: by its weights, and by the channels that they hear."""
    shapes = {name: module.get_parameter(f"{name}.weight").shape for name in LAYERS}
    places = {"network.0": 36, "network.5": 1, "network.7": 1}
    heard = {"network.0": lambda i: None, "network.5": lambda i: ("conv", i // 9), "network.7": lambda i: ("fc", i)}
    by_weights = by_channels = 0
    for name, shape in shapes.items():
        for index in itertools.product(*map(range, shape)):
            for _ in range(places[name]):
                by_weights += int(weight_masks[name][index])
                source = heard[name](index[1])
                by_channels += 1 if source is None else int(alive[source])
    return by_weights, by_channels


def test_the_price_counts_connections_where_masks_are_zeros_and_ones():
    compressor, module = opened()
    generator = torch.Generator().manual_seed(1)
    chosen = {}
    for name, rule in compressor.layers.items():
        chosen[name] = torch.rand(rule.weights.learnt.shape, generator=generator) < 0.4
        set_masks(rule.weights, chosen[name])
    traced = compressor.state.traced.layers
    channels = next(iter(compressor.layers.values())).channels
    alive = torch.rand(channels.learnt.shape, generator=generator) < 0.5
    set_masks(channels, alive)
    by_name = {("conv", i): alive[g] for i, g in enumerate(traced["network.0"].outputs)}
    by_name |= {("fc", i): alive[g] for i, g in enumerate(traced["network.5"].outputs)}
    assert 0 < sum(map(int, by_name.values())) < len(by_name)
    assert connections(list(compressor.layers.values())) == pytest.approx(counted(module, chosen, by_name))


def test_the_price_is_that_of_the_dense_network_where_all_masks_are_open():
    compressor, _ = opened()
    rules = list(compressor.layers.values())
    for rule in rules:
        set_masks(rule.weights, torch.ones_like(rule.weights.learnt))
    set_masks(rules[0].channels, torch.ones_like(rules[0].channels.learnt))
    total = 36 * 108 + 432 + 24
    assert connections(rules) == pytest.approx((total, total))


def test_gradients_are_those_of_autograd():
    """Of loss and price, by weights and by masks of weights and channels, two layers sharing the channels."""
    torch.manual_seed(0)
    shared = ChannelGates.like(torch.zeros(4), 3.0)
    shared.learnt.data.uniform_(-0.2, 0.2)
    shapes = [(3, 2, 2, 2), (4, 5)]
    heard = [torch.tensor([0, 1]).view(1, 2, 1, 1), torch.tensor([[1, 2, 2, 3, 0]])]
    parts = zip(shapes, heard, (9, 1), strict=True)
    rules = [Masked(Gates.like(torch.zeros(shape), 3.0), shared, hears, places) for shape, hears, places in parts]
    for rule in rules:
        rule.weights.learnt.data.uniform_(-0.2, 0.2)
    latents = [torch.randn(shape) for shape in shapes]
    towards = [torch.randn(shape) for shape in shapes]
    compressor = UPF(0.5, price=0.7, pace=3.0)
    compressor.latent.rules = {str(i): rule for i, rule in enumerate(rules)}

    own = [rule.weights.learnt.detach().clone().requires_grad_() for rule in rules]
    channels = shared.learnt.detach().clone().requires_grad_()
    behind = [latent.clone().requires_grad_() for latent in latents]
    gates = torch.cat([torch.ones(1), (FIRST * 3.0 * channels[1:]).sigmoid()])
    masks = [(FIRST * 3.0 * a).sigmoid() for a in own]
    loss = sum((w * m * gates[h] * g).sum() for w, m, h, g in zip(behind, masks, heard, towards, strict=True))
    expected = sum(rule.positions * m.sum() for rule, m in zip(rules, masks, strict=True))
    outgoing = sum(rule.positions * gates[h].expand(s).sum() for rule, h, s in zip(rules, heard, shapes, strict=True))
    price = 0.7 * (expected + outgoing) / (9 * 24 + 20)
    (loss + price).backward()

    handed_on = [rule.backward(g, w) for rule, g, w in zip(rules, towards, latents, strict=True)]
    compressor.charge()
    for rule, latent, handed, leaf, mask in zip(rules, latents, handed_on, behind, own, strict=True):
        torch.testing.assert_close(handed, leaf.grad)
        torch.testing.assert_close(rule.weights.learnt.grad, mask.grad)
        assert rule.value(latent).shape == latent.shape
    torch.testing.assert_close(shared.learnt.grad, channels.grad)


class Watch(Callback):
    """The masks' sharpness and variables of every step."""

    def __init__(self, compressor):
        self.compressor, self.betas, self.learnt, self.left = compressor, [], [], []

    def on_before_backward(self, trainer, pl_module, loss):
        rule = self.compressor.layers["network.5"]
        self.betas.append(rule.weights.beta)
        self.learnt.append(torch.cat([rule.weights.learnt.detach().flatten(), rule.channels.learnt.detach()]))
        self.left.append(int(pl_module.get_parameter("network.5.weight").count_nonzero()))


def test_masks_grow_sharp_are_learnt_and_then_hold():
    compressor = UPF(0.3, until=0.5, price=0.1, pace=1.0)
    watch = Watch(compressor)
    module = fitted(compressor, callbacks=[watch])
    assert watch.betas[:6] == pytest.approx([FIRST * (LAST / FIRST) ** (n / 6) for n in range(6)])
    assert len(watch.betas) == 3 * EPOCHS
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(watch.learnt)]
    assert moved[0]
    assert watch.left[0] == 432
    assert len({*watch.left[7:]}) == 1
    assert watch.left[7] < watch.left[0]
    assert compressor.compression.density == pytest.approx(0.3, abs=1e-3)
    for entry in compressor.compression.layers:
        assert torch.equal(module.get_parameter(f"{entry.name}.weight") != 0, entry.mask)


def test_a_high_price_closes_masks_and_a_price_of_nothing_leaves_the_budget():
    dear, free = UPF(0.5, price=1e3, pace=50.0), UPF(0.5, price=0.0)
    fitted(dear)
    fitted(free)
    assert dear.compression.density < 0.2
    assert free.compression.density == pytest.approx(0.5, abs=1e-3)


def with_dead_channels(compressor):
    """Closes the masks of two channels of the convolution and of three neurons before the masks are final."""

    class Close(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            traced = compressor.state.traced.layers
            gone = torch.cat([traced["network.0"].outputs[[1, 4]], traced["network.5"].outputs[[0, 2, 7]]])
            next(iter(compressor.layers.values())).channels.learnt.data[gone] = -1.0

    return Close()


def test_dead_neurons_reach_the_account_the_cost_and_the_files(tmp_path):
    compressor = UPF(0.2, price=0.0, until=0.25)
    module = fitted(compressor, callbacks=[with_dead_channels(compressor)])
    entries = {entry.name: entry for entry in compressor.compression.layers}
    assert [entry.before for entry in entries.values()] == [(6, 2, 3, 3), (8, 54), (3, 8)]
    outputs, neurons = (entries[name].outputs.tolist() for name in LAYERS[:2])
    assert not {1, 4} & {*outputs}
    assert not {0, 2, 7} & {*neurons}
    wide = [(len(outputs), 2, 3, 3), (len(neurons), 9 * len(outputs)), (3, len(neurons))]
    assert [tuple(module.get_parameter(f"{name}.weight").shape) for name in LAYERS] == wide
    assert [entry.shape for entry in entries.values()] == wide
    told = compressor.compression.to_dict()
    assert told["density"] == pytest.approx(0.2, abs=2e-3)
    assert [layer["weights"] for layer in told["layers"]] == [108, 432, 24]

    counter = HardwareCost()
    Trainer(callbacks=[counter], **QUIET).test(module, datamodule=RandomEvents(), verbose=False)
    assert [cost.nonzero for cost in counter.report.layers] == [entry.kept for entry in entries.values()]
    assert [cost.neurons for cost in counter.report.neurons] == [36 * len(outputs), len(neurons)]
    path = tmp_path / "narrow.safetensors"
    checkpoints.save_packed(path, module.network, {}, compressor.compression)
    state = checkpoints.load(path).state
    assert all(torch.equal(state[name], value) for name, value in module.network.state_dict().items())


def test_taking_dead_neurons_out_changes_no_score():
    compressor, scores = UPF(0.2, price=0.0, until=0.25), {}
    x = RandomEvents().x

    class Before(Callback):
        def on_train_end(self, trainer, pl_module):
            compressor.latent.put(pl_module)
            pl_module.eval()
            scores["wide"] = pl_module(x).detach()
            scores["dead"] = len(compressor.state.dead)

    module = fitted(compressor, callbacks=[with_dead_channels(compressor), Before()])
    assert scores["dead"] >= 5
    torch.testing.assert_close(module.eval()(x), scores["wide"])


@pytest.mark.parametrize("cut", [0, 2])
def test_a_fit_goes_on_where_it_was_cut_off(tmp_path, cut):
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    uninterrupted, resumed = UPF(0.2), UPF(0.2)
    whole = fitted(uninterrupted, callbacks=[with_dead_channels(uninterrupted), kept], enable_checkpointing=True)
    module = classifier(seed=3)
    module.configure_optimizers = lambda: torch.optim.Adam(module.parameters(), lr=0.02)
    Trainer(max_epochs=EPOCHS, callbacks=[resumed, with_dead_channels(resumed)], **QUIET).fit(
        module, datamodule=RandomEvents(), ckpt_path=tmp_path / f"epoch={cut}.ckpt", weights_only=True
    )
    assert weights(whole).keys() == weights(module).keys()
    assert all(torch.equal(value, weights(module)[name]) for name, value in weights(whole).items())
    assert uninterrupted.compression.to_dict()["layers"] == resumed.compression.to_dict()["layers"]


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_without_training_the_largest_weights_are_left(density):
    compressor = UPF(density)
    fitted(compressor, 0)
    dense = {name: classifier().get_parameter(f"{name}.weight") for name in LAYERS}
    assert sum(entry.kept for entry in compressor.compression.layers) == kept_in_all(dense, density)


class Residual(nn.Module):
    """Two convolutions that are added up, and a grouped one."""

    def __init__(self):
        super().__init__()
        self.first = layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m")
        self.second = layer.Conv2d(4, 4, 3, padding=1, bias=False, step_mode="m")
        self.grouped = layer.Conv2d(4, 4, 3, padding=1, groups=2, step_mode="m")
        self.nodes = nn.ModuleList([neuron.IFNode(step_mode="m") for _ in range(3)])
        self.out = layer.Linear(4 * 36, CLASSES, step_mode="m")

    def forward(self, x):
        first = self.nodes[0](3 * self.first(x))
        both = first + self.nodes[1](3 * self.second(first))
        return self.out(self.nodes[2](3 * self.grouped(both)).flatten(2))


@pytest.mark.parametrize("exclude", [(), ("network.grouped",)])
def test_channels_that_go_together_and_excluded_layers(exclude):
    torch.manual_seed(0)
    module = SNNClassifier(Residual(), classes=CLASSES, timesteps=T)
    compressor = UPF(0.2, exclude=exclude, price=0.0, until=0.3)

    class Close(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            next(iter(compressor.layers.values())).channels.learnt.data.fill_(-1.0)

    fitted(compressor, callbacks=[Close()], module=module)
    net = module.network
    assert torch.isfinite(module(RandomEvents().x)).all()
    assert net.first.weight.shape[0] == net.second.weight.shape[0] == net.grouped.in_channels
    if exclude:  # what an excluded layer hears stays
        assert net.first.weight.shape[0] == 4
    else:
        assert net.first.weight.shape[0] == 2  # one group of the grouped convolution
        assert net.grouped.groups == 1
