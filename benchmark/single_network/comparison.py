"""One network and one compressor, measured before and after: the door for people in Python, and what commands use."""

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.inference.multistep import multistep
from benchmark.questions.suite import FineTuning
from benchmark.runs.distributed import DeviceGroup, Devices
from benchmark.runs.run import Measured, compress_and_measure
from benchmark.wording import never_active, percent, points, precise, rounded
from compressors.base import Compressor
from compressors.compression import Compression
from compressors.methods.identity import Identity
from compressors.network.layers import forget_state
from compressors.registry import COMPRESSORS

Figures = Mapping[str, Any]
Network = TypeVar("Network", bound=nn.Module)


class SubjectError(ValueError):
    """A network, data or a compressor that :func:`compress` cannot work with."""

    exit_status = 2


@dataclass(frozen=True, repr=False)
class Result:
    """What a compressor made of a network. ``print(result)`` shows it as a table.

    Args:
        method: the compressor and its budget, for people.
        dense: the network before: ``accuracy``, ``cost`` (:class:`hardware.CostReport`), ``metrics``.
        compressed: the same of the network after.
    """

    method: str
    dense: Measured
    compressed: Measured

    @property
    def module(self) -> SNNClassifier:
        """The compressed network as a LightningModule, on the CPU."""
        return self.compressed.module

    @property
    def network(self) -> nn.Module:
        """The compressed SpikingJelly network, ``[T, B, ...]`` to ``[T, B, classes]``: plain layers, exact zeros."""
        return self.compressed.module.network

    @property
    def compression(self) -> Compression:
        """What was done to each layer: masks, grids, codes."""
        return self.compressed.compression

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: ``method``, the figures ``dense`` and ``compressed``, and ``compression`` layer by layer."""
        return {
            "method": self.method,
            "dense": _figures(self.dense),
            "compressed": _figures(self.compressed),
            "compression": self.compression.to_dict(),
        }

    def __str__(self) -> str:
        shown = Console(file=io.StringIO(), width=100)
        with shown.capture() as captured:
            shown.print(table(self.method, _figures(self.dense), _figures(self.compressed), self._notes()))
        return captured.get().rstrip()

    def __repr__(self) -> str:
        before, after = self.dense, self.compressed
        return (
            f"<Result of {self.method}: accuracy {percent(before.accuracy)} -> {percent(after.accuracy)} %, "
            f"{before.cost.stored_bits // 8:,} -> {after.cost.stored_bits // 8:,} bytes, "
            f"{before.cost.synops_per_sample:,.0f} -> {after.cost.synops_per_sample:,.0f} synaptic operations a sample>"
        )

    def _notes(self) -> str:
        return "\n".join(notes_on(self.compression.to_dict()))


def compress(
    network: nn.Module,
    data: LightningDataModule,
    compressor: Compressor | str,
    *,
    epochs: int = 0,
    learning_rate: float | None = None,
    seed: int = 0,
    devices: Devices | None = None,
    **options: Any,
) -> Result:
    """Compress a copy of a trained network, and measure both on the same test data.

    This is the path of every run of a suite: a fit with the compressor, then a test that counts hardware cost.

    Args:
        network: an :class:`SNNClassifier`, or a SpikingJelly network in multi-step mode, which maps ``[T, B, ...]`` to
            ``[T, B, classes]`` or ``[B, classes]``. It keeps its weights; its neurons are reset.
        data: a :class:`datamodules.BenchmarkDataModule`, or any LightningDataModule with a ``test_dataloader()`` and a
            ``calibration_dataloader()`` (or a compressor that has its own ``calibration``). Around a plain network it
            must also say ``num_classes`` and ``timesteps``.
        compressor: such as ``SBC(0.1)``; or the name of a registered one, whose ``options`` follow:
            ``compress(network, data, "sbc", density=0.1)``.
        epochs: of fine-tuning with labels; without any the method is post-training.
        learning_rate: of the fine-tuning; by default that of suites.
        seed: of everything random.
        devices: what to work on; by default a single one.

    Raises:
        SubjectError: a network that is no classifier, data without a part, or a compressor that was used before.
        CalibrationError, LayerError, NetworkError, BudgetError, DeviceError: see there.
    """
    method = _compressor(compressor, options)
    forget_state(network)
    dense, compressed = (_classifier(network, data) for _ in range(2))
    parts, finetuning = _with_parts(data, method, epochs), _finetuning(epochs, learning_rate)
    control = Identity(calibration=method.calibration, include=method.include, exclude=method.exclude)
    control.state.track = method.state.track
    with DeviceGroup(devices) as group:
        before = compress_and_measure(dense, parts, control, seed, group=group)
        after = compress_and_measure(compressed, parts, method, seed, course=finetuning, group=group)
    return Result(repr(method), before, after)


def _compressor(compressor: Compressor | str, options: Mapping[str, Any]) -> Compressor:
    if isinstance(compressor, str):
        return for_trained(COMPRESSORS.by_user(compressor).load()(**options))
    if options:
        raise SubjectError(f"options of a compressor go where it is made: {type(compressor).__name__}(...)")
    if compressor.compression is not None:
        raise SubjectError(f"this {type(compressor).__name__} has compressed a network already: make a new one")
    return for_trained(compressor)


def for_trained(compressor: Compressor) -> Compressor:
    """A compressor that starts from a trained network.

    Raises:
        SubjectError: it trains one from scratch, so that the network at hand would play no part.
    """
    if compressor.from_scratch:
        name = type(compressor).__name__
        raise SubjectError(
            f"{name} trains a network from scratch, and a trained one plays no part: name it in a suite, or fit a new "
            f"network with Trainer(max_epochs=..., callbacks=[{name}(...)])"
        )
    return compressor


def _classifier(network: nn.Module, data: LightningDataModule) -> SNNClassifier:
    """A copy of the network, in a classifier, with the time steps kept between all layers."""
    if isinstance(network, SNNClassifier):
        return multistep(_copy(network))
    if isinstance(network, LightningModule):
        raise SubjectError(
            f"{type(network).__name__} is not an SNNClassifier: give the network inside it, or "
            "SNNClassifier(network, classes=..., timesteps=...)"
        )
    classes, timesteps = (getattr(data, name, None) for name in ("num_classes", "timesteps"))
    if classes is None or timesteps is None:
        raise SubjectError(
            f"{type(data).__name__} does not say num_classes and timesteps: give "
            "SNNClassifier(network, classes=..., timesteps=...) in place of the network"
        )
    return SNNClassifier(multistep(_copy(network)), classes=classes, timesteps=timesteps)


def _copy(network: Network) -> Network:
    """A copy; weights that a hook computes anew in every pass (``weight_norm``, ``prune``) hang on no graph in it."""
    for module in network.modules():
        for name, value in [*vars(module).items()]:
            if isinstance(value, Tensor) and not value.is_leaf:
                setattr(module, name, value.detach())
    return copy.deepcopy(network)


def _with_parts(data: LightningDataModule, method: Compressor, epochs: int) -> LightningDataModule:
    """The data; Lightning wants a training part of them even for a fit that has no epochs, so there is one.

    Raises:
        SubjectError: the data lack a part.
    """
    needed = {
        "test_dataloader": is_overridden("test_dataloader", data),
        "calibration_dataloader": method.calibration is not None or hasattr(data, "calibration_dataloader"),
    }
    if epochs:
        needed["train_dataloader"] = is_overridden("train_dataloader", data)
    missing = [f"{name}()" for name, there in needed.items() if not there]
    if missing:
        raise SubjectError(f"{type(data).__name__} has no {' and no '.join(missing)}: add it to the data module")
    if is_overridden("train_dataloader", data):
        return data
    completed: Any = copy.copy(data)
    completed.train_dataloader = completed.test_dataloader  # asked for, and not looked at
    return completed


def _finetuning(epochs: int, learning_rate: float | None) -> FineTuning | None:
    if not epochs:
        return None
    settings = {"epochs": epochs} | ({} if learning_rate is None else {"learning_rate": learning_rate})
    return FineTuning.model_validate(settings)


def _figures(measured: Measured) -> dict[str, Any]:
    return {**measured.metrics.model_dump(), **measured.cost.totals(), "seconds": measured.seconds}


def notes_on(compression: Mapping[str, Any]) -> list[str]:
    """What an account says that its figures do not: layers that nobody handled, inputs that were silent."""
    others = compression.get("left_alone")
    silent = never_active({layer["name"]: layer.get("dead_inputs", 0) for layer in compression["layers"]})
    return [*([f"left alone: {', '.join(others)}"] if others else []), *([silent] if silent else [])]


def table(title: str, dense: Figures, compressed: Figures, notes: str = "") -> Table:
    """Figures before and after, side by side."""
    shown = Table(title=title, title_justify="left", caption=notes or None)
    shown.add_column("")
    for heading in ("dense", "compressed", "ratio"):
        shown.add_column(heading, justify="right")
    for figure, before in dense.items():
        after = compressed[figure]
        if figure == "accuracy":
            shown.add_row(figure, f"{percent(before)} %", f"{percent(after)} %", f"{points(after - before)} points")
        elif isinstance(before, int | float):
            shown.add_row(figure, precise(before), precise(after), rounded(after / before) if before else "")
    return shown
