"""Which samples of a test are classified right, so that two networks can be compared sample by sample."""

from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Answers(Callback):
    """Keeps what :meth:`benchmark.networks.classifier.SNNClassifier.test_step` says of every sample.

    Attributes:
        correct: bool ``[samples]``, in the loader's order; those of several processes one after the other.
    """

    def __init__(self) -> None:
        self.correct = torch.empty(0, dtype=torch.bool)
        self._batches: list[Tensor] = []

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        """One batch more."""
        self._batches.append(outputs.cpu())

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All batches as one, of all processes."""
        own = torch.cat(self._batches)
        parts: list[Any] = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, own)
        self.correct, self._batches = torch.cat(parts), []
