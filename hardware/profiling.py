"""The cost of a network in one call."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import nn

from hardware.memory import WeightCoding
from hardware.pricing import make_report
from hardware.report import CostReport
from hardware.trace import Tracer


def profile(
    net: nn.Module,
    loader: Iterable[Any],
    codings: Mapping[str, WeightCoding] | None = None,
    state_bits: int = 32,
) -> CostReport:
    """Run a network over a loader and count what it costs.

    The network runs in evaluation mode without gradients, its neurons are reset before each batch, and its
    mode is restored afterwards.

    Args:
        net: maps x: [B, ...] to logits; time, where it has it, comes before batch inside.
        loader: yields (x: [B, ...], y: [B]).
        codings: how weights are stored, by layer name; the others as the compressor that quantised them noted on
            them, else as 32-bit floats.
        state_bits: bits of one neuron state variable.

    Returns:
        The cost summed over all samples of the loader.

    Raises:
        ValueError: if the loader is empty, or `codings` names a layer that does not exist.
    """
    tracer = Tracer(net)
    training = net.training
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    memories = [module for module in net.modules() if isinstance(module, MemoryModule)]
    tracer.attach()
    try:
        net.eval()
        with torch.inference_mode():
            for x, _ in loader:
                for memory in memories:
                    memory.reset()
                with tracer.batch(len(x)):
                    net(x.to(device))
    finally:
        tracer.detach()
        net.train(training)
    return make_report(tracer.tally, net, codings or {}, state_bits)
