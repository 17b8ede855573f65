"""Cost of counting: the forward pass with HardwareCost's tracer as a ratio to the plain one, others beside it."""

import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import sew_resnet, spiking_vgg
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import Tensor, nn

from hardware.trace import Tracer

STEPS = 4
EVENT_BATCH, IMAGE_BATCH = 64, 4
ROUNDS = 3
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
            if isinstance(module, neuron.BaseNode):
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
    """Time plain and counted forward passes, interleaved, and take the best of each.

    Returns:
        Rows with `network`, `counter`, `seconds` of processor time per batch and `ratio` to the plain forward
        pass of the same network. NeuroBench stands beside when it is installed.
    """
    rows = []
    for name, (net, x) in networks().items():
        tracer = Tracer(net)
        passes = {
            "none": _plain(net, x),
            "snnbench": _traced(tracer, x),
            "spikingjelly": _spikingjelly(net, x),
            **_neurobench(net, x),
        }
        seconds = _best(passes)
        for counter, best in seconds.items():
            row = {"network": name, "counter": counter, "seconds": best, "ratio": best / seconds["none"]}
            rows.append(row)
    return rows


def _best(passes: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Shortest processor time of each in seconds, over interleaved rounds after one to warm up.

    Processor time, because the time on the wall tells more of the machine's other work than of ours.
    """
    best = dict.fromkeys(passes, float("inf"))
    with torch.no_grad():  # in inference mode SpikingJelly's counter sees nothing and reports zero
        for once in passes.values():
            once()
        for _ in range(ROUNDS):
            for name, once in passes.items():
                start = time.process_time()
                once()
                best[name] = min(best[name], time.process_time() - start)
    return best


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
