"""Equality to the integer with a count by hand over every (input entry, weight) pair."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hardware import profile, synops
from hardware.geometry import adaptive_windows, sliding_windows
from hardware.synops import Examined, ValueRange, count_by_value, count_meetings, count_pairs, count_products, examine
from tests.hardware import brute_force
from tests.hardware.networks import Alone, cost_of, loader, sparsify, spikes

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def convolutions(draw, transposed=False):
    dimensions = draw(st.integers(1, 3))
    per_dimension = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dimensions))  # noqa: E731
    groups = draw(st.sampled_from([1, 2]))
    stride, dilation, kernel = per_dimension(1, 3), per_dimension(1, 2), per_dimension(1, 3)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(n + r for n, r in zip(per_dimension(2, 4), reach, strict=True))
    options = {"stride": stride, "padding": tuple(min(p, r) for p, r in zip(per_dimension(0, 2), reach, strict=True)),
               "dilation": dilation, "groups": groups, "bias": draw(st.booleans())}  # fmt: skip
    if transposed:
        options["output_padding"] = tuple(min(1, s - 1) for s in stride)
    kind = (TRANSPOSED if transposed else CONVOLUTIONS)[dimensions]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    module = sparsify(kind(2 * groups, 3 * groups, kernel, **options), draw(st.floats(0, 1)), generator)
    return module, spikes(3, 2 * groups, *size, generator=generator)


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_convolutions(case):
    module, x = case
    padding = tuple((p, p) for p in module.padding)
    counts = brute_force.count_convolution(
        x.numpy(), module.weight.detach().numpy(), module.stride, padding, module.dilation, module.groups
    )
    cost = cost_of(module, x)
    assert (cost.ac, cost.mac) == (counts.sum(), 0)
    assert cost.sample_max == counts.max()
    assert cost.sample_std == pytest.approx(counts.std())


@given(convolutions(transposed=True))
@settings(max_examples=40, deadline=None)
def test_transposed_convolutions(case):
    module, x = case
    counts = brute_force.count_transposed(
        x.numpy(), module.weight.detach().numpy(), module.stride, module.padding, module.dilation,
        module.groups, module.output_padding,
    )  # fmt: skip
    assert cost_of(module, x).ac == counts.sum()


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_padding_same(kernel):
    module = sparsify(nn.Conv2d(2, 3, kernel, padding="same"))
    x = spikes(4, 2, 5, 6)
    total = kernel - 1
    pads = ((total // 2, total - total // 2),) * 2
    counts = brute_force.count_convolution(x.numpy(), module.weight.detach().numpy(), (1, 1), pads, (1, 1), 1)
    assert cost_of(module, x).ac == counts.sum()


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_with_content_is_counted_where_it_lands(mode):
    module = sparsify(nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode))
    x = spikes(4, 2, 5, 6)
    padded = F.pad(x, (1, 1, 1, 1), mode=mode)
    counts = brute_force.count_convolution(
        padded.numpy(), module.weight.detach().numpy(), (1, 1), ((0, 0), (0, 0)), (1, 1), 1
    )
    assert cost_of(module, x).ac == counts.sum()


def test_linear_and_matrix_parameter():
    module = sparsify(nn.Linear(7, 5))
    x = spikes(6, 7)
    counts = brute_force.count_linear(x.numpy(), module.weight.detach().numpy())
    assert cost_of(module, x).ac == counts.sum()

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(module.weight.detach().t().clone())

        def forward(self, x):
            return x @ self.matrix

    cost = cost_of(Product(), x)
    assert (cost.ac, cost.weights, cost.nonzero) == (counts.sum(), 35, int((module.weight != 0).sum()))


def test_linear_on_tokens_is_shared_among_samples():
    module = sparsify(nn.Linear(4, 3))
    x = spikes(5, 6, 4)  # [B, N, in]
    counts = brute_force.count_linear(x.reshape(30, 4).numpy(), module.weight.detach().numpy()).reshape(5, 6)
    cost = cost_of(module, x)
    assert cost.synops_per_step == (counts.sum(),)
    assert cost.sample_max == counts.sum(1).max()


def test_dense_bound_equals_a_count_on_ones():
    module = nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2)
    ones = torch.ones(2, 4, 7, 6)
    counts = brute_force.count_convolution(
        ones.numpy(), torch.ones_like(module.weight).numpy(), (2, 2), ((1, 1), (1, 1)), (1, 1), 2
    )
    cost = cost_of(sparsify(module), spikes(2, 4, 7, 6))
    assert cost.dense == counts.sum()
    assert cost.synapses == brute_force.count_convolution(
        ones[:1].numpy(), module.weight.detach().numpy(), (2, 2), ((1, 1), (1, 1)), (1, 1), 2
    )


def test_counts_stay_exact_above_the_integers_of_float32():
    # 2**25 entries of fan-out 1 and one more event: float32 would lose the last one.
    many = torch.ones(1, 2**25 + 1)
    assert examine(many) == Examined(2**25 + 1, ValueRange(1.0, 1.0))
    assert count_pairs(many, many[0], 1, examine(many).values).item() == 2**25 + 1
    large = torch.full((3,), 2.0**23 + 1)
    for x in (torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[0.5, -3.0, 1e-40]])):
        assert count_pairs(x, large, 2**23 + 1, examine(x).values).item() == 3 * (2**23 + 1)
    graded = torch.tensor([[1000.0, -7.0, 999.0]])
    assert count_by_value(graded, large, 2**23 + 1, examine(graded).values) == 2006 * (2**23 + 1)


@pytest.mark.parametrize("kind", ["spikes", "graded", "real"])
def test_rows_longer_than_a_piece_and_pieces_of_many_rows(kind, monkeypatch):
    x = spikes(7, 50) * {"spikes": 1.0, "graded": 3.0, "real": 0.3}[kind] * (1 + spikes(7, 50) * (kind != "spikes"))
    fan_out = torch.randint(0, 9, (50,)).float()
    by_hand = ((x != 0).double() @ fan_out.double()).tolist()
    for piece in (1, 8, 130, 10**6):
        monkeypatch.setattr(synops, "_IN_CACHE", piece)
        seen = examine(x)
        assert (seen.values.kind, seen.events) == (kind, int((x != 0).sum()))
        assert count_pairs(x, fan_out, 8, seen.values).tolist() == by_hand
        assert count_meetings(x, x.flip(0)) == int((x * x.flip(0) != 0).sum())
        if kind == "graded":
            assert count_by_value(x, fan_out, 8, seen.values) == int((x.double() @ fan_out.double()).sum())


def test_counts_do_not_depend_on_the_matmul_precision():
    # 1001 has no bfloat16, 2049 no TF32 representation.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        for fan_out in (1001, 2049):
            module, x = sparsify(nn.Linear(3000, fan_out), 1.0), spikes(64, 3000)
            assert cost_of(module, x).ac == int(x.sum()) * fan_out
    finally:
        torch.set_float32_matmul_precision(before)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_products_of_matrices(batch, n, k, m, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = spikes(batch, n, k, generator=generator), spikes(batch, k, m, generator=generator)
    by_hand = [
        sum(bool(left[b, i, c] and right[b, c, j]) for i, c, j in itertools.product(range(n), range(k), range(m)))
        for b in range(batch)
    ]
    assert count_products(left, right).tolist() == by_hand


@given(st.integers(4, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pooling_pairs(size, kernel, stride, padding, ceil, largest):
    padding = min(padding, kernel // 2)
    pool = (nn.MaxPool2d if largest else nn.AvgPool2d)(kernel, stride, padding, ceil_mode=ceil)
    x = spikes(2, 3, size, size + 1)

    # An event reaches the windows whose sum it changes: pool a single event at a time.
    def windows(y):
        total = F.avg_pool2d(y, kernel, stride, padding, ceil_mode=ceil, divisor_override=1)
        return int((total > 0).sum())

    by_hand = 0
    for place in (x != 0).nonzero():
        single = torch.zeros_like(x)
        single[tuple(place)] = 1
        by_hand += windows(single)
    other = profile(Alone(pool), loader(x)).others[0]
    assert (other.kind, other.operations) == ("max_pool2d" if largest else "avg_pool2d", by_hand)


@given(st.integers(1, 9), st.integers(1, 9))
def test_adaptive_windows(size, outputs):
    pooled = F.adaptive_avg_pool1d(torch.eye(size)[:, None], outputs)[:, 0] > 0  # [size, outputs]
    assert torch.equal(adaptive_windows(size, outputs), pooled.t())


def test_sliding_windows_with_dilation():
    indices = sliding_windows(size=7, outputs=3, kernel=2, stride=2, padding=1, dilation=3)
    assert indices.int().tolist() == [
        [0, 0, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 1],
    ]
