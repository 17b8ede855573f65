"""What the bars of a fit and of a test say."""

import io
import time
from contextlib import nullcontext

import pytest
from lightning.pytorch import Callback, Trainer
from rich.console import Console

from benchmark.runs.bars import EvaluationBar
from benchmark.runs.progress import SuiteProgress
from compressors.base import track
from compressors.methods.dst import DST
from compressors.methods.identity import Identity
from compressors.methods.lamp import LAMP
from compressors.methods.sbc import SBC
from compressors.progress import ShownProgress
from tests.benchmark.factory import make_record
from tests.compressors.networks import QUIET, RandomEvents, classifier


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
    compressor.state.track = lambda sequence, description: sequence
    callbacks = [*progress.training(), *([compressor] if fine_tuned else []), Look()]
    Trainer(max_epochs=2, callbacks=callbacks, num_sanity_val_steps=0, **QUIET).fit(
        classifier(), datamodule=Validated()
    )
    first, last = seen[0], seen[-1]
    stages = ["fine-tuning LAMP, round 1/2, density 0.5", "fine-tuning LAMP, round 2/2, density 0.25"]
    before, after = stages if fine_tuned else ["training the dense network"] * 2
    assert first == (f"{before}, epoch 1/2", 1, 6)
    assert last[0].startswith(f"{after}, epoch 2/2, loss ")
    assert ", validation accuracy " in last[0]
    assert last[1:] == (6, 6)
    assert len(progress.progress.tasks) == 1, "the bar is taken away, the suite's stays"


@pytest.mark.parametrize(
    ("compressor", "told"), [(Identity(), "training Identity"), (DST(0.5), "training DST, density 0.5")]
)
def test_what_is_trained_from_scratch_is_not_called_fine_tuning(compressor, told):
    progress, seen = SuiteProgress("suite", 1, Console(file=io.StringIO())), []

    class Look(Callback):
        def on_train_batch_end(self, *args):
            seen.append(progress.progress.tasks[-1].description)

    compressor.state.track = lambda sequence, description: sequence
    callbacks = [*progress.training(), compressor, Look()]
    Trainer(max_epochs=1, callbacks=callbacks, **QUIET).fit(classifier(), datamodule=RandomEvents())
    assert seen[0] == f"{told}, epoch 1/1"


class Examined(RandomEvents):
    """Random events with a test part."""

    test_dataloader = RandomEvents.train_dataloader


def test_a_pass_over_the_calibration_data_and_a_test_have_bars():
    shown = []

    def watch(items, description):
        for place, item in enumerate(items, 1):
            yield item
            shown.append((description, place, len(items)))

    compressor = SBC(0.5)
    compressor.state.track = watch
    module, data = classifier(), Examined()
    Trainer(max_epochs=0, callbacks=[compressor], **QUIET).fit(module, datamodule=data)
    Trainer(callbacks=[EvaluationBar(watch)], **QUIET).test(module, datamodule=data, verbose=False)
    batches = len(data.calibration_dataloader())
    bar = [("SBC: calibration", place + 1, batches) for place in range(batches)]
    assert shown[:batches] == bar
    layers = [entry for entry in shown if entry[0] == "SBC: density 0.5"]
    assert [place for _, place, _ in layers] == list(range(1, len(compressor.compression.layers) + 1))
    tests = len(data.test_dataloader())
    assert shown[-tests:] == [("testing", place + 1, tests) for place in range(tests)]


def test_the_bar_of_a_fit_goes_after_an_error_too():
    progress = SuiteProgress("suite", 1, Console(file=io.StringIO()))

    class Fail(Callback):
        def on_train_batch_end(self, *args):
            assert len(progress.progress.tasks) == 2
            raise ZeroDivisionError

    trainer = Trainer(max_epochs=1, callbacks=[*progress.training(), Fail()], num_sanity_val_steps=0, **QUIET)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(classifier(), datamodule=Validated())
    assert len(progress.progress.tasks) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_the_bar_of_a_test_goes_with_it(fails):
    progress = SuiteProgress("suite", 1, Console(file=io.StringIO()))
    seen = []

    class Look(Callback):
        def on_test_batch_start(self, *args):
            seen.append((len(progress.progress.tasks), progress.progress.tasks[-1].completed))
            if fails and len(seen) == 2:
                raise ZeroDivisionError

    trainer = Trainer(callbacks=[EvaluationBar(progress.track), Look()], **QUIET)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        trainer.test(classifier(), datamodule=Examined(), verbose=False)
    assert seen[:2] == [(2, 0), (2, 1)]
    assert len(progress.progress.tasks) == 1


def test_inputs_that_were_never_active_are_named_below_the_line_of_the_run():
    console, silent = Console(file=io.StringIO(), width=200), make_record("sbc", 0.5)
    progress = SuiteProgress("suite", 2, console)
    layers = [layer.model_dump(mode="json") for layer in silent.compression.layers]
    account = {"density": 0.5, "seconds": 1.0, "layers": [layers[0] | {"dead_inputs": 9}, layers[1]]}
    for record in (make_record("sbc", 0.5), make_record("sbc", 0.5, compression=account)):
        progress.finished(record.question, record, "done")
    first, second, named = console.file.getvalue().splitlines()
    assert named.strip() == "9 inputs of layer conv1 were never active"
    assert "accuracy" in first
    assert "accuracy" in second


def test_off_a_terminal_the_default_bar_writes_nothing(capfd):
    assert list(track(range(3), "work")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_off_a_terminal_a_line_says_how_far_the_work_is():
    console = Console(file=io.StringIO(), width=80)
    with ShownProgress(console, every=0.05) as progress:
        whole = progress.add_task("suite", total=3)
        for _ in progress.track(range(4), description="training [x=1]"):
            time.sleep(0.06)
        progress.update(whole, completed=3)
        time.sleep(0.2)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("suite: 0 of 3; training [x=1]: ")
    assert "3 of 3" not in console.file.getvalue(), "what is done is not told"


def test_on_a_terminal_no_lines_are_said():
    console = Console(file=io.StringIO(), force_terminal=True)
    with ShownProgress(console, every=0.01) as progress:
        progress.add_task("suite", total=3)
        time.sleep(0.1)
    assert "0 of 3" not in console.file.getvalue()


def test_a_file_hears_soon_and_often():
    waits = []

    class Clock:
        def wait(self, seconds):
            waits.append(seconds)
            return sum(waits) > 60

        def set(self):
            pass

    shown = io.StringIO()
    progress = ShownProgress(Console(file=shown))
    progress.add_task("training the dense network, epoch 1/2", total=9, completed=4)
    progress._ended = Clock()
    progress._speak()
    assert waits[0] <= 5
    assert max(waits) <= 30
    assert shown.getvalue().count("training the dense network, epoch 1/2: 4 of 9") == len(waits) - 1 >= 2
