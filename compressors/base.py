"""The ground that every compressor stands on: a Lightning callback with a calibration and a fine-tuning life."""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import track as rich_track
from torch import Tensor
from torch.utils.data import DataLoader

from compressors.layers import Layer, LayerError, find_layers, select
from compressors.statistics import CalibrationError

Item = TypeVar("Item")
Track = Callable[[Sequence[Item], str], Iterable[Item]]


def track(sequence: Sequence[Item], description: str) -> Iterable[Item]:
    """The default progress bar; it goes away when the work is done."""
    return rich_track(sequence, description, transient=True)


class BudgetError(ValueError):
    """A budget that no compressor can meet, such as a density outside (0, 1]."""


@dataclass(frozen=True)
class Budget:
    """What a compressed network may cost. ``density`` is the share of the weights of the compressed layers kept."""

    density: float = 1.0

    def __post_init__(self) -> None:
        number = isinstance(self.density, int | float) and math.isfinite(self.density)
        if not number or not 0 < self.density <= 1:
            raise BudgetError(
                f"density is {self.density!r}: give a number above 0 and at most 1 (the share of weights kept)"
            )


@dataclass(frozen=True)
class LayerCompression:
    """What was done to one layer. ``loss`` is the method's own estimate of the harm, where it has one."""

    name: str
    shape: tuple[int, ...]
    mask: Tensor = field(repr=False)  # bool, the weight's shape; True is kept
    loss: float | None = None

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return int(self.mask.sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary, without the mask."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "weights": self.mask.numel(),
            "kept": self.kept,
            "density": self.kept / self.mask.numel(),
            "loss": self.loss,
        }


@dataclass(frozen=True)
class Compression:
    """What was done to each layer of a network, in order of execution. ``seconds`` is the wall time it took.

    Where work of an earlier run was taken up again, the time it took then is counted in.
    """

    layers: tuple[LayerCompression, ...]
    seconds: float = 0.0

    @property
    def density(self) -> float:
        """Share of weights kept over all compressed layers: what was achieved, not what was asked for."""
        return sum(layer.kept for layer in self.layers) / sum(layer.mask.numel() for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary, without the masks."""
        return {
            "density": self.density,
            "seconds": self.seconds,
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def masks(self) -> dict[str, Tensor]:
        """Layer name -> bool mask of its weight's shape."""
        return {layer.name: layer.mask for layer in self.layers}


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
    more epochs the compressed network is fine-tuned, the masks being enforced after every optimizer step. Either way
    the module ends with plain layers and exact zeros. The calibration data are those of the datamodule's
    ``calibration_dataloader()``, or of ``calibration``.

    Subclasses implement :meth:`compress`. Their constructor's arguments are their options, and are kept in records.

    Args:
        density: share of the weights of the compressed layers to keep, in (0, 1].
        include: shell patterns of layer names to compress.
        exclude: shell patterns of layer names to leave alone.
        calibration: a loader of ``(x, y)`` batches, for datamodules without one of their own.

    Attributes:
        compression: what was done; None before the fit.

    Raises:
        BudgetError: the density is not in (0, 1].
        LayerError: at the start of the fit: nothing to compress, or weights that are not finite.
        CalibrationError: at the start of the fit: no calibration data.
    """

    version: ClassVar[int] = 1  # raise it when the results change: another version is another question
    control: ClassVar[bool] = False  # a yardstick rather than a method of its own
    needs_density: ClassVar[bool] = True

    def __init__(
        self,
        density: float = 1.0,
        *,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        calibration: DataLoader[Any] | None = None,
    ) -> None:
        self.budget = Budget(density)
        self.include, self.exclude = tuple(include), tuple(exclude)
        self.calibration = calibration
        self.compression: Compression | None = None
        self.track: Track[Any] = track

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
        if self.compression is not None:
            return
        started = time.perf_counter()
        network = self._network(trainer, pl_module)
        layers = self.compress(network)
        self.compression = Compression(layers, time.perf_counter() - started + self.reused_seconds())
        self._enforce(pl_module)

    def reused_seconds(self) -> float:
        """Time that earlier runs spent on work this one took up again."""
        return 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Momentum and weight decay move pruned weights away from zero: put them back."""
        self._enforce(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What was done, so that a resumed fit goes on with the same masks."""
        if self.compression is None:
            return {}
        layers = [asdict(layer) for layer in self.compression.layers]
        return {"layers": layers, "seconds": self.compression.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the masks of a checkpoint."""
        if state_dict:
            layers = tuple(LayerCompression(**layer) for layer in state_dict["layers"])
            self.compression = Compression(layers, state_dict["seconds"])

    # ------------------------------------------------------------------------------------------------------------------

    def _enforce(self, module: LightningModule) -> None:
        assert self.compression is not None
        with torch.no_grad():
            for name, mask in self.compression.masks().items():
                weight = module.get_parameter(f"{name}.weight")
                weight.mul_(mask.to(weight.device))

    def _network(self, trainer: Trainer, module: LightningModule) -> Network:
        loader = self._loader(trainer)

        def batches() -> Iterator[Tensor]:
            for batch in loader:
                x = batch[0].to(module.device)
                if not torch.isfinite(x).all():
                    raise CalibrationError("the calibration data have NaN or infinite values: check the data set")
                yield x

        first = next(batches(), None)
        if first is None:
            raise CalibrationError("the calibration set is empty: ask for at least one sample")
        layers = select(find_layers(module, lambda: module(first[:1])), self.include, self.exclude)
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
