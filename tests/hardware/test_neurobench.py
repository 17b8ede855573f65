"""NeuroBench 2.3 as an oracle where it is right, and each known disagreement with who is right."""

import contextlib
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from hardware import profile
from tests.hardware import brute_force
from tests.hardware.networks import Alone, loader, sparsify, spikes

benchmarks = pytest.importorskip("neurobench.benchmarks", reason="NeuroBench is a development dependency")
from neurobench.metrics.workload import SynapticOperations  # noqa: E402
from neurobench.models import TorchModel  # noqa: E402


class Fires(nn.Module):
    """A step function: 0/1 spikes without state, so that both tools see the same."""

    def forward(self, x):
        return (x > 0.5).float()


def neurobench(net, x):
    """Accumulates, multiply-accumulates and dense operations per sample; None if the metric failed inside.

    It catches its own exceptions, prints a line and returns 0.0 in place of the counts.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        benchmark = benchmarks.Benchmark(TorchModel(net), loader(x), [], [], [[], [SynapticOperations]])
        found = benchmark.run(quiet=True)["SynapticOperations"]
    if not isinstance(found, dict):
        return None
    return found["Effective_ACs"], found["Effective_MACs"], found["Dense"]


def per_sample(net, x):
    report = profile(net, loader(x))
    return report.ac / len(x), report.mac / len(x), report.dense / len(x)


@pytest.mark.parametrize("seed", range(4))
def test_equal_on_baked_weights_and_spikes(seed):
    torch.manual_seed(seed)
    net = sparsify(
        nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, bias=False), Fires(), nn.Conv2d(8, 6, 3, stride=2, groups=2), Fires(),
            nn.Flatten(), nn.Linear(6 * 16, 10), Fires(), nn.Linear(10, 4, bias=False),
        )
    ).eval()  # fmt: skip
    x = spikes(5, 2, 9, 9)
    assert per_sample(net, x) == neurobench(net, x)


def one_layer(module):
    return nn.Sequential(module).eval()


def right(module, x):
    return brute_force.count_linear(x.numpy(), module.weight.detach().numpy()).sum() / len(x)


def test_masks_of_torch_prune_break_it_there():
    module, x = nn.Linear(30, 20), spikes(6, 30)
    prune.random_unstructured(module, "weight", amount=0.5)
    net = one_layer(module)
    assert per_sample(net, x)[0] == right(module, x)
    found = neurobench(net, x)
    assert found is None or found[0] != right(module, x)
    prune.remove(module, "weight")
    assert neurobench(net, x)[0] == per_sample(net, x)[0] == right(module, x)


def test_parametrized_masks_are_misread_there():
    class Half(nn.Module):
        def forward(self, weight):
            return weight * (torch.arange(weight.shape[1]) % 2)

    module, x = nn.Linear(30, 20), spikes(6, 30)
    parametrize.register_parametrization(module, "weight", Half())
    net = one_layer(module)
    assert per_sample(net, x)[0] == right(module, x)
    assert neurobench(net, x)[0] != right(module, x)


def test_a_bare_layer_is_nothing_there():
    module, x = sparsify(nn.Linear(30, 20)).eval(), spikes(6, 30)
    assert per_sample(module, x)[0] == right(module, x)
    assert neurobench(module, x)[0] == 0


def test_a_layer_of_an_unknown_class_is_missing_there():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(20, 30))

        def forward(self, x):
            return nn.functional.linear(x, self.weight)

    net, x = Alone(Own()).eval(), spikes(6, 30)
    assert per_sample(net, x)[0] == right(net.layer, x)
    assert neurobench(net, x)[0] == 0


@pytest.mark.parametrize("x", [0.5 * spikes(6, 30), torch.randint(0, 4, (6, 30)).float()])
def test_scaled_and_graded_spikes_are_multiplications_there(x):
    module = sparsify(nn.Linear(30, 20))
    net = one_layer(module)
    assert per_sample(net, x)[:2] == (right(module, x), 0)
    assert neurobench(net, x)[:2] == (0, right(module, x))


def test_time_first_data_are_divided_by_the_number_of_steps_there():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = sparsify(nn.Linear(30, 20))

        def forward(self, x):  # [B, T, in]; T-major inside
            return self.fc(x.transpose(0, 1).reshape(-1, 30))

    net, x = TimeFirst().eval(), spikes(6, 4, 30)
    total = brute_force.count_linear(x.reshape(-1, 30).numpy(), net.fc.weight.detach().numpy()).sum()
    assert profile(net, loader(x)).ac == total

    class Given(nn.Module):
        """The same net as NeuroBench meets it when the loader yields [T, B, in]."""

        def __init__(self):
            super().__init__()
            self.fc = net.fc

        def forward(self, x):
            return self.fc(x.reshape(-1, 30))

    time_first = x.transpose(0, 1).contiguous()
    assert neurobench(Given().eval(), time_first)[0] == total / 4 != total / 6
