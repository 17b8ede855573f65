"""The ground that every compressor stands on: a Lightning callback with a calibration and a fine-tuning life."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import track as rich_track
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from compressors.budget import Budget, BudgetError
from compressors.calibration.aftercare import AFTERCARE, correct_biases, output_means, reestimate_batchnorm
from compressors.calibration.hessians import CalibrationError
from compressors.compression import Compression, LayerCompression, _layer_from
from compressors.network.layers import Layer, LayerError, find_layers, left_alone, select

Item = TypeVar("Item")
Track = Callable[[Iterable[Item], str], Iterable[Item]]

_console = Console(stderr=True)


def track(items: Iterable[Item], description: str) -> Iterable[Item]:
    """The default progress bar: on a terminal, and it goes away when the work is done."""
    return rich_track(items, description, transient=True, console=_console, disable=not _console.is_terminal)


def _layers_of(module: LightningModule, sample: Tensor) -> list[Layer]:
    """The layers that a sample reaches, if silence reaches the same.

    Raises:
        LayerError: it does not: what the network computes depends on the data, and statistics of it would not add up.
    """
    found = find_layers(module, lambda: module(sample))
    silent = find_layers(module, lambda: module(torch.zeros_like(sample)))
    if differing := {layer.name for layer in found} ^ {layer.name for layer in silent}:
        raise LayerError(
            f"whether {', '.join(sorted(differing))} runs depends on the data: write the network's forward pass "
            "without branches on values"
        )
    return found


def _requantised(layer: LayerCompression, module: LightningModule) -> LayerCompression:
    if layer.grid is None:
        return layer
    weight = module.get_parameter(f"{layer.name}.weight")
    codes = layer.grid.codes(weight.detach().flatten(1)).view(layer.shape)
    layer = replace(layer, codes=codes)
    with torch.no_grad():
        weight.copy_(layer.weight())
    return layer


def _of_kept(means: Mapping[str, Tensor], layers: Iterable[LayerCompression]) -> dict[str, Tensor]:
    """Means ``[out]`` of the dense layers' outputs, of those outputs that are left."""
    kept = {layer.name: layer.outputs for layer in layers}
    return {name: mean if kept[name] is None else mean[kept[name]] for name, mean in means.items()}


@dataclass(frozen=True)
class Network:
    """What a compressor gets to work on: the module, its layers, and the calibration data."""

    module: LightningModule
    layers: Sequence[Layer]
    calibration: Callable[[], Iterator[Tensor]]  # batches of x on the module's device, in a fixed order
    track: Track[Any]


class Compressor(Callback):
    """A method that makes a trained network smaller: ``Trainer(callbacks=[Method(...)]).fit(module, datamodule)``.

    With ``max_epochs=0`` the method is post-training: it looks at calibration data and takes no gradient step. With
    more epochs the compressed network is fine-tuned: weights, gradients and the optimizer's memory are masked. Either
    way the module ends with plain layers and exact zeros. The calibration data are those of the datamodule's
    ``calibration_dataloader()``, or of ``calibration``.

    Subclasses implement :meth:`compress`. Their constructor's arguments are their options, and are kept in records.

    Args:
        density: share of the weights of the compressed layers to keep, in (0, 1].
        bits: width of a weight, 2 to 8; None leaves floats.
        synops: share of the dense network's synaptic operations to keep, in place of a density.
        include: shell patterns of layer names to compress.
        exclude: shell patterns of layer names to leave alone.
        aftercare: what is put right afterwards, on the calibration data, of ``batchnorm`` (statistics re-estimated)
            and ``means`` (each layer's mean output brought back to the dense one); see
            :mod:`compressors.calibration.aftercare`.
        calibration: a loader of ``(x, y)`` batches, for datamodules without one of their own.

    Attributes:
        compression: what was done; None before the fit.

    Raises:
        BudgetError: a budget out of range, or of a kind that the method cannot meet.
        LayerError: at the start of the fit: nothing to compress, or weights that are not finite.
        CalibrationError: at the start of the fit: no calibration data.
    """

    version: ClassVar[int] = 1  # raise it when the results change: another version is another question
    control: ClassVar[bool] = False  # a yardstick rather than a method of its own
    structured: ClassVar[bool] = False  # takes out whole channels: a density is met as nearly as widths allow
    budgets: ClassVar[tuple[str, ...]] = ("density",)  # the kinds of budget (of KINDS) that a method can meet

    def __init__(
        self,
        density: float = 1.0,
        *,
        bits: int | None = None,
        synops: float | None = None,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        aftercare: Sequence[str] = (),
        calibration: DataLoader[Any] | None = None,
    ) -> None:
        self.budget = Budget(density, bits, synops)
        self._check_budget()
        self.include, self.exclude = tuple(include), tuple(exclude)
        unknown = set(aftercare) - set(AFTERCARE)
        if unknown:
            raise BudgetError(f"unknown aftercare {', '.join(sorted(unknown))}: known: {', '.join(AFTERCARE)}")
        self.aftercare = tuple(care for care in AFTERCARE if care in aftercare)
        self.calibration = calibration
        self.compression: Compression | None = None
        self.track: Track[Any] = track

    def _check_budget(self) -> None:
        name, budget = type(self).__name__, self.budget
        if budget.bits is not None and not any("bits" in kind for kind in self.budgets):
            raise BudgetError(f"{name} does not quantise: leave out `bits`, or take another method")
        if budget.synops is not None and "synops" not in self.budgets:
            raise BudgetError(f"{name} has no SynOps budget: give a density")

    @property
    def stage(self) -> str:
        """What the method is at, for progress displays."""
        return str(self.budget)

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """The constructor's arguments by name, those of the base classes included."""
        found: dict[str, inspect.Parameter] = {}
        for base in reversed(cls.__mro__):
            if "__init__" in vars(base) and issubclass(base, Compressor):
                found |= dict(inspect.signature(base.__init__).parameters)
        return {name: p for name, p in found.items() if name != "self" and p.kind is not p.VAR_KEYWORD}

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Change the layers' weights in place and say what was done to each of them."""
        raise NotImplementedError(f"{type(self).__name__} must implement compress()")

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate and compress, unless a checkpoint restored a network that is already compressed."""
        if self.compression is None:
            self.compress_now(trainer, pl_module)

    def compress_now(self, trainer: Trainer, module: LightningModule) -> None:
        """Calibrate and compress the network as it stands; its time is added to that of earlier rounds."""
        started, reused = time.perf_counter(), self.reused_seconds()
        network = self._network(trainer, module)
        dense = output_means(module, network.layers, network.calibration) if "means" in self.aftercare else {}
        layers = self.compress(network)
        care = self._care(network, _of_kept(dense, layers))
        seconds = time.perf_counter() - started + self.reused_seconds() - reused
        earlier = 0.0 if self.compression is None else self.compression.seconds
        others = left_alone(module, network.layers)
        self.compression = Compression(layers, earlier + seconds, care, left_alone=others)
        self._enforce(module)
        for optimizer in trainer.optimizers:
            self._forget(module, optimizer)

    def _care(self, network: Network, dense: Mapping[str, Tensor]) -> dict[str, list[str]]:
        done = {}
        if "batchnorm" in self.aftercare:
            done["batchnorm"] = reestimate_batchnorm(network.module, network.calibration)
        if "means" in self.aftercare:
            done["means"] = correct_biases(network.module, network.layers, dense, network.calibration)
        return done

    def reused_seconds(self) -> float:
        """Time that earlier runs spent on work this one took up again."""
        return 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """A pruned weight has no gradient, so that it takes no part in clipping and leaves no trace in momenta."""
        for weight, mask in self._masked(pl_module):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Momentum and weight decay move pruned weights away from zero: put them back."""
        self._enforce(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What was done, so that a resumed fit goes on with the same masks."""
        if self.compression is None:
            return {}
        layers = [asdict(layer) for layer in self.compression.layers]
        done = self.compression
        told = {"seconds": done.seconds, "aftercare": dict(done.aftercare), "left_alone": done.left_alone}
        return {"layers": layers, **told, "stages": [*done.stages]}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put quantised weights back on their grids, where fine-tuning moved them, and take down their codes."""
        assert self.compression is not None
        layers = tuple(_requantised(layer, pl_module) for layer in self.compression.layers)
        self.compression = replace(self.compression, layers=layers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the masks of a checkpoint."""
        if state_dict:
            layers = tuple(_layer_from(state) for state in state_dict["layers"])
            done = {key: state_dict[key] for key in ("seconds", "aftercare", "left_alone")}
            self.compression = Compression(layers, **done, stages=tuple(state_dict["stages"]))

    # ------------------------------------------------------------------------------------------------------------------

    def _masked(self, module: LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
        """The weights of the compressed layers and their masks."""
        assert self.compression is not None
        for name, mask in self.compression.masks().items():
            weight = module.get_parameter(f"{name}.weight")
            yield weight, mask.to(weight.device)

    def _enforce(self, module: LightningModule) -> None:
        with torch.no_grad():
            for weight, mask in self._masked(module):
                weight.mul_(mask)

    def _forget(self, module: LightningModule, optimizer: Optimizer) -> None:
        """What an optimizer remembers of the weights that went now: momentum, Adam's moments."""
        for weight, mask in self._masked(module):
            for remembered in optimizer.state.get(weight, {}).values():
                if isinstance(remembered, Tensor) and remembered.shape == mask.shape:
                    remembered.mul_(mask)

    def _network(self, trainer: Trainer, module: LightningModule) -> Network:
        loader = self._loader(trainer)

        def batches() -> Iterator[Tensor]:
            for batch in self.track(loader, f"{type(self).__name__}: calibration"):
                x = batch[0].to(module.device)
                if not torch.isfinite(x).all():
                    raise CalibrationError("the calibration data have NaN or infinite values: check the data set")
                yield x

        first = next(batches(), None)
        if first is None:
            raise CalibrationError("the calibration set is empty: ask for at least one sample")
        layers = select(_layers_of(module, first[:1]), self.include, self.exclude)
        for layer in layers:
            if not torch.isfinite(layer.rows).all():
                raise LayerError(f"layer {layer.name!r} has NaN or infinite weights: train it again or check its file")
        return Network(module, layers, batches, self.track)

    def _loader(self, trainer: Trainer) -> Iterable[Any]:
        if self.calibration is not None:
            return self.calibration
        datamodule = getattr(trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "calibration_dataloader"):
            raise CalibrationError(
                f"{type(self).__name__} needs a calibration_dataloader(): fit with a datamodule that has one, "
                "or pass calibration=DataLoader(...) of training samples"
            )
        return datamodule.calibration_dataloader()
