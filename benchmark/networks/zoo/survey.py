"""What there is to know about the networks of the zoo at full size: ``snnbench list models``."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import nn

from benchmark.catalog import MODELS
from benchmark.networks.inference.multistep import multistep
from benchmark.wording import count
from compressors.network.layers import evaluating, find_layers, hooks
from hardware.neurons import is_neuron


@dataclass(frozen=True)
class Survey:
    """A network as its card describes it.

    Args:
        name: in the registry.
        parameters: number of trainable values.
        neurons: number of spiking neurons at the card's input size.
        layers: number of layers that compressors reach.
        with_neuron: how many of them have a neuron that takes their output, which SBC's Hessian looks at.
        timesteps: T.
        data: data set it is made for.
        source: paper.
    """

    name: str
    parameters: int
    neurons: int
    layers: int
    with_neuron: int
    timesteps: int
    data: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def survey(name: str) -> Survey:
    """Build a network at full size and run one time step of silence through it.

    Raises:
        AttributeError: its builder has no card.
    """
    builder = MODELS[name].load()
    card = builder.card
    network = multistep(builder(card.shape, card.classes))
    silence = torch.zeros(1, 1, *card.shape)
    layers = find_layers(network, lambda: network(silence))
    return Survey(
        name,
        sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        _neurons(network, silence),
        len(layers),
        sum(layer.neuron is not None for layer in layers),
        card.timesteps,
        card.data,
        card.source,
    )


def _neurons(network: nn.Module, silence: torch.Tensor) -> int:
    total = 0

    def add(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel()

    with evaluating(network), hooks([m for m in network.modules() if is_neuron(m)], add):
        network(silence)
    return total


def surveyable() -> list[str]:
    """Names of the networks that have a card."""
    return [name for name in MODELS if hasattr(MODELS[name].load(), "card")]


def show(surveys: list[Survey]) -> Table:
    """A table for people; a narrow terminal cuts the sources."""
    rows = [("network", "parameters", "neurons", "layers", "with neuron", "T", "data", "source")]
    for s in surveys:
        counts = (count(s.parameters), count(s.neurons), str(s.layers), str(s.with_neuron), str(s.timesteps))
        rows.append((s.name, *counts, s.data, s.source))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading, *cells in zip(*rows, strict=True):
        words = heading in ("network", "data", "source")
        width = 1 if heading == "source" else max(map(len, (*cells, *heading.split())))
        table.add_column(heading, justify="left" if words else "right", min_width=width, overflow="ellipsis")
    for row in rows[1:]:
        table.add_row(*(Text(cell, no_wrap=True) for cell in row))
    return table
