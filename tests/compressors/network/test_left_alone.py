"""What nobody can compress is left alone and named; `exclude` wins; what is refused is refused by name and remedy."""

import pytest
import torch
from lightning.pytorch import Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, remove_weight_norm, spectral_norm, weight_norm

from benchmark import SNNClassifier, compress
from benchmark.contract.subject import CLASSES, QUIET, RandomEvents, T, classifier
from compressors import QPSNN, SBC, SLAMP, Identity, RandomPruning
from compressors.network.layers import NO_TIME, LayerError, find_layers
from compressors.network.neurons import impulse_response
from compressors.registry import COMPRESSORS

DATA = RandomEvents()


def body(spike=None):
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1),
        spike or neuron.LIFNode(),
        layer.Flatten(),
        layer.Linear(144, 8, bias=False),
        neuron.LIFNode(),
    )
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.mul_(6)
        net[3].weight.mul_(6)
    return net


class Headed(nn.Module):
    """A body, something that is done to its spikes, and a head."""

    def __init__(self, head, between=None, spike=None):
        super().__init__()
        self.body, self.head, self.between = body(spike), head, between or (lambda x: x)

    def forward(self, x):
        return self.head(self.between(self.body(x)))


class OfList(nn.Module):
    """A leaf that takes a list and gives one."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 3))

    def forward(self, tensors):
        return [tensor @ self.scale for tensor in tensors]


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.leaf = Headed(layer.Linear(8, CLASSES, step_mode="m")), OfList()

    def forward(self, x):
        return self.leaf([self.net(x)])[0]


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.attention = body()[:2], layer.SpikingSelfAttention(4, 2)
        self.head = layer.Linear(144, CLASSES, step_mode="m")

    def forward(self, x):
        return self.head(self.attention(self.body(x).flatten(3)).flatten(2))


def wrapped(net):
    return SNNClassifier(net, classes=CLASSES, timesteps=T)


def names(result):
    return [entry.name.removeprefix("network.") for entry in result.compression.layers]


METHODS = [RandomPruning, SLAMP]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_head_behind_the_mean_is_left_alone_and_named(method):
    net = Headed(nn.Linear(8, CLASSES), lambda x: x.mean(0))
    result = compress(wrapped(net), DATA, method(0.5))
    assert names(result) == ["body.0", "body.3"]
    assert result.compression.left_alone == (f"network.head (Linear, which {NO_TIME})",)
    assert torch.equal(result.network.head.weight, net.head.weight)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_linear_layer_without_step_mode_that_sees_time_is_like_one_with(method):
    plain, stepped = Headed(nn.Linear(8, CLASSES)), Headed(layer.Linear(8, CLASSES, step_mode="m"))
    stepped.load_state_dict(plain.state_dict())
    one, other = (compress(wrapped(net), DATA, method(0.5)) for net in (plain, stepped))
    assert names(one) == names(other) == ["body.0", "body.3", "head"]
    state = other.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.network.state_dict().items())


def test_steps_and_samples_as_one_are_no_time():
    net = Headed(nn.Linear(8, CLASSES), lambda x: x.flatten(0, 1))
    net.head.register_forward_hook(lambda module, args, output: output.unflatten(0, (T, -1)))
    result = compress(wrapped(net), DATA, RandomPruning(0.5))
    assert names(result) == ["body.0", "body.3"]


def test_leaves_that_take_lists_and_attention_are_passed():
    result = compress(wrapped(Listed()), DATA, SBC(0.5))
    assert names(result) == ["net.body.0", "net.body.3", "net.head"]
    assert result.compression.left_alone == ("network.leaf (OfList)",)
    attentive = compress(wrapped(Attentive()), DATA, RandomPruning(0.5))
    assert names(attentive) == ["body.0", "attention.qkv_conv_bn.0", "attention.proj_conv_bn.0", "head"]


def test_a_network_of_nothing_else_is_refused_with_the_reason():
    net = nn.Sequential(nn.Flatten(2), nn.Linear(72, CLASSES))
    functional.set_step_mode(net, "m")
    with pytest.raises(LayerError, match=r"layer '1' sees one time step at a time"):
        find_layers(net, lambda: net(torch.rand(2, 3, 2, 6, 6)))  # no neuron says what time is, and there are 3 samples


RECOMPUTED = {
    "weight_norm": (weight_norm, "remove_weight_norm", remove_weight_norm),
    "spectral_norm": (spectral_norm, "remove_spectral_norm", None),
    "pruning": (lambda part: prune.l1_unstructured(part, "weight", 0.5), "prune.remove",
                lambda part: prune.remove(part, "weight")),
}  # fmt: skip


@pytest.mark.parametrize("name", RECOMPUTED)
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_weights_that_are_computed_anew_are_refused_with_the_remedy_and_may_be_excluded(name):
    change, remedy, undo = RECOMPUTED[name]
    net = Headed(layer.Linear(8, CLASSES, step_mode="m"))
    change(net.body[3])
    with pytest.raises(
        LayerError, match=rf"layer 'network.body.3' .* by .*{name}: make it plain by .*{remedy}"
    ) as told:
        compress(wrapped(net), DATA, RandomPruning(0.5))
    assert "\n" not in str(told.value)
    result = compress(wrapped(net), DATA, RandomPruning(0.5, exclude=["*.body.3"]))
    assert "network.body.3 (Linear)" in result.compression.left_alone
    if undo is not None:
        undo(net.body[3])
        assert "body.3" in names(compress(wrapped(net), DATA, RandomPruning(0.5)))


@pytest.mark.parametrize("recompute", [weight_norm, spectral_norm, lambda module: prune.identity(module, "weight")])
def test_the_dense_row_leaves_layers_alone_whose_weight_is_computed_anew(recompute):
    net = Headed(layer.Linear(8, CLASSES, step_mode="m"))
    recompute(net.body[3])
    result = compress(wrapped(net), DATA, Identity())
    assert names(result) == ["body.0", "head"]
    assert result.compression.left_alone == ("network.body.3 (Linear)",)
    assert result.compression.density == 1
    with pytest.raises(LayerError, match="the weight of layer 'network.body.3' is computed anew"):
        compress(wrapped(net), DATA, Identity(include=["network.body.3"]))


class Decoding(nn.Module):
    """Computes with the weight of another layer."""

    def __init__(self, use):
        super().__init__()
        self.use, self.lender = use, []

    def forward(self, y):
        return self.use(y, self.lender[0].weight)


@pytest.mark.parametrize(
    "use",
    [
        lambda y, weight: nn.functional.linear(y, weight.t()),
        lambda y, weight: y @ weight,
        lambda y, weight: nn.functional.linear(y, (2 * weight).detach().t()),
        lambda y, weight: torch.einsum("tbi,io->tbo", y, weight),
    ],
    ids=["linear", "matmul", "computed", "einsum"],
)
def test_a_module_that_uses_the_weight_of_a_layer_is_named(use):
    net = Headed(layer.Linear(144, CLASSES, step_mode="m"), between=Decoding(use))
    net.between.lender.append(net.body[3])
    result = compress(wrapped(net), DATA, RandomPruning(0.5))
    assert names(result) == ["body.0", "body.3", "head"]
    assert result.compression.left_alone == ("network.between, which uses the weight of network.body.3 too",)


def test_a_weight_that_is_only_looked_at_is_used_by_nobody_else():
    net = Headed(
        layer.Linear(8, CLASSES, step_mode="m"), between=Decoding(lambda y, weight: y + (weight @ weight.t()).sum())
    )
    net.between.lender.append(net.body[3])
    assert compress(wrapped(net), DATA, RandomPruning(0.5)).compression.left_alone == ()


def test_parametrized_layers_are_left_alone():
    net = Headed(layer.Linear(8, CLASSES, step_mode="m"))
    parametrizations.weight_norm(net.body[3])
    result = compress(wrapped(net), DATA, RandomPruning(0.5))
    assert names(result) == ["body.0", "head"]
    with pytest.raises(LayerError, match="'network.body.3' has parameters of its own"):
        compress(wrapped(net), DATA, QPSNN(0.5))  # whose only other layer gives it its channels
    assert result.compression.left_alone == ("network.body.3.parametrizations.weight (ParametrizationList)",)
    assert parametrize.is_parametrized(result.network.body[3])


def test_what_is_excluded_is_no_reason_to_refuse():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.extra = Headed(layer.Linear(8, CLASSES, step_mode="m")), layer.Linear(72, 3, step_mode="m")

        def forward(self, x):
            return self.net(x) + (self.extra(x.flatten(2)) if x.any() else 0)

    with pytest.raises(LayerError, match=r"whether network.extra runs depends on the data: .* or exclude it"):
        compress(wrapped(Branching()), DATA, RandomPruning(0.5))
    result = compress(wrapped(Branching()), DATA, RandomPruning(0.5, exclude=["*.extra"]))
    assert names(result) == ["net.body.0", "net.body.3", "net.head"]
    broken = Headed(nn.Linear(8, CLASSES), lambda x: x.mean(0))
    with torch.no_grad():
        broken.head.bias.fill_(0.5)
    assert names(compress(wrapped(broken), DATA, RandomPruning(0.5, exclude=["*.head"]))) == ["body.0", "body.3"]


def of_channels():
    node = neuron.ParametricLIFNode()
    node.w = nn.Parameter(torch.zeros(4, 1, 1))
    return node


def of_learnt_threshold():
    node = neuron.LIFNode()
    del node.v_threshold
    node.v_threshold = nn.Parameter(torch.tensor(1.0))
    return node


NEURONS = {
    "SimpleLIFNode": lambda: neuron.SimpleLIFNode(tau=2.0, decay_input=True),
    "GatedLIFNode": lambda: neuron.GatedLIFNode(T=T, inplane=4),
    "DSRLIFNode": lambda: neuron.DSRLIFNode(T=T),
    "KLIFNode": neuron.KLIFNode,
    "ParametricLIFNode": of_channels,
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons_without_one_filter_are_refused_by_name_where_it_is_needed_and_only_there(name):
    node = NEURONS[name]()
    node.step_mode = "m"
    with pytest.raises(LayerError, match=rf"{name} .*'obc'"):
        impulse_response(node, T)
    net = wrapped(Headed(layer.Linear(8, CLASSES, step_mode="m"), spike=node))
    assert names(compress(net, DATA, RandomPruning(0.5))) == ["body.0", "body.3", "head"]


@pytest.mark.parametrize("method", ["sbc", "qpsnn"])
def test_a_learnt_threshold_is_one_like_any_other(method):
    results = [
        compress(wrapped(Headed(layer.Linear(8, CLASSES, step_mode="m"), spike=spike)), DATA, method, density=0.5)
        for spike in (of_learnt_threshold(), neuron.LIFNode())
    ]
    one, other = (result.network.body[0].weight for result in results)
    torch.testing.assert_close(one, other)
    assert results[0].network.body[1].v_threshold.item() == 1


def test_a_neuron_that_rectifies_is_no_filter():
    with pytest.raises(LayerError, match="KLIFNode is not a linear filter below its threshold"):
        impulse_response(neuron.KLIFNode(step_mode="m"), T)
    expected = 0.5 * 0.5 ** torch.arange(T, dtype=torch.float64)
    torch.testing.assert_close(impulse_response(neuron.LIFNode(step_mode="m"), T), expected)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize("method", ["sbc", "qpsnn"])
def test_trainers_of_true_half_and_double_precision(precision, method):
    compressor = COMPRESSORS[method].load()(density=0.5, aftercare=("means", "batchnorm"))
    module, trainer = classifier(), Trainer(max_epochs=1, precision=precision, callbacks=[compressor], **QUIET)
    trainer.fit(module, datamodule=DATA)
    (metrics,) = trainer.test(module, datamodule=DATA, verbose=False)
    assert 0 <= metrics["test/accuracy"] <= 1
    assert compressor.compression.density == pytest.approx(0.5, abs=0.05)
    assert {weight.dtype for weight in module.network.parameters()} == {
        torch.bfloat16 if precision == "bf16-true" else torch.float64
    }


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = body(), layer.Linear(8, CLASSES, step_mode="m")

    def forward(self, x):
        x = self.body[1](self.body[0](x=x)).flatten(2)
        return self.head(input=self.body[4](self.body[3](input=x)))


@pytest.mark.parametrize("method", ["sbc", "slamp"])
def test_layers_may_be_called_with_arguments_by_name(method):
    nets = ByName(), Headed(layer.Linear(8, CLASSES, step_mode="m"))
    nets[1].head.load_state_dict(nets[0].head.state_dict())
    one, other = (compress(wrapped(net), DATA, method, density=0.5, aftercare=("means",)) for net in nets)
    assert one.compressed.cost.synops == other.compressed.cost.synops
    assert torch.equal(one.network.body[3].weight, other.network.body[3].weight)
