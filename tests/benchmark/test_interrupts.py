"""An interrupt ends a command in one way, wherever it comes: a word, and the status of one."""

import signal

import click
import pytest
from click.testing import CliRunner
from lightning.pytorch import Callback

from benchmark.commands.options import user_errors
from benchmark.runs.run import compress_and_measure
from compressors import Identity
from tests.compressors.networks import RandomEvents, classifier


class Interrupting(Callback):
    """What Ctrl-C does while a network is fitted."""

    def on_fit_start(self, *args):
        raise KeyboardInterrupt


def in_a_trainer():
    compress_and_measure(classifier(), RandomEvents(), Identity(), 0, callbacks=[Interrupting()])


def outside():
    raise KeyboardInterrupt


def in_vain():
    try:
        raise KeyboardInterrupt
    finally:
        [].pop()


@pytest.mark.parametrize("work", [in_a_trainer, outside, in_vain])
def test_an_interrupted_command_says_so(work):
    before = signal.getsignal(signal.SIGINT)
    try:
        done = CliRunner().invoke(click.command("work")(user_errors(work)))
    finally:
        signal.signal(signal.SIGINT, before)  # which a Trainer silences
    assert done.exit_code == 130
    assert "interrupted; the same command goes on where this one stopped" in done.output


def test_an_exit_of_another_kind_is_none():
    def work():
        raise SystemExit(3)

    done = CliRunner().invoke(click.command("work")(user_errors(work)))
    assert (done.exit_code, done.output) == (3, "")
