"""The commands that look at a network of one's own: ``profile``, ``sensitivity`` and ``fixed-point``.

Each imports what it needs.
"""

import json
from pathlib import Path
from typing import Any

import click

from benchmark.commands.options import AS_JSON, ENERGY, METHOD_BEFORE, METHOD_OF_LAYERS, Pairs, once, user_errors
from benchmark.commands.source import HELD_OUT_SAMPLES, network_options, source_of, whole_number_options


@click.command()
@network_options
@ENERGY
@click.option(
    "--seconds-per-step",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="That a time step takes, for what static power costs [default: the chip's own step, if it has one].",
)
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Also write the table as CSV.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw bars per layer, as .png, .svg or .pdf.")
@AS_JSON
@user_errors
def profile(
    energy: str,
    seconds_per_step: float | None,
    csv_file: Path | None,
    picture: Path | None,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Show what a network costs, layer by layer: SynOps, memory, energy, and which chips it fits."""
    from benchmark.files import replacing, require_writable, write_atomically

    if csv_file is not None:
        require_writable(csv_file)
    if picture is not None:
        require_writable(picture, ".png", ".svg", ".pdf")
    given = source_of(arguments)

    from rich.console import Console

    from benchmark.single_network.profile import profile_checkpoint, summary_lines
    from benchmark.single_network.subject import Source
    from hardware.table import draw, table_rows, to_csv, to_table

    measured = profile_checkpoint(Source(**given), energy, seconds_per_step)
    if csv_file is not None:
        write_atomically(csv_file, to_csv(table_rows(measured.report, measured.energy)))
    if picture is not None:
        with replacing(picture) as partial:
            draw(measured.report, measured.energy, partial)
    if as_json:
        click.echo(json.dumps(measured.to_dict()))
        return
    console = Console()
    console.print(to_table(measured.report, measured.energy, console.width))
    for line in summary_lines(measured):
        click.echo(line)


@click.command()
@network_options
@METHOD_OF_LAYERS
@click.option("--density", "densities", type=float, multiple=True, help="A density to try [default: 0.5 to 0.05].")
@click.option("--bits", "widths", type=int, multiple=True, help="A width to try [default: 8 to 2].")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, max=100),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Layers that lose more by themselves are named.",
)
@HELD_OUT_SAMPLES
@click.option(
    "-o", "--option", "options", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the compressor."
)
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw a heat map, as .png, .svg or .pdf.")
@AS_JSON
@user_errors
def sensitivity(picture: Path | None, as_json: bool, **arguments: Any) -> None:
    """Show what each layer's density and width cost by themselves, and which layers to exclude."""
    from benchmark.files import replacing, require_writable

    if picture is not None:
        require_writable(picture, ".png", ".svg", ".pdf")
    given = source_of(arguments)

    from rich.console import Console

    from benchmark.single_network import sensitivity as layers
    from benchmark.single_network.subject import Source
    from benchmark.single_network.trials import HELD_OUT

    account = layers.sensitivity(
        Source(**given),
        {"name": arguments["method"], **once(arguments["options"])},
        layers.Grid(arguments["densities"], arguments["widths"]),
        samples=arguments["held_out"] or HELD_OUT,
        max_drop=arguments["max_drop"] / 100,
        told=lambda layer, step: click.echo(f"tried {layer}, {step.candidate.budget}", err=True),
    )
    if picture is not None:
        with replacing(picture) as partial:
            layers.draw(account, partial)
    if as_json:
        click.echo(json.dumps(account))
        return
    for table in layers.tables(account):
        Console().print(table)
    for line in layers.lines(account):
        click.echo(line)


@click.command("fixed-point")
@network_options
@METHOD_BEFORE
@click.option("--density", type=float, help="Share of weights that the method keeps, in (0, 1] [default: all].")
@click.option(
    "-o", "--option", "options", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the compressor."
)
@click.option(
    "--weight-bits", "weights", type=int, multiple=True, help="A width of weights to try [default: 8, 4, 3 and 2]."
)
@click.option(
    "--potential-bits",
    "potentials",
    type=int,
    multiple=True,
    help="A width of potentials to try [default: 24, 16, 12 and 8].",
)
@whole_number_options
@AS_JSON
@user_errors
def fixed_point(as_json: bool, **arguments: Any) -> None:
    """Show what weights and potentials in whole numbers of several widths change: accuracy and spikes.

    For each width of weights the first row has thresholds and potentials in floats.
    """
    source = source_of(arguments)

    from rich.console import Console

    from benchmark.single_network import fixed
    from benchmark.single_network.subject import Source
    from compressors.budget import Budget

    given = {
        "weights": arguments["weights"],
        "potentials": arguments["potentials"],
        "overflow": arguments["overflow"],
        "leak": arguments["leak"],
    }
    account = fixed.compare_widths(
        Source(**source),
        {"name": arguments["method"], **once(arguments["options"])},
        Budget(1.0 if arguments["density"] is None else arguments["density"]),
        fixed.Widths(**{name: value for name, value in given.items() if value}),
        told=lambda words: click.echo(words, err=True),
    )
    if as_json:
        click.echo(json.dumps(account))
    else:
        Console().print(fixed.table(account))
