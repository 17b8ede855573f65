"""``snnbench compare``."""

import json
from pathlib import Path

import click

from benchmark.commands.options import AS_JSON, RESULTS, uncollected, user_errors


@click.command()
@click.argument("a")
@click.argument("b")
@RESULTS
@AS_JSON
@user_errors
@uncollected()
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
