"""The commands ``snnbench wandb ...``; each imports what it needs."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmark.commands.options import (
    METHOD_OF_LAYERS,
    RESULTS,
    Bits,
    Pairs,
    call_without,
    once,
    opened,
    user_errors,
)
from benchmark.commands.source import HELD_OUT_SAMPLES, network_options, source_of


@click.group()
def wandb() -> None:
    """Weights & Biases: log stored records, make the dashboard, make a sweep of a suite."""


@wandb.command()
@RESULTS
@user_errors
def sync(results: Path) -> None:
    """Log all stored records, as if their runs had just ended: nothing is doubled. Offline without WANDB_API_KEY."""
    from benchmark.records import RecordStore
    from benchmark.tracking.board import sync as log_all
    from datamodules.storage import cache_folder

    logged, failed = log_all(RecordStore(results), results, cache_folder() / "checkpoints")
    click.echo(f"{logged} records logged, {failed} not")
    sys.exit(1 if failed else 0)


@wandb.command()
@RESULTS
@click.option("--entity", help="Owner of the project [default: that of WANDB_API_KEY].")
@user_errors
def dashboard(results: Path, entity: str | None) -> None:
    """Make a workspace and a report of the project, with trade-offs, leaderboard and layers; needs WANDB_API_KEY."""
    from benchmark.boards.leaderboard import build
    from benchmark.records import RecordStore
    from benchmark.tracking.dashboard import create
    from benchmark.tracking.runs import project

    for address in create(build(RecordStore(results)), entity, project()):
        click.echo(address)


@wandb.command()
@click.argument("suite")
@RESULTS
@user_errors
def sweep(suite: str, results: Path) -> None:
    """Print SUITE as a sweep file, for `wandb sweep FILE` and then `wandb agent ID` on any number of machines."""
    content = opened(suite)

    from benchmark.questions import build
    from benchmark.tracking import sweep as wandb_sweep
    from benchmark.tracking.runs import project

    made = wandb_sweep.sweep(content, suite, results, project(), build.questions_of(content))
    click.echo(wandb_sweep.as_yaml(made), nl=False)


WITHIN = (
    METHOD_OF_LAYERS,
    click.option("--max-memory-bits", type=Bits(), required=True, help="What the network's weights may take; 64KiB."),
    click.option("--density", type=float, help="The density that all have [default: it is searched]."),
    click.option("--bits", type=int, help="The width that all have [default: it is searched]."),
    click.option("--aftercare", multiple=True, help="As of snnbench compress."),
    click.option("-o", "--option", "fixed", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="One that stays."),
    HELD_OUT_SAMPLES,
)


def options_within(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a search for the most accurate network within a memory."""
    for option in reversed(WITHIN):
        command = option(command)
    return command


@wandb.command()
@network_options
@options_within
@click.option("--vary", type=Pairs(), multiple=True, metavar="KEY=VALUES", help="[0.01,0.1] or {min: 0.01, max: 0.1}.")
@user_errors
def tune(vary: tuple[tuple[str, Any], ...], **arguments: Any) -> None:
    """Print a sweep over options of a method, such as damping: accuracy at a given memory, on held-out samples."""
    source_of(arguments)

    from benchmark.questions.names import Named
    from benchmark.tracking.runs import project
    from benchmark.tracking.sweep import as_yaml, over_options

    _, _, *words = shlex.split(call_without(click.get_current_context(), {"vary"}, []))
    method = Named(name=arguments["method"], **once(arguments["fixed"]))
    trial = ["snnbench", "wandb", "trial", *words]
    click.echo(as_yaml(over_options(method, once(vary), trial, project())), nl=False)


@wandb.command()
@network_options
@options_within
@click.option("--options", "varied", default="{}", help="Options of the method, as JSON; agents of a sweep give them.")
@user_errors
def trial(varied: str, **arguments: Any) -> None:
    """Do one trial of a sweep over options: what an agent of `snnbench wandb tune` calls."""
    given = source_of(arguments)

    from benchmark.commands.source import network_file
    from benchmark.single_network.searching import Space
    from benchmark.single_network.subject import Source
    from benchmark.single_network.trials import HELD_OUT
    from benchmark.single_network.tuning import trial as do_trial
    from benchmark.tracking.sweep import options_of

    named = {"name": arguments["method"], **once(arguments["fixed"]), **options_of(varied)}
    space = Space([named], arguments["density"], arguments["bits"])
    samples, folder = arguments["held_out"] or HELD_OUT, network_file(arguments).absolute().parent
    memory, care = arguments["max_memory_bits"], arguments["aftercare"]
    found = do_trial(Source(**given), space, memory, folder, samples=samples, aftercare=care)
    click.echo(f"{found.best.candidate}: accuracy {found.best.accuracy:.4f} on held-out samples")
