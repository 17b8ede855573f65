"""``snnbench list``."""

import json

import click

from benchmark.commands.options import AS_JSON, user_errors


@click.command("list")
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
    from benchmark.catalog import DATA, MODELS, suites
    from compressors.registry import COMPRESSORS
    from hardware.catalog import energy_profiles

    kinds = {"data": DATA, "models": MODELS, "compressors": COMPRESSORS, "energy": energy_profiles()}
    listing = {kind: {name: registry[name].summary for name in registry} for kind, registry in kinds.items()}
    listing["suites"] = suites()
    listing["problems"] = {name: text for registry in kinds.values() for name, text in registry.problems().items()}
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
        click.echo(json.dumps([entry.to_dict() for entry in surveys], indent=1))
    else:
        Console().print(show(surveys))
