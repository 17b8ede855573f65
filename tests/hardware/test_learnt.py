"""Whatever multiplies an activation by something learnt is counted or named, and whatever is learnt has its bits."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from hardware import profile
from hardware.tally import split_steps
from tests.hardware import brute_force
from tests.hardware.networks import Alone, loader, sparsify, spikes

BITS = 32


class Of(nn.Module):
    """A function of the input and of parameters `w[0]`, `w[1]`, ... of the given shapes, half of them zeros."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.w = nn.ParameterList([torch.randn(shape) * (torch.rand(shape) < 0.6) for shape in shapes])
        self.register_buffer("mask", (torch.rand(4, 6) < 0.5).float())

    def forward(self, x):
        return self.function(x, self.w, self.mask)


def pairs(x, matrix):
    """Pairs by hand: x [..., in] and matrix [in, out]."""
    return brute_force.count_linear(x.reshape(-1, x.shape[-1]).numpy(), matrix.detach().t().numpy()).sum()


# x [B, 4] or [B, 5, 4] meets a matrix [4, 6] in one way or another; which matrix it is, given the parameters.
MATRICES = {
    "matmul": (lambda x, w, m: x @ w[0], [(4, 6)], lambda w, m: w[0]),
    "masked": (lambda x, w, m: x @ (w[0] * m), [(4, 6)], lambda w, m: w[0] * m),
    "tensordot": (lambda x, w, m: torch.tensordot(x, w[0], 1), [(4, 6)], lambda w, m: w[0]),
    "tensordot by name": (lambda x, w, m: torch.tensordot(x, w[0], dims=1), [(4, 6)], lambda w, m: w[0]),
    "stacked": (lambda x, w, m: F.linear(x, torch.cat([w[0], w[1]])), [(3, 4), (3, 4)],
                lambda w, m: torch.cat([w[0], w[1]]).t()),
    "inner": (lambda x, w, m: torch.inner(x, w[0]), [(6, 4)], lambda w, m: w[0].t()),
    "from the left": (lambda x, w, m: (w[0] @ x.mT).mT, [(6, 4)], lambda w, m: w[0].t()),
    "detached": (lambda x, w, m: x @ w[0].detach().clone(), [(4, 6)], lambda w, m: w[0]),
    "data": (lambda x, w, m: x @ w[0].data, [(4, 6)], lambda w, m: w[0]),
    "of zeros": (lambda x, w, m: x @ (torch.zeros(4, 6) + w[0]), [(4, 6)], lambda w, m: w[0]),
    "product of two": (lambda x, w, m: x @ (w[0] @ w[1]), [(4, 3), (3, 6)], lambda w, m: w[0] @ w[1]),
    "as a list": (lambda x, w, m: x @ torch.tensor(w[0].tolist()), [(4, 6)], lambda w, m: w[0]),
    "as an array": (lambda x, w, m: x @ torch.from_numpy(w[0].detach().numpy()), [(4, 6)], lambda w, m: w[0]),
    "as what numpy made of it": (lambda x, w, m: x @ torch.as_tensor(2 * np.asarray(w[0].detach())), [(4, 6)],
                                 lambda w, m: w[0]),
    "by its class": (lambda x, w, m: x @ torch.Tensor(w[0].tolist()), [(4, 6)], lambda w, m: w[0]),
    "like the input": (lambda x, w, m: x @ x.new_tensor(w[0].tolist()), [(4, 6)], lambda w, m: w[0]),
    "compiled": (torch.compile(lambda x, w, m: x @ w[0], backend="eager"), [(4, 6)], lambda w, m: w[0]),
    "softmax": (lambda x, w, m: x @ w[0].softmax(0), [(4, 6)], lambda w, m: w[0].softmax(0)),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4)], ids=["vectors", "tokens"])
def test_matrix_products_with_something_learnt_are_counted(name, shape):
    function, shapes, matrix = MATRICES[name]
    net, x = Of(function, *shapes), spikes(*shape)
    report = profile(net, loader(x))
    assert report.synops == pairs(x, matrix(net.w, net.mask))
    assert report.uncounted == ()
    assert [cost.weights for cost in report.layers] == [24]
    assert report.others == ()


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, w, m: torch.addmm(w[1], x, w[0]), [(4, 6), (6,)]),
        (lambda x, w, m: torch.addmm(input=w[1], mat1=x, mat2=w[0]), [(4, 6), (6,)]),
        (lambda x, w, m: torch.mm(x, w[0]), [(4, 6)]),
        (lambda x, w, m: torch.mv(x, w[0]), [(4,)]),
        (lambda x, w, m: x @ w[0], [(4,)]),
        (lambda x, w, m: torch.addmv(m.new_zeros(3), x, w[0]), [(4,)]),
    ],
)
def test_products_of_matrices_and_vectors_are_counted(function, shapes):
    net, x = Of(function, *shapes), spikes(3, 4)
    report = profile(net, loader(x))
    assert report.synops == pairs(x, net.w[0].reshape(4, -1))
    assert report.stored_bits == sum(cost.stored_bits for cost in report.layers)
    assert [cost.bias_bits for cost in report.layers] == [BITS * 6 if len(shapes) > 1 else 0]


@pytest.mark.parametrize("function", [torch.bmm, torch.matmul])
def test_stacks_of_weights_are_counted(function):
    net, x = Of(lambda x, w, m: function(x, w[0]), (3, 4, 6)), spikes(3, 5, 4)
    report = profile(net, loader(x))
    by_hand = sum(
        x[b, n, i] != 0 and net.w[0][b, i, o] != 0 for b, n, i, o in product(range(3), range(5), range(4), range(6))
    )
    assert (report.synops, report.stored_bits) == (int(by_hand), BITS * 72)


@torch.jit.script
def scripted(x, weight):
    """A product that PyTorch's functions do not show."""
    return x @ weight.t()


@torch.jit.script
def attended(x):
    """A product of activations that PyTorch's functions do not show."""
    return x @ x.t()


def written(x, weight):
    """A weight where an activation says so."""
    values = weight.expand(3, 4).clone()
    values[x == 0] = 0.0
    return values


# What is not counted, and the name it gets.
NAMED = {
    "einsum": (lambda x, w, m: torch.einsum("bi,io->bo", x, w[0]), [(4, 6)]),
    "mul": (lambda x, w, m: x.mul(w[0]).sum(1), [(4,)]),
    "div": (lambda x, w, m: x / w[0], [(4,)]),
    "where": (lambda x, w, m: torch.where(x > 0, w[0], torch.zeros(())), [(4,)]),
    "addcmul": (lambda x, w, m: torch.addcmul(x, x, w[0]), [(4,)]),
    "lerp": (lambda x, w, m: torch.lerp(x, 2 * x, w[0]), [(4,)]),
    "outer": (lambda x, w, m: torch.outer(x[:, 0], w[0]), [(4,)]),
    "kron": (lambda x, w, m: torch.kron(x, w[0]), [(4,)]),
    "prelu": (lambda x, w, m: F.prelu(x, w[0]), [(1,)]),
    "bilinear": (lambda x, w, m: F.bilinear(x, x, w[0]), [(2, 4, 4)]),
    "linalg_multi_dot": (lambda x, w, m: torch.linalg.multi_dot([x, w[0], w[1]]), [(4, 6), (6, 4)]),
    "tensordot": (lambda x, w, m: torch.tensordot(x, w[0], ([1], [1])), [(6, 4)]),
    "embedding": (lambda x, w, m: F.embedding(x.long(), w[0]), [(4, 6)]),
    "index_select": (lambda x, w, m: w[0].index_select(0, x.long().flatten()), [(4, 6)]),
    "gather": (lambda x, w, m: w[0].gather(0, x.long()), [(4, 4)]),
    "getitem": (lambda x, w, m: w[0][x.long()], [(4, 6)]),
    "setitem": (lambda x, w, m: written(x, w[0]), [(4,)]),
    "masked_fill": (lambda x, w, m: w[0].expand(3, 4, 6).masked_fill(x[..., None] == 0, 0.0).sum(1), [(4, 6)]),
    "masked_select": (lambda x, w, m: w[0].expand(3, 4).masked_select(x > 0).sum().expand(3, 1), [(4,)]),
    "logical_and": (lambda x, w, m: torch.logical_and(x, w[0]).float(), [(4,)]),
    "matmul in a scripted function or an extension": (lambda x, w, m: scripted(x, w[0]), [(6, 4)]),
    "matmul in torch.vmap": (lambda x, w, m: torch.vmap(lambda row: row @ w[0])(x), [(4, 6)]),
    "linear in torch.vmap": (lambda x, w, m: torch.vmap(F.linear, in_dims=(0, None))(x, w[0]), [(6, 4)]),
    "mul in torch.vmap": (lambda x, w, m: torch.vmap(torch.mul)(x, w[0].expand(3, 4)), [(4,)]),
    "a tensor of numbers that had left torch, learnt ones and others": (
        lambda x, w, m: torch.from_numpy(x.numpy() @ w[0].detach().numpy()), [(4, 6)]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_what_else_meets_something_learnt_is_named_and_has_its_bits(name):
    function, shapes = NAMED[name]
    report = profile(Of(function, *shapes), loader(spikes(3, 4)))
    assert report.uncounted == (f"Of: {name}",)
    assert report.stored_bits == BITS * sum(int(np.prod(shape)) for shape in shapes)


def test_numbers_that_a_weight_became_are_named_where_an_activation_is_multiplied_by_them():
    for function in (lambda x, w, m: x * w[0][0].item(), lambda x, w, m: float(w[0][0]) * x):
        report = profile(Of(function, (4,)), loader(spikes(3, 4)))
        assert report.uncounted in (("Of: mul",), ("Of: rmul",))
    assert profile(Of(lambda x, w, m: x * 0.5, (4,)), loader(spikes(3, 4))).uncounted == ()


def test_products_of_activations_in_scripted_functions_are_named():
    report = profile(Of(lambda x, w, m: attended(x)), loader(spikes(3, 4)))
    assert report.uncounted == ("Of: matmul in a scripted function or an extension",)


@pytest.mark.parametrize("compile_", [torch.jit.script, lambda net: torch.jit.trace(net, spikes(3, 4))])
def test_modules_of_torch_jit_are_named(compile_):
    net = compile_(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    (whole,) = profile(net, loader(spikes(3, 4))).uncounted
    assert whole == f"{type(net).__name__}: a module of torch.jit"
    inside = profile(Alone(net), loader(spikes(3, 4)))
    assert inside.uncounted[0] == "layer: a module of torch.jit"
    assert inside.stored_bits == BITS * (24 + 6 + 12 + 2)


def test_scripted_functions_inside_neurons_are_their_affair():
    class Weighing(neuron.IFNode):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 3))

        def neuronal_charge(self, x):
            self.v = self.v + scripted(x, self.weight)

    net = nn.Sequential(nn.Linear(4, 3, bias=False), Weighing())
    assert profile(net, loader(spikes(3, 4))).uncounted == ()


@pytest.mark.parametrize("from_left", [False, True])
@pytest.mark.parametrize("steps", [2, 3, 6])
def test_a_matrix_for_each_step_is_dealt_out_to_steps_and_samples(steps, from_left):
    class Stepwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.spike = neuron.IFNode(v_threshold=0.5, step_mode="m")
            self.weight = nn.Parameter((torch.rand(steps, 4, 6) < 0.5).float())

        def forward(self, x):  # [B, T, 4]
            functional.reset_net(self)
            self.seen = x = self.spike(x.transpose(0, 1))
            if from_left:
                return torch.bmm(self.weight.mT, x.mT).mT.sum(0)
            return torch.bmm(x, self.weight).sum(0)

    net = Stepwise()
    (cost,) = profile(net, loader(spikes(3, steps, 4))).layers
    by_hand = torch.einsum("tbi,tio->tb", net.seen, net.weight.detach())
    assert cost.synops_per_step == tuple(by_hand.sum(1).int().tolist())
    assert cost.sample_max == int(by_hand.sum(0).max())


def test_one_matrix_repeated_for_each_sample_is_dealt_out_to_samples():
    net, x = Of(lambda x, w, m: torch.bmm(x, w[0].repeat(3, 1, 1)), (4, 6)), spikes(3, 3, 4)
    (cost,) = profile(net, loader(x)).layers
    by_hand = (x.sum(1) * (net.w[0] != 0).float().sum(1)).sum(1)
    assert (cost.synops, cost.sample_max) == (int(by_hand.sum()), int(by_hand.max()))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, m: x + w[0],
        lambda x, w, m: torch.cat([w[0].expand(len(x), -1), x], 1),
        lambda x, w, m: x.maximum(w[0]),
        lambda x, w, m: x.expand_as(w[0].expand(3, 4)) - w[0],
    ],
)
def test_what_is_added_or_put_beside_multiplies_nothing_but_has_its_bits(function):
    report = profile(Of(function, (4,)), loader(spikes(3, 4)))
    assert (report.uncounted, report.synops, report.stored_bits) == ((), 0, BITS * 4)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.RMSNorm(6), nn.InstanceNorm1d(6, affine=True)]
)
def test_normalisations_count_their_entries_and_have_their_bits(norm):
    x = spikes(3, 6) if not isinstance(norm, nn.InstanceNorm1d) else spikes(3, 6, 2)
    report = profile(Alone(norm), loader(x))
    learnt = sum(parameter.numel() for parameter in norm.parameters())
    assert [cost.operations for cost in report.others] == [x.numel(), 0]
    assert (report.uncounted, report.stored_bits) == ((), BITS * learnt)


def test_a_network_of_tokens_has_the_bits_of_all_that_it_has_learnt():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(10, 4), nn.Parameter(torch.rand(5, 4))
            self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.norm(self.words(x) + self.places)).mean(1)

    net = Tokens()
    report = profile(net, loader(torch.randint(10, (2, 5))))
    assert report.stored_bits == BITS * sum(parameter.numel() for parameter in net.parameters())
    assert report.uncounted == ("words: embedding",)


def test_two_weights_of_one_shape_are_two():
    net, x = Of(lambda x, w, m: F.linear(x, w[0]) + F.linear(x, w[1]), (6, 4), (6, 4)), spikes(3, 4)
    report = profile(net, loader(x, 1))
    assert [cost.ac for cost in report.layers] == [pairs(x, w.t()) for w in net.w]
    assert [cost.nonzero for cost in report.layers] == [int((w != 0).sum()) for w in net.w]


def test_parts_of_one_weight_are_stored_each():
    net, x = Of(lambda x, w, m: torch.cat([F.linear(x, part) for part in w[0].chunk(2)], 1), (6, 4)), spikes(3, 4)
    report = profile(net, loader(x))
    assert (report.synops, report.weight_bits) == (pairs(x, net.w[0].t()), BITS * int((net.w[0] != 0).sum()))
    assert [cost.weights for cost in report.layers] == [12, 12]


def test_a_weight_of_two_modules_is_stored_once():
    net = sparsify(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    net[1].weight, net[1].bias = net[0].weight, net[0].bias
    x = spikes(3, 4)
    report = profile(net, loader(x))
    first, second = report.layers
    assert (first.weights, second.weights) == (16, 0)
    assert report.stored_bits == first.stored_bits
    assert second.synops == pairs(net[0](x).detach(), net[1].weight.t())


def test_a_weight_that_is_used_transposed_as_well_is_stored_once():
    net, x = Of(lambda x, w, m: torch.stack([x @ w[0], F.linear(x, w[0])]), (4, 4)), spikes(3, 4)
    report = profile(net, loader(x))
    assert report.synops == pairs(x, net.w[0]) + pairs(x, net.w[0].t())
    assert sum(cost.weights for cost in report.layers) == 16


def test_a_layer_whose_weight_another_module_uses_was_called():
    class Borrowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6, bias=False)

        def forward(self, x):
            return x @ self.fc.weight.t()

    report = profile(Borrowing(), loader(spikes(3, 4)))
    assert report.uncalled == ()
    assert sum(cost.weights for cost in report.layers) == 24


def test_parameters_of_neurons_are_their_state():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), neuron.ParametricLIFNode())
    assert profile(net, loader(spikes(3, 4))).others == ()


@pytest.mark.parametrize("tokens", [2, 3, 6])
def test_as_many_tokens_as_samples_are_no_samples(tokens):
    class Merged(nn.Module):
        """Steps and samples merged, tokens behind them: [T * B, N, D]."""

        def __init__(self):
            super().__init__()
            self.first, self.spike = layer.Linear(4, 4, step_mode="m"), neuron.IFNode(step_mode="m")
            self.tokens = sparsify(nn.Linear(4, 5))

        def forward(self, x):  # [B, T, N, D]
            functional.reset_net(self)
            x = self.spike(self.first(x.transpose(0, 1)))
            self.seen = x
            return self.tokens(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(0)

    net = Merged()
    with torch.no_grad():
        net.first.weight.mul_(8)
    report = profile(net, loader(spikes(3, 4, tokens, 4)))
    cost = report.layers[1]
    by_hand = torch.einsum("tbnd,d->tb", net.seen, (net.tokens.weight != 0).float().sum(0))
    assert cost.synops_per_step == tuple(by_hand.sum(1).int().tolist())
    assert cost.sample_max == int(by_hand.sum(0).max())


def test_time_is_told_from_tokens_where_it_is_known():
    counts = torch.arange(18)
    by_tokens = split_steps(counts, (6, 3), 3, "a", steps=2)  # [T * B, N]
    assert torch.equal(by_tokens, counts.view(2, 3, 3).sum(2))
    for steps in (6, None):  # [T, B]
        assert torch.equal(split_steps(counts, (6, 3), 3, "a", steps=steps), counts.view(6, 3))


UNSHARED = {
    "a buffer": (lambda x, w, m: x @ m, []),
    "a quantised buffer": (lambda x, w, m: x @ (m.round() * 0.5), []),
    "a matrix for each step, and rows that are no samples": (
        lambda x, w, m: torch.bmm(x[:, :2].expand(7, 3, 2)[:, :2], w[0]).sum(0), [(7, 2, 6)]),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSHARED)
def test_matrix_products_that_nobody_can_deal_out_are_named(name):
    function, shapes = UNSHARED[name]
    net, x = Of(function, *shapes), spikes(3, 4)
    report = profile(net, loader(x))
    assert report.uncounted, report.layers
