"""The trained N-MNIST network of the NIR paper on real recordings."""

from pathlib import Path

import nir
import numpy as np
import pytest
import tonic
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hardware import profile
from tests.hardware import brute_force

DATA = Path(__file__).parents[3] / "shared" / "data"
STEPS, STEP_US = 310, 1000

pytestmark = pytest.mark.skipif(
    not (DATA / "nir" / "nmnist_cnn.nir").is_file(), reason=f"the trained network is not at {DATA / 'nir'}"
)


class Network(nn.Module):
    """The graph's nodes as SpikingJelly layers, in the order of its edges: [B, T, 2, 34, 34] -> [B, 10]."""

    def __init__(self, graph):
        super().__init__()
        self.body = nn.Sequential()
        following = dict(graph.edges)
        name = following["input"]
        while name != "output":
            self.body.add_module(name, _layer(graph.nodes[name]))
            name = following[name]
        functional.set_step_mode(self, "m")

    def forward(self, x):
        functional.reset_net(self)
        return self.body(x.transpose(0, 1)).sum(0)


def _layer(node):
    match node:
        case nir.Conv2d() | nir.Conv2d():
            made = layer.Conv2d(node.weight.shape[1], node.weight.shape[0], node.weight.shape[2:],
                                stride=_pair(node.stride), padding=_pair(node.padding))  # fmt: skip
        case nir.Affine() | nir.Linear():
            made = layer.Linear(node.weight.shape[1], node.weight.shape[0])
        case nir.SumPool2d():
            size = _pair(node.kernel_size)
            return layer.SeqToANNContainer(nn.AvgPool2d(size, _pair(node.stride), divisor_override=1))
        case nir.Flatten():
            return layer.Flatten()
        case nir.IF():
            threshold = float(np.unique(node.v_threshold).item())
            return neuron.IFNode(v_threshold=threshold, v_reset=None, surrogate_function=surrogate.ATan())
        case _:
            raise ValueError(f"no layer for {type(node).__name__}")
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.array(node.weight)))
        made.bias.copy_(torch.from_numpy(np.array(getattr(node, "bias", np.zeros(len(node.weight))))))
    return made


def _pair(value):
    return tuple(int(v) for v in np.broadcast_to(np.array(value), 2))


def recordings(count):
    """`count` real test recordings as event counts [N, T, 2, 34, 34], and their digits."""
    files = sorted((DATA / "nmnist" / "Test").glob("*/*.bin"))
    files = files[:: max(1, len(files) // count)][:count]
    frames = np.zeros((len(files), STEPS, 2, 34, 34), np.float32)
    for i, file in enumerate(files):
        events = tonic.io.read_mnist_file(str(file), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
        step = np.minimum(events["t"] // STEP_US, STEPS - 1)
        np.add.at(frames, (i, step, events["p"], events["y"], events["x"]), 1)
    return torch.from_numpy(frames), torch.tensor([int(file.parent.name) for file in files])


@pytest.fixture(scope="module")
def network():
    return Network(nir.read(DATA / "nir" / "nmnist_cnn.nir")).eval()


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
    module = network.body[0]
    given = recordings(1)[0][0, 20:22]
    counts = brute_force.count_convolution(
        given.numpy(), module.weight.detach().numpy(), module.stride, ((1, 1), (1, 1)), (1, 1), 1
    )
    assert _by_definition(module, given) == counts.sum()
