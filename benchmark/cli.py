"""The command ``snnbench``. Commands import the heavy packages they need; ``--help`` and ``list`` need none."""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Literal

import click

from benchmark.commands.data import data as data_sets
from benchmark.commands.network import compress, profile
from benchmark.commands.options import AS_JSON, ENERGY, RESULTS, Pairs, device_options, user_errors
from benchmark.commands.wandb import wandb


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="snnbench")
def main() -> None:
    """Which compressor makes a spiking network smallest and cheapest at which loss of accuracy?

    \b
    snnbench run smoke          run a suite; every run leaves a record in results/
    snnbench leaderboard        turn the records into tables and plots
    snnbench compress --help    compress a network of your own

    Exit status: 0 done, 1 some run failed, 2 a mistake in the call or a file, 3 data missing.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    sys.path.append(str(Path.cwd()))  # so that module:attribute finds a file beside the suite; last, to hide nothing


@main.command()
@click.argument("suite")
@RESULTS
@click.option(
    "--data-root",
    "data_roots",
    type=Pairs(),
    multiple=True,
    metavar="SET=DIR",
    help="Where a data set's files are (else $SNNBENCH_DATA/<set>, or the user's data folder).",
)
@click.option(
    "--wandb/--no-wandb", "use_wandb", default=True, help="Log each run to Weights & Biases (offline without a key)."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time, in processes.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that all jobs share; with ray, of each run.")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--address", help="Of the Ray cluster [default: $RAY_ADDRESS, else one on this machine].")
@device_options
@click.option("--only", metavar="KEY", help="Only the run of this key (see `snnbench wandb sweep`).")
@AS_JSON
@user_errors
def run(
    suite: str,
    results: Path,
    data_roots: tuple[tuple[str, Any], ...],
    use_wandb: bool,
    jobs: int,
    threads: int | None,
    executor: Literal["local", "ray"],
    address: str | None,
    only: str | None,
    as_json: bool,
    **devices: Any,
) -> None:
    """Run SUITE, a shipped suite's name or a .yaml file. What is already in the results is not run again."""
    from benchmark.catalog import suite_path
    from benchmark.questions.suite import load_suite

    if executor == "ray" and jobs > 1:
        raise click.UsageError("--jobs is for this machine: a Ray cluster takes as many runs as it has room for")
    asked = load_suite(suite_path(suite))
    roots = {name: Path(str(folder)) for name, folder in data_roots}

    from benchmark.questions import build
    from benchmark.runs import job
    from benchmark.runs.distributed import Devices
    from benchmark.tracking import sweep as wandb_sweep

    if only is not None:
        asked = wandb_sweep.only(asked, only, build.questions_of(asked))
    means = job.Means(jobs, threads, executor, address, Devices(**devices))
    outcome = job.run(asked, results, roots, means, use_wandb=use_wandb)
    if as_json:
        click.echo(json.dumps({"suite": asked.name, **vars(outcome)}))
    sys.exit(1 if outcome.failed else 0)


@main.command()
@click.argument("suite")
@RESULTS
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
@AS_JSON
@user_errors
def plan(suite: str, results: Path, jobs: int, as_json: bool) -> None:
    """Say what SUITE still has to do, and estimate time and memory from the records in the results."""
    from benchmark.catalog import suite_path
    from benchmark.questions.suite import load_suite

    asked = load_suite(suite_path(suite))

    from benchmark.records import RecordStore
    from benchmark.runs import job
    from benchmark.runs.plan import show

    ahead = job.plan_of(asked, RecordStore(results))
    click.echo(json.dumps(ahead.to_dict()) if as_json else show(ahead, jobs))


@main.command()
@RESULTS
@click.option("--suite", help="Only the records of this suite.")
@click.option("--data", help="Only this data set.")
@click.option("--model", help="Only this network.")
@ENERGY
@click.option("--write/--no-write", default=True, help="Also write leaderboard.html, .md, .csv and the plots.")
@AS_JSON
@user_errors
def leaderboard(
    results: Path, suite: str | None, data: str | None, model: str | None, energy: str, write: bool, as_json: bool
) -> None:
    """Render the records: a table here; a page, Markdown, CSV and plots in the results folder."""
    from rich.console import Console

    from benchmark.boards import leaderboard as board
    from benchmark.boards.tabular import as_json as board_as_json
    from benchmark.boards.terminal import terminal
    from benchmark.records import RecordStore

    store = RecordStore(results)
    tables = board.build(store, suite=suite, data=data, model=model, energy_profile=energy)
    if write:
        board.write(tables, results)
    if as_json:
        click.echo(json.dumps(board_as_json(tables)))
    else:
        Console().print(terminal(tables))


@main.command()
@click.argument("a")
@click.argument("b")
@RESULTS
@AS_JSON
@user_errors
def compare(a: str, b: str, results: Path, as_json: bool) -> None:
    """Show runs A and B side by side: what differs, layer by layer, and whether it is more than chance.

    A and B are record ids, or their beginnings, as in leaderboard.csv and on the page.
    """
    from rich.console import Console

    from benchmark.boards import compare as comparing
    from benchmark.records import RecordStore

    comparison = comparing.compare(RecordStore(results), a, b)
    if as_json:
        click.echo(json.dumps(comparison.to_dict()))
    else:
        Console().print(comparing.show(comparison))


for command in (compress, profile, data_sets, wandb):
    main.add_command(command)


@main.command("list")
@click.argument("only", type=click.Choice(["models"]), required=False)
@AS_JSON
@user_errors
def list_(only: str | None, as_json: bool) -> None:
    """List data sets, models, compressors, energy profiles and suites, and plug-ins that do not load.

    With `models`: build every network at full size, and show parameters, neurons, the layers that compressors reach,
    time steps, data set and source.
    """
    if only == "models":
        _list_models(as_json)
    else:
        _list_all(as_json)


def _list_all(as_json: bool) -> None:
    from benchmark.catalog import DATA, ENERGY, MODELS, energy_profiles, suites
    from compressors.registry import COMPRESSORS

    kinds = {"data": DATA, "models": MODELS, "compressors": COMPRESSORS}
    listing = {kind: {name: registry[name].summary for name in registry} for kind, registry in kinds.items()}
    listing["energy"] = energy_profiles()
    listing["suites"] = suites()
    plugins = (*kinds.values(), ENERGY)
    listing["problems"] = {name: text for registry in plugins for name, text in registry.problems().items()}
    if as_json:
        click.echo(json.dumps(listing, indent=1))
        return
    width = max(len(name) for entries in listing.values() for name in entries)
    for kind, entries in listing.items():
        if entries:
            click.secho(kind, bold=True)
        for name, summary in entries.items():
            click.echo(f"  {name:<{width}}  {summary}")


def _list_models(as_json: bool) -> None:
    from rich.console import Console

    from benchmark.networks.zoo.survey import show, survey, surveyable

    surveys = [survey(name) for name in surveyable()]
    if as_json:
        click.echo(json.dumps([found.to_dict() for found in surveys], indent=1))
    else:
        Console().print(show(surveys))


@main.command()
@AS_JSON
@user_errors
def doctor(as_json: bool) -> None:
    """Check this installation: versions that fit each other, folders that can be written, data that are there."""
    from benchmark.commands.doctor import checkup

    findings = checkup()
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            mark = {"ok": click.style("ok  ", fg="green"), "note": "note", "bad": click.style("bad ", fg="red")}[
                finding.state
            ]
            click.echo(f"{mark}  {finding.subject}: {finding.message}")
    sys.exit(1 if any(finding.state == "bad" for finding in findings) else 0)


if __name__ == "__main__":
    main()
