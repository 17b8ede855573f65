"""``snnbench run``."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

import click

from benchmark.commands.options import AS_JSON, RESULTS, Pairs, device_options, opened, user_errors


@click.command()
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
    if executor == "ray" and jobs > 1:
        raise click.UsageError("--jobs is for this machine: a Ray cluster takes as many runs as it has room for")
    content = opened(suite)

    from benchmark.questions import build
    from benchmark.runs import job
    from benchmark.runs.distributed import Devices
    from benchmark.tracking import sweep as wandb_sweep

    if only is not None:
        content = wandb_sweep.only(content, only, build.questions_of(content))
    roots = {name: Path(str(folder)) for name, folder in data_roots}
    means = job.Means(jobs, threads, executor, address, Devices(**devices))
    outcome = job.run_suite(content, results, roots, means, use_wandb=use_wandb)
    if as_json:
        click.echo(json.dumps({"suite": content.name, **vars(outcome)}))
    sys.exit(1 if outcome.failed else 0)
