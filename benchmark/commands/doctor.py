"""``snnbench doctor``."""

import json
import sys

import click

from benchmark.commands.options import AS_JSON, user_errors

MARKS = {"ok": click.style("ok  ", fg="green"), "note": "note", "bad": click.style("bad ", fg="red")}


@click.command()
@AS_JSON
@user_errors
def doctor(as_json: bool) -> None:
    """Check this installation: versions that fit each other, folders that can be written, data that are there."""
    from benchmark.commands.checkup import checkup

    findings = checkup()
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{MARKS[finding.state]}  {finding.subject}: {finding.message}")
    sys.exit(1 if any(finding.state == "bad" for finding in findings) else 0)
