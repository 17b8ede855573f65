"""The LightningModule around any spiking network."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from benchmark.networks.errors import NetworkError
from benchmark.networks.inference.forward import compiled, each_image_once
from benchmark.networks.inference.uncompiled import uncompiled
from benchmark.networks.losses import LOSSES
from benchmark.networks.optimization import Optimization


def coarser(x: Tensor, timesteps: int) -> Tensor:
    """Event frames ``[B, T, ...]`` added up to ``timesteps`` of them, as even as may be; fewer are left as they are."""
    frames = x.shape[1]
    if frames <= timesteps:
        return x
    bins = torch.arange(frames, device=x.device) * timesteps // frames
    return x.new_zeros(len(x), timesteps, *x.shape[2:]).index_add_(1, bins, x)


def outputs(network: nn.Module, x: Tensor, classes: int, timesteps: int) -> Tensor:
    """Outputs ``[T, B, classes]`` of a network for ``x``; see :class:`SNNClassifier`.

    They are ``[1, B, classes]`` where the network itself takes the mean over time.

    Raises:
        NetworkError: the network gives something else than scores of all classes.
    """
    functional.reset_net(network)
    events = x.ndim == 5
    steps = coarser(x, timesteps).transpose(0, 1) if events else x.expand(timesteps, *x.shape)
    with each_image_once(network), compiled(network):
        output = network(steps)
    if not isinstance(output, Tensor):
        size = f" of {len(output)}" if isinstance(output, tuple | list | dict) else ""
        raise NetworkError(
            f"the network {type(network).__name__} returns a {type(output).__name__}{size}: wrap it in a module that "
            f"returns the scores alone, [T, B, {classes}] or [B, {classes}]"
        )
    if output.ndim not in (2, 3) or tuple(output.shape[-2:]) != (len(x), classes):
        raise NetworkError(
            f"the network {type(network).__name__} returns {list(output.shape)} for {len(x)} samples of {classes} "
            f"classes: its last layer must give [T, B, {classes}] or [B, {classes}]"
        )
    return output if output.ndim == 3 else output[None]


def scores(network: nn.Module, x: Tensor, classes: int, timesteps: int) -> Tensor:
    """Scores ``[B, classes]``: the mean of :func:`outputs` over time."""
    return outputs(network, x, classes, timesteps).mean(0)


class SNNClassifier(LightningModule):
    """Classifies ``x [B, T, C, H, W]`` (events) or ``[B, C, H, W]`` (images, shown ``timesteps`` times: direct coding).

    What precedes the first neurons of a network sees an image once, and is counted once.

    The network's time-major order ``[T, B, ...]`` exists only in here. A class's score is its output's mean over time,
    which the network may take itself. A network that went through ``torch.compile`` is taken as it was before: its
    functions are watched one by one.

    Args:
        network: maps ``[T, B, C, H, W]`` to ``[T, B, classes]`` or ``[B, classes]``; SpikingJelly modules in multi-step
            mode.
        classes: number of classes.
        timesteps: T; event samples of more frames have neighbouring ones added up.
        loss: ``"rate_mse"``, ``"cross_entropy"`` or ``"tet"``, see :mod:`benchmark.networks.losses`.
        label_smoothing: see there.
        optimization: settings of :class:`~benchmark.networks.optimization.Optimization`; by default Adam at 1e-3,
            annealed along a cosine to zero over the epochs of the fit.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: int,
        timesteps: int,
        loss: str = "rate_mse",
        label_smoothing: float = 0.0,
        **optimization: Any,
    ) -> None:
        super().__init__()
        self.network = uncompiled(network)
        self.classes, self.timesteps = classes, timesteps
        self.loss, self.label_smoothing = LOSSES[loss], label_smoothing
        self.optimization = Optimization(**optimization)
        for part in ("train", "val", "test"):
            setattr(self, f"{part}_accuracy", MulticlassAccuracy(num_classes=classes, average="micro"))
            setattr(self, f"{part}_loss", MeanMetric())  # Lightning's own mean over processes rounds sample numbers

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[B, classes]``: firing rates in [0, 1] where the last layer spikes.

        Raises:
            NetworkError: the network gives something else than scores of all classes.
        """
        return scores(self.network, x, self.classes, self.timesteps)

    def _step(self, batch: tuple[Tensor, Tensor], part: str) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and whether each sample is classified right ``[B]``."""
        x, y = batch
        steps = outputs(self.network, x, self.classes, self.timesteps).float()  # means of few bits would be coarse
        loss, scores = self.loss(steps, y, self.label_smoothing), steps.mean(0)
        mean_loss, accuracy = getattr(self, f"{part}_loss"), getattr(self, f"{part}_accuracy")
        mean_loss.update(loss.detach(), len(y))
        labels = y.argmax(1) if y.ndim == 2 else y
        accuracy.update(scores, labels)
        metrics = {f"{part}/loss": mean_loss, f"{part}/accuracy": accuracy}
        self.log_dict(metrics, on_epoch=True, on_step=False, batch_size=len(y))
        return loss, scores.argmax(1) == labels

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a training batch."""
        return self._step(batch, "train")[0]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy and loss of a validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Accuracy and loss of a test batch; whether each sample is classified right, bool ``[B]``, for callbacks."""
        return self._step(batch, "test")[1]

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule over the fit's epochs."""
        optimizer, schedule = self.optimization.of(self, max(1, self.trainer.max_epochs or 1))
        return [optimizer], [schedule]

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Gradients no longer than asked for."""
        self.clip_gradients(optimizer, self.optimization.gradient_clip, "norm")
