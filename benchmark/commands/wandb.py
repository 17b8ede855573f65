"""The commands ``snnbench wandb ...``; each imports what it needs."""

import sys
from pathlib import Path

import click

from benchmark.commands.options import RESULTS, opened, user_errors


@click.group()
def wandb() -> None:
    """Weights & Biases: log stored records, make the dashboard, make a sweep of a suite."""


@wandb.command()
@RESULTS
@user_errors
def sync(results: Path) -> None:
    """Log all stored records, as if their runs had just ended: nothing is doubled. Offline without WANDB_API_KEY."""
    from benchmark.records import RecordStore
    from benchmark.tracking.runs import sync as log_all

    logged, failed = log_all(RecordStore(results), results)
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
