"""The trained N-MNIST network of the NIR paper on real recordings."""

import numpy as np
import pytest
import tonic
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.nir.reading import nir_network
from hardware import profile
from tests.conftest import REAL_DATA
from tests.hardware import brute_force

NETWORK = REAL_DATA / "nir" / "nmnist_cnn.nir"
STEPS, STEP_US = 310, 1000

pytestmark = pytest.mark.skipif(not NETWORK.is_file(), reason=f"the trained network is not at {NETWORK}")


def recordings(count):
    """`count` real test recordings as event counts [N, T, 2, 34, 34], and their digits."""
    files = sorted((REAL_DATA / "nmnist" / "Test").glob("*/*.bin"))
    files = files[:: max(1, len(files) // count)][:count]
    frames = np.zeros((len(files), STEPS, 2, 34, 34), np.float32)
    for i, file in enumerate(files):
        events = tonic.io.read_mnist_file(str(file), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
        step = np.minimum(events["t"] // STEP_US, STEPS - 1)
        np.add.at(frames, (i, step, events["p"], events["y"], events["x"]), 1)
    return torch.from_numpy(frames), torch.tensor([int(file.parent.name) for file in files])


@pytest.fixture(scope="module")
def network():
    return SNNClassifier(nir_network((2, 34, 34), 10, path=str(NETWORK)), classes=10, timesteps=STEPS).eval()


@pytest.mark.slow
def test_counts_on_real_recordings_equal_a_count_by_hand(network):
    x, y = recordings(10)
    seen = {}
    convolutions = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    handles = [
        m.register_forward_pre_hook(lambda module, inputs, n=n: seen.update({n: inputs[0].flatten(0, 1)}))
        for n, m in convolutions.items()
    ]
    with torch.inference_mode():
        right = (network(x).argmax(1) == y).float().mean()
    for handle in handles:
        handle.remove()
    assert right >= 0.8  # the set's own accuracy is about 0.97

    report = profile(network, DataLoader(TensorDataset(x, y), batch_size=4))
    assert report.timesteps == STEPS
    for cost in report.layers:
        module, given = convolutions[cost.name], seen[cost.name]
        assert cost.synops == _by_definition(module, given)
        assert cost.input_events == int((given != 0).sum())
    assert {cost.inputs for cost in report.layers} <= {"spikes", "graded"}
    assert report.mac == 0


def _by_definition(module, given):
    """Count by unfolding: each column of the unfolded input meets the rows of the weight."""
    if isinstance(module, nn.Linear):
        return int(((given != 0).sum(0) * (module.weight != 0).sum(0)).sum())
    columns = torch.nn.functional.unfold((given != 0).float(), module.kernel_size, 1, module.padding, module.stride)
    taps = (module.weight != 0).flatten(1).sum(0).double()
    return int((columns.double().sum((0, 2)) * taps).sum())


def test_the_definition_agrees_with_the_walk_over_all_pairs(network):
    module = network.network.get_submodule("0")
    given = recordings(1)[0][0, 20:22]
    counts = brute_force.count_convolution(
        given.numpy(), module.weight.detach().numpy(), module.stride, ((1, 1), (1, 1)), (1, 1), 1
    )
    assert _by_definition(module, given) == counts.sum()
