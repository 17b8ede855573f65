"""``snnbench claims``."""

import json
from pathlib import Path

import click

from benchmark.commands.options import AS_JSON, ENERGY, RESULTS, uncollected, user_errors


@click.command()
@RESULTS
@ENERGY
@click.option("--write/--no-write", default=True, help="Also write claims.md and claims.html.")
@AS_JSON
@user_errors
@uncollected()
def claims(results: Path, energy: str, write: bool, as_json: bool) -> None:
    """Say what papers claim of the methods, what the records have to it, and which claims are met."""
    from rich.console import Console

    from benchmark.boards import leaderboard as boards
    from benchmark.boards.claims import pages
    from benchmark.files import write_together
    from benchmark.records import RecordStore

    found = boards.claims(boards.build(RecordStore(results), energy_profile=energy))
    if write:
        write_together(boards.claim_files(found, results))
    if as_json:
        click.echo(json.dumps(pages.to_dict(found), allow_nan=False))
    else:
        Console().print(pages.terminal(found))
