"""``snnbench leaderboard``."""

import json
from contextlib import nullcontext
from pathlib import Path

import click

from benchmark.commands.options import AS_JSON, ENERGY, RESULTS, uncollected, user_errors


@click.command()
@RESULTS
@click.option("--suite", help="Only the records of this suite.")
@click.option("--data", help="Only this data set.")
@click.option("--model", help="Only this network.")
@ENERGY
@click.option("--write/--no-write", default=True, help="Also write leaderboard.html, .md, .csv, plots and claims.")
@click.option("--at", metavar="REVISION", help="As the records were at a git revision; nothing is written.")
@click.option("--single-file", is_flag=True, help="The page as one file, in place of one with its parts beside it.")
@click.option("--wide", is_flag=True, help="All columns, however wide the terminal is.")
@AS_JSON
@user_errors
@uncollected()
def leaderboard(
    results: Path,
    suite: str | None,
    data: str | None,
    model: str | None,
    energy: str,
    write: bool,
    at: str | None,
    single_file: bool,
    wide: bool,
    as_json: bool,
) -> None:
    """Render the records: a table here; a page, Markdown, CSV and plots in the results folder."""
    from rich.console import Console

    from benchmark.boards import leaderboard as boards
    from benchmark.boards import tabular, terminal
    from benchmark.boards.revisions import records_at
    from benchmark.records import RecordStore

    with records_at(results, at) if at else nullcontext(RecordStore(results)) as store:
        board = boards.build(store, suite=suite, data=data, model=model, energy_profile=energy)
        if write and not at:
            part = any((suite, data, model))
            whole = boards.build(store, energy_profile=energy) if part else board
            boards.write(board, results, whole, single_file=single_file)
    if as_json:
        click.echo(json.dumps(tabular.as_json(board)))
    else:
        Console(width=terminal.WIDE if wide else None).print(terminal.terminal(board))
