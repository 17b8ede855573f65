"""Sums over processes are the sums over one process that sees everything."""

import pickle

import torch

from hardware.pricing import make_report
from hardware.tally import NetworkTally, SampleSums
from hardware.trace import Tracer
from tests.hardware.networks import Spiking, sparsify, spikes


def tally_of(net, batches):
    tracer = Tracer(net)
    tracer.attach()
    with torch.inference_mode():
        for x in batches:
            with tracer.batch(len(x)):
                net(x)
    tracer.detach()
    return tracer.tally


def test_merging_halves_gives_the_whole():
    net, x = sparsify(Spiking()), spikes(8, 3, 2, 8, 8)
    parts = [pickle.loads(pickle.dumps(tally_of(net, [half]))) for half in x.split(4)]
    total = NetworkTally()
    for part in parts:
        total.merge(part)
    assert make_report(total, net, {}) == make_report(tally_of(net, x.split(4)), net, {})


def test_moments_are_exact_above_the_integers_of_float64():
    sums = SampleSums()
    sums.add(torch.tensor([2**40, 2**40 + 1]))
    sums.close_batch()
    assert sums.squares == 2**80 + (2**40 + 1) ** 2
    assert sums.deviation(2) == 0.5
    assert (sums.mean(2), sums.largest) == (2**40 + 0.5, 2**40 + 1)
