"""``snnbench plan``."""

import json
from pathlib import Path

import click

from benchmark.commands.options import AS_JSON, RESULTS, opened, uncollected, user_errors


@click.command()
@click.argument("suite")
@RESULTS
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
@AS_JSON
@user_errors
@uncollected()
def plan(suite: str, results: Path, jobs: int, as_json: bool) -> None:
    """Say what SUITE still has to do, and estimate time and memory from the records in the results."""
    content = opened(suite)

    from benchmark.records import RecordStore
    from benchmark.runs import job
    from benchmark.runs.plan import show

    ahead = job.plan_of(content, RecordStore(results))
    click.echo(json.dumps(ahead.to_dict()) if as_json else show(ahead, jobs))
