"""Cost counting during `Trainer.test`."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from hardware.memory import WeightCoding
from hardware.pricing import make_report
from hardware.report import CostReport
from hardware.tally import NetworkTally
from hardware.trace import Tracer


class HardwareCost(Callback):
    """Counts synaptic operations, memory and activity of a module while it is tested.

    The totals are logged as `cost/<name>` (operations and spikes per sample, memory in bits); the whole
    report is `report` afterwards. Across processes the counts are summed. A sampler that repeats samples to
    give each process the same number repeats their cost as well.

    Args:
        codings: how weights are stored, by layer name as in `pl_module.named_modules()`; the others as the
            compressor that quantised them noted on them, else as 32-bit floats.
        state_bits: bits of one neuron state variable.

    Attributes:
        report: cost of the last finished test, None before the first.
    """

    def __init__(self, codings: Mapping[str, WeightCoding] | None = None, state_bits: int = 32) -> None:
        self.codings = dict(codings or {})
        self.state_bits = state_bits
        self.report: CostReport | None = None
        self._tracer: Tracer | None = None
        self._batch = ExitStack()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the module."""
        self.report = None
        self._tracer = Tracer(pl_module)
        self._tracer.attach()

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start counting a batch (x: [B, ...], y: [B])."""
        x, _ = batch
        self._batch.enter_context(self._attached().batch(len(x)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Close the batch."""
        self._batch.close()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over processes, make the report and log its totals."""
        tracer = self._attached()
        tracer.detach()
        tally = _over_processes(tracer.tally)
        self.report = make_report(tally, pl_module, self.codings, self.state_bits)
        pl_module.log_dict({f"cost/{name}": value for name, value in self.report.totals().items()})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing behind in the module."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind in the module."""
        self._release()

    def _attached(self) -> Tracer:
        if self._tracer is None:
            raise RuntimeError("HardwareCost is attached to no module: give it to Trainer.test as a callback")
        return self._tracer

    def _release(self) -> None:
        self._batch.close()
        if self._tracer is not None:
            self._tracer.detach()
            self._tracer = None


def _over_processes(tally: NetworkTally) -> NetworkTally:
    """Sum the tallies of all processes; each process gets the sum."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tally
    tallies: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(tallies, tally)
    total = NetworkTally()
    for part in tallies:
        total.merge(part)
    return total
