"""NIR graphs to read, and how their networks are run."""

from itertools import pairwise

import nir
import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import nn

RNG = np.random.default_rng(0)
SHAPE, CLASSES, T = (2, 6, 6), 3, 5
CELLS = 2 * 6 * 6


def weights(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32)


def full(value, size=CLASSES):
    return np.full(size, value)


def graph_of(*nodes, edges=None, **metadata):
    """A chain of nodes named 1, 2, ... between input and output, with further edges."""
    named = {"input": nir.Input(np.array(SHAPE))}
    named |= {str(i): node for i, node in enumerate(nodes, 1)} | {"output": nir.Output(np.array([CLASSES]))}
    names = list(named)
    chain = list(pairwise(names))
    return nir.NIRGraph(named, chain + (edges or []), metadata, type_check=False)


def neuron_graph(node, weight=None, **metadata):
    """Flatten, a linear layer, one node of neurons."""
    flatten = nir.Flatten(np.array(SHAPE), 0, -1)
    return graph_of(flatten, nir.Linear(weights(CLASSES, CELLS) if weight is None else weight), node, **metadata)


def run(network, x):
    functional.reset_net(network)
    with torch.no_grad():
        return network(x)


def events(seed=0, steps=T, batch=2):
    return (torch.rand(steps, batch, *SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def convolution(groups=1, **changed):
    settings = {"stride": 1, "padding": 1, "dilation": 1} | changed
    return nir.Conv2d((6, 6), weights(4, 2 // groups, 3, 3), **settings, groups=groups, bias=weights(4))


ENDS = (nir.Flatten(np.array([4, 6, 6]), 0, -1), nir.Affine(weights(CLASSES, 144), weights(CLASSES)))


def as_torch(node):
    """The same layer by torch's own functions, on ``[N, ...]``."""
    f = nn.functional
    tensor = {k: torch.from_numpy(v) for k, v in vars(node).items() if isinstance(v, np.ndarray)}
    match node:
        case nir.Conv2d():
            same = {k: getattr(node, k) for k in ("stride", "padding", "dilation", "groups")}
            return lambda x: f.conv2d(x, tensor["weight"], tensor["bias"], **same)
        case nir.SumPool2d():
            return lambda x: f.avg_pool2d(x, 2, 2) * 4
        case nir.AvgPool2d():
            return lambda x: f.avg_pool2d(x, 3, 1, 1)
        case nir.Scale():
            return lambda x: x * tensor["scale"]
        case nir.Flatten():
            return lambda x: x.flatten(1)
        case nir.Affine() | nir.Linear():
            return lambda x: f.linear(x, tensor["weight"], tensor.get("bias"))


CHAINS = {
    "conv": [convolution(), *ENDS],
    "grouped": [convolution(groups=2), *ENDS],
    "same": [convolution(padding="same"), *ENDS],
    "dilated": [convolution(padding=2, dilation=2), *ENDS],
    "sum pool": [
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Flatten(np.array([2, 3, 3]), 0, -1),
        nir.Linear(weights(CLASSES, 18)),
    ],
    "average pool": [
        nir.AvgPool2d(np.array([3, 3]), np.array([1, 1]), np.array([1, 1])),
        nir.Flatten(np.array(SHAPE), 0, -1),
        nir.Linear(weights(CLASSES, CELLS)),
    ],
    "scale": [nir.Scale(weights(*SHAPE)), nir.Flatten(np.array(SHAPE), 0, -1), nir.Linear(weights(CLASSES, CELLS))],
}


def spiking(*modules):
    net = nn.Sequential(*modules)
    functional.set_step_mode(net, "m")
    return net.eval()
