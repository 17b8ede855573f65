"""What the bar of a fit says."""

import io

import pytest
from lightning.pytorch import Callback, Trainer
from rich.console import Console

from benchmark.progress import SuiteProgress
from compressors.lamp import LAMP
from tests.contract.test_compressors import QUIET, RandomEvents, classifier


class Validated(RandomEvents):
    """Random events with a validation part."""

    val_dataloader = RandomEvents.train_dataloader


@pytest.mark.parametrize("fine_tuned", [True, False])
def test_the_bar_tells_stage_epoch_and_accuracy_and_fills_up(fine_tuned):
    progress = SuiteProgress("suite", 1, Console(file=io.StringIO()))
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, *args):
            task = progress.progress.tasks[-1]
            seen.append((task.description, task.completed, task.total))

    compressor = LAMP(0.25, schedule=0.5)
    compressor.track = lambda sequence, description: sequence
    callbacks = [*progress.training(), *([compressor] if fine_tuned else []), Look()]
    Trainer(max_epochs=2, callbacks=callbacks, num_sanity_val_steps=0, **QUIET).fit(
        classifier(), datamodule=Validated()
    )
    first, last = seen[0], seen[-1]
    stages = ["fine-tuning LAMP, round 1/2, density 0.5", "fine-tuning LAMP, round 2/2, density 0.25"]
    before, after = stages if fine_tuned else ["training the dense network"] * 2
    assert first == (f"{before}, epoch 1/2", 1, 6)
    assert last[0].startswith(f"{after}, epoch 2/2, validation accuracy ")
    assert last[1:] == (6, 6)
    assert len(progress.progress.tasks) == 1, "the bar is taken away, the suite's stays"
