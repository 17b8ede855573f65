"""What ``--fixed-point`` makes of a compressed network, and the table of ``snnbench fixed-point``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from benchmark.networks.classifier import SNNClassifier, coarser
from benchmark.networks.fixed_point.network import (
    MOST_SAMPLES,
    FixedNetwork,
    codes_of,
    dequantised,
    fixed_point,
    grid_of,
)
from benchmark.networks.fixed_point.reading import read
from benchmark.networks.fixed_point.scheme import FixedPoint, FixedPointError, LeakKind, Overflow
from benchmark.questions import build
from benchmark.questions.suite import Named
from benchmark.runs.run import Measured, compress_and_measure, measure
from benchmark.single_network.differences import Differences, differences
from benchmark.single_network.subject import Source, open_subject
from benchmark.wording import count, percent
from compressors.budget import Budget
from compressors.compression import Compression, LayerCompression
from datamodules.storage import cache_folder

WEIGHT_BITS = (8, 4, 3, 2)
POTENTIAL_BITS = (24, 16, 12, 8)

Told = Callable[[str], None]


@dataclass(frozen=True)
class Fixed:
    """A compressed network in whole numbers.

    Args:
        numbers: the whole numbers.
        measured: what they cost, and how well they do: run as whole numbers, not as floats.
        differences: their spikes beside those of the network in floats, on the test samples.
    """

    numbers: FixedNetwork
    measured: Measured
    differences: Differences

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: widths and units, and of each layer of neurons what became of its spikes."""
        account = self.numbers.to_dict()
        overflows, mismatch = self.numbers.overflows(), self.differences.mismatch
        for neurons in account["neurons"]:
            neurons |= {"mismatch": mismatch[neurons["name"]], "overflows": overflows[neurons["name"]]}
        return account


def calibration_inputs(module: SNNClassifier, data: LightningDataModule) -> Tensor:
    """Some calibration samples as the network takes them: ``[T, B, ...]``.

    Raises:
        FixedPointError: they are no events, but images.
    """
    loader: Any = data.calibration_dataloader()  # type: ignore[attr-defined]
    found: list[Tensor] = []
    for x, _ in loader:
        if x.ndim != 5:
            raise FixedPointError("whole numbers take events, and these data are images: give an event set")
        found.append(coarser(x, module.timesteps).transpose(0, 1))
        if sum(x.shape[1] for x in found) >= MOST_SAMPLES:
            break
    return torch.cat(found, 1)[:, :MOST_SAMPLES]


def shown_batches(data: LightningDataModule) -> Iterator[Any]:
    """The test batches as a network sees them."""
    return (data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader())


def whole_numbers(compressed: Measured, data: LightningDataModule, scheme: FixedPoint) -> tuple[FixedNetwork, Measured]:
    """Make whole numbers of a compressed network, and test them.

    The account of the compression becomes that of the weights in whole numbers, so that its codes are theirs.

    Raises:
        FixedPointError: see :func:`benchmark.networks.fixed_point.network.fixed_point`.
    """
    module = compressed.module
    numbers = fixed_point(module.network, calibration_inputs(module, data), scheme)
    compression = _account(compressed.compression, numbers)
    whole = _classifier(numbers.network, module)
    return numbers, measure(whole, data, compression, compressed.seconds, state_bits=scheme.potential_bits)


def in_whole_numbers(compressed: Measured, data: LightningDataModule, scheme: FixedPoint) -> Fixed:
    """The same, and how the spikes of the whole numbers differ from those in floats.

    Raises:
        FixedPointError: see :func:`whole_numbers`.
    """
    numbers, measured = whole_numbers(compressed, data, scheme)
    numbers.forget_overflows()
    found = differences(compressed.module, {"whole": measured.module}, shown_batches(data))
    return Fixed(numbers, measured, found["whole"])


def for_a_file(fixed: Fixed, compressed: Measured, exactly: bool) -> SNNClassifier:
    """The whole numbers as floats, for a file that holds no others; see ``dequantised``."""
    return _classifier(dequantised(compressed.module.network, fixed.numbers, exactly), compressed.module)


def _classifier(network: nn.Module, like: SNNClassifier) -> SNNClassifier:
    module = SNNClassifier(
        network, classes=like.classes, timesteps=like.timesteps, label_smoothing=like.label_smoothing
    )
    module.loss = like.loss
    return module.eval()


def _account(compression: Compression, numbers: FixedNetwork) -> Compression:
    """The account of a compression whose weights became whole numbers afterwards."""
    known = {layer.name: layer for layer in compression.layers}
    layers = []
    for name, one in numbers.layers.items():
        shape = tuple(one.codes.shape)
        before = known.get(f"network.{name}", LayerCompression(f"network.{name}", shape, one.codes != 0))
        grid, codes = grid_of(one, numbers.scheme), codes_of(one, numbers.scheme)
        layers.append(replace(before, grid=grid, codes=codes, mask=before.mask & (one.codes != 0)))
    return replace(compression, layers=tuple(layers))


@dataclass(frozen=True)
class Widths:
    """The widths of a table, and what all its rows have in common."""

    weights: Sequence[int] = WEIGHT_BITS
    potentials: Sequence[int] = POTENTIAL_BITS
    overflow: Overflow = "saturate"
    leak: LeakKind = "factor"

    def schemes(self) -> list[FixedPoint]:
        """One for each row, weights first.

        Raises:
            FixedPointError: a width out of range.
        """
        return [
            FixedPoint(weight, potential, self.overflow, self.leak)
            for weight in self.weights
            for potential in self.potentials
        ]


def compare_widths(
    source: Source, method: Mapping[str, Any], budget: Budget, widths: Widths, told: Told = lambda words: None
) -> dict[str, Any]:
    """Compress a network, and hold its spikes in whole numbers of several widths against those in floats.

    Beside the rows in whole numbers stands for each width of weights one whose weights lie on the same grid, with
    thresholds and potentials in floats.

    Args:
        source: the dense network and its data.
        method, budget: what is done to it before; ``identity`` for nothing.
        widths: those of the rows.
        told: hears of every row that is made.

    Returns:
        JSON-able: ``floats`` (accuracy and spikes of the compressed network) and ``rows``.

    Raises:
        FixedPointError: a width out of range, or a network that has no form in whole numbers.
        Whatever :func:`benchmark.single_network.subject.open_subject` and the compressor raise.
    """
    schemes = widths.schemes()
    named = build.validated("compressor", Named, dict(method))
    compressor = build.compressor(named, budget, source.seed, cache_folder() / "eliminations")
    subject = open_subject(source)
    read(subject.module().network)  # what has no form in whole numbers is found before the work
    module = compress_and_measure(subject.module(), subject.data, compressor, source.seed).module
    x = calibration_inputs(module, subject.data)
    made: dict[str, FixedNetwork] = {}
    networks: dict[str, SNNClassifier] = {}
    for scheme in schemes:
        name = f"{scheme.weight_bits}/{scheme.potential_bits}"
        told(name)
        made[name] = fixed_point(module.network, x, scheme)
        networks[name] = _classifier(made[name].network, module)
        if scheme.potential_bits == max(widths.potentials):  # whose weights need no coarser steps for the potentials
            networks[f"{scheme.weight_bits}/float"] = _classifier(dequantised(module.network, made[name]), module)
    told("test")
    found = differences(module, networks, shown_batches(subject.data))
    floats = found.pop("")
    return {
        "checkpoint": str(subject.path),
        "method": named.label,
        "budget": dict(budget.limits),
        "data": subject.description["data"],
        "samples": floats.samples,
        "overflow": widths.overflow,
        "leak": widths.leak,
        "floats": _figures(floats),
        "rows": [
            {"weight_bits": int(weight), "potential_bits": None if potential == "float" else int(potential)}
            | _figures(found[f"{weight}/{potential}"])
            | ({} if potential == "float" else {"overflows": made[f"{weight}/{potential}"].overflows()})
            for weight in map(str, widths.weights)
            for potential in ("float", *map(str, widths.potentials))
        ],
    }


def _figures(found: Differences) -> dict[str, Any]:
    return {"accuracy": found.accuracy, "spikes": found.spikes_per_sample, "mismatch": found.mismatch}


def table(account: Mapping[str, Any]) -> Table:
    """The account for people: one row for each pair of widths."""
    floats = account["floats"]
    title = (
        f"{account['method']}, {account['checkpoint']}, {account['samples']} test samples\n"
        "differing: of the spikes that either network fires, those of one of them alone, %"
    )
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    shown.padding = (0, 1, 0, 0)
    for heading in ("weights", "potentials", "accuracy", "spikes", *floats["mismatch"], "beyond"):
        shown.add_column(heading, justify="right")
    shown.add_row("float", "float", percent(floats["accuracy"]), count(floats["spikes"]))
    for row in account["rows"]:
        beyond = [percent(max(row["overflows"].values()))] if "overflows" in row else []
        potentials = row["potential_bits"] or "float"
        different = map(percent, row["mismatch"].values())
        shown.add_row(
            *(str(row["weight_bits"]), str(potentials), percent(row["accuracy"]), count(row["spikes"])),
            *different,
            *beyond,
        )
    return shown
