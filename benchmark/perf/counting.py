"""Cost of counting: the forward pass with HardwareCost's tracer as a ratio to the plain one, others beside it."""

import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from statistics import quantiles
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import sew_resnet, spiking_vgg
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import Tensor, nn

from hardware.neurons import is_neuron
from hardware.trace import Tracer

STEPS = 4
EVENT_BATCH, IMAGE_BATCH = 64, 4
ROUNDS = 20
# Random weights behind BatchNorms in their initial state leave deep layers silent at the usual threshold of 1;
# this one keeps a tenth of the neurons or more at work, as in trained networks.
THRESHOLD = 0.15


class _Steps(nn.Module):
    """A multi-step network that takes [B, ...] and shows each image at every step."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        functional.set_step_mode(net, "m")
        for module in net.modules():
            if is_neuron(module):
                module.v_threshold = THRESHOLD

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return self.net(x.expand(STEPS, *x.shape)).mean(0)


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """The networks that are timed, and one batch for each."""
    conv = nn.Sequential(
        layer.Conv2d(2, 32, 3, stride=2, padding=1, bias=False),
        layer.BatchNorm2d(32),
        neuron.LIFNode(),
        layer.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        layer.BatchNorm2d(64),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(64 * 16, 128, bias=False),
        neuron.LIFNode(),
        layer.Linear(128, 10, bias=False),
    )
    vgg = spiking_vgg.spiking_vgg16_bn(spiking_neuron=neuron.LIFNode, num_classes=10)
    vgg.avgpool, vgg.classifier = layer.AdaptiveAvgPool2d((1, 1)), layer.Linear(512, 10)
    sew = sew_resnet.sew_resnet18(spiking_neuron=neuron.IFNode, cnf="ADD", num_classes=10)
    events = (torch.rand(EVENT_BATCH, 2, 34, 34) < 0.1).float()
    return {
        "conv": (_Steps(conv).eval(), events[..., 1:-1, 1:-1]),
        "vgg16": (_Steps(vgg).eval(), torch.rand(IMAGE_BATCH, 3, 32, 32)),
        "sew_resnet18": (_Steps(sew).eval(), torch.rand(IMAGE_BATCH, 3, 128, 128)),
    }


def measure() -> list[dict[str, Any]]:
    """Time counted forward passes beside plain ones.

    Each counter has rounds of its own: a plain and a counted pass right after each other, in turns first, so
    that both meet the machine, its caches and its memory in the same state. Processor time, because the time on
    the wall tells more of the machine's other work than of ours; that work still takes caches and memory
    bandwidth away, hence the median over the rounds and its spread.

    Returns:
        Rows with `network`, `counter`, `seconds` of processor time of the fastest counted pass, `ratio` to the
        plain pass of the same round (median), and `quartiles` of that ratio. NeuroBench stands beside when it
        is installed.
    """
    rows = []
    for name, (net, x) in networks().items():
        plain = _plain(net, x)
        counters = {"snnbench": _traced(Tracer(net), x), "spikingjelly": _spikingjelly(net, x), **_neurobench(net, x)}
        for counter, counted in counters.items():
            times = _times(plain, counted)
            first, ratio, third = quantiles([after / before for before, after in times], n=4)
            seconds = min(after for _, after in times)
            quartiles = f"{first:.2f} to {third:.2f}"
            rows.append(
                {"network": name, "counter": counter, "seconds": seconds, "ratio": ratio, "quartiles": quartiles}
            )
    return rows


def _times(plain: Callable[[], object], counted: Callable[[], object]) -> list[tuple[float, float]]:
    """Processor time in seconds of a plain and a counted pass in each round, after one round to warm up."""
    times = []
    with torch.no_grad():  # in inference mode SpikingJelly's counter sees nothing and reports zero
        for number in range(ROUNDS + 1):
            if number % 2:
                times.append((_seconds(plain), _seconds(counted)))
            else:
                times.append((_seconds(counted), _seconds(plain))[::-1])
    return times[1:]


def _seconds(once: Callable[[], object]) -> float:
    start = time.process_time()
    once()
    return time.process_time() - start


def _plain(net: nn.Module, x: Tensor) -> Callable[[], object]:
    return lambda: net(x)


def _traced(tracer: Tracer, x: Tensor) -> Callable[[], object]:
    def once() -> None:
        tracer.attach()
        with tracer.batch(len(x)):
            tracer.net(x)
        tracer.detach()

    return once


def _spikingjelly(net: nn.Module, x: Tensor) -> Callable[[], object]:
    def once() -> None:
        with DispatchCounterMode([SynOpCounter()]):
            net(x)

    return once


def _neurobench(net: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    try:
        from neurobench.benchmarks import Benchmark
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel
    except ImportError:
        return {}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))

    def once() -> None:
        with redirect_stdout(io.StringIO()):
            Benchmark(TorchModel(net), loader, [], [], [[], [SynapticOperations]]).run(quiet=True)

    return {"neurobench": once}
