"""Whole numbers are the same on a GPU, whatever precision its products are set to."""

import pytest
import torch
from spikingjelly.activation_based import functional

from benchmark.networks.fixed_point.network import fixed_point
from benchmark.networks.fixed_point.scheme import FixedPoint
from tests.benchmark.networks.fixed_point.test_network import events, mlp, residual, run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]


@pytest.fixture(params=["highest", "medium"])
def precision(request):
    """Of float32 products: all bits, or those of TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("scheme", [FixedPoint(8, 20), FixedPoint(3, 10, "wrap", "shift")])
@pytest.mark.parametrize("make", [lambda: residual("currents"), lambda: residual("spikes"), mlp])
def test_a_gpu_gives_the_same_bits(make, scheme):
    fixed = fixed_point(make(), events(), scheme)
    expected = run(fixed.network, events(5))
    functional.reset_net(fixed.network)
    assert torch.equal(run(fixed.network.cuda(), events(5).cuda()).cpu(), expected)
    assert expected.any()


def test_sums_in_float64_are_the_same():
    many = 1000 * events()
    fixed = fixed_point(mlp(), many, FixedPoint(8, 24))
    assert "float64" in fixed.dtypes.values()
    expected = run(fixed.network, many)
    functional.reset_net(fixed.network)
    assert torch.equal(run(fixed.network.cuda(), many.cuda()).cpu(), expected)
