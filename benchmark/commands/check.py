"""The command for authors of methods: ``check``; it imports what it needs."""

import json
import sys
from typing import Any

import click

from benchmark.commands.options import AS_JSON, Pairs, once, user_errors


@click.command()
@click.argument("method")
@click.option(
    "-o", "--option", "options", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the compressor."
)
@AS_JSON
@user_errors
def check(method: str, options: tuple[tuple[str, Any], ...], as_json: bool) -> None:
    """Check that METHOD keeps to what every compressor keeps to: budgets, masks, resumed fits, honest accounts.

    METHOD is a registered name, or module:Class of a module that Python finds, such as a file in the current folder.
    Exit status 1 when a check fails.
    """
    from compressors.registry import COMPRESSORS

    entry = COMPRESSORS.by_user(method)  # a misspelt name is answered before anything heavy is imported

    from rich.console import Console

    from benchmark.contract.report import findings, show
    from benchmark.contract.subject import Method
    from benchmark.questions import build
    from benchmark.questions.suite import Named
    from compressors.budget import EXAMPLES, Budget

    target, named = entry.load(), build.validated("compressor", Named, {"name": method, **once(options)})
    build.check_options("compressor", named, target, build.GIVEN_TO_COMPRESSORS)
    if options:  # values that it refuses are a mistake in the call, and no finding
        build.compressor(named, Budget(**EXAMPLES[target.budgets[0]]), seed=0)
    results = list(findings(Method(target, once(options))))
    if as_json:
        click.echo(json.dumps([vars(finding) | {"passed": finding.passed} for finding in results]))
    else:
        Console().print(show(method, results))
    sys.exit(0 if all(finding.passed for finding in results) else 1)
