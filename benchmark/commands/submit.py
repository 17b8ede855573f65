"""``snnbench submit``."""

import json
import sys
from pathlib import Path

import click

from benchmark.commands.options import AS_JSON, RESULTS, uncollected, user_errors


@click.command()
@click.argument(
    "records",
    nargs=-1,
    required=True,
    metavar="RECORD...",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@RESULTS
@click.option("--by", help="Whose records they are: a name, or an account on GitHub.")
@click.option("--hardware", help="On what machine they were made [default: as the records tell].")
@click.option("--code", default="", help="Address of the code of a method, network or data set that is not snnbench's.")
@click.option(
    "--maps", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Folder of maps, <run id>.map.json."
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("submission"),
    show_default=True,
    help="Folder to write the pull request's files to.",
)
@click.option("--review", is_flag=True, help="Only check, as the project does with a pull request's records.")
@click.option("--rerun", type=int, metavar="SEED", help="Also run a cheap one again, which one the seed decides.")
@AS_JSON
@user_errors
@uncollected()
def submit(
    records: tuple[Path, ...],
    results: Path,
    by: str | None,
    hardware: str | None,
    code: str,
    maps: Path | None,
    into: Path,
    review: bool,
    rerun: int | None,
    as_json: bool,
) -> None:
    """Check RECORDs and write what a pull request needs: the records where they belong, and its text.

    Give two runs of each, from two results folders: they have to agree. Nothing is written if a check fails.
    """
    if not (review or by):
        raise click.UsageError("say whose the records are: --by NAME")

    from benchmark.records import RecordStore
    from benchmark.submissions.again import run_again
    from benchmark.submissions.checks import check_all
    from benchmark.submissions.report import markdown, report, require_sayable, signed, write

    if by:
        require_sayable(by, hardware, code)
    given = {path.resolve() for path in records}
    known = [record for path, record in RecordStore(results).items() if path.resolve() not in given]
    checked = check_all(records, known, maps)
    if by and not review:
        checked = [signed(one, by, hardware, code) for one in checked]
    taken = [one.record for one in checked if one.record is not None and one.passed]
    again = None if rerun is None else run_again(taken, rerun)
    found = report(checked, known, again)
    if found.passed and not review:
        write(found, taken, into)
        click.echo(f"written: {into}, to be laid over a checkout; {into / 'pull-request.md'} is the text", err=True)
    click.echo(json.dumps(found.to_dict()) if as_json else markdown(found))
    sys.exit(0 if found.passed else 1)
