"""The commands for a network of one's own: ``compress`` and ``profile``; each imports what it needs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import AS_JSON, DATA_ROOT, ENERGY, METHOD, Pairs, device_options, once, user_errors

if TYPE_CHECKING:
    from benchmark.single_network.subject import Source

OPTIONS = (
    click.option("--checkpoint", type=click.Path(path_type=Path), help="A .safetensors, .ckpt, .pt or .nir."),
    click.option("--nir", type=click.Path(path_type=Path), help="A NIR file, in place of a checkpoint and its model."),
    click.option(
        "--nir-option",
        type=Pairs(),
        multiple=True,
        metavar="KEY=VALUE",
        help="How the NIR file is read: reset=subtract, reset=value, timestep=0.001.",
    ),
    click.option(
        "--reset",
        type=click.Choice(["subtract", "value"]),
        help="How the neurons of the NIR file are reset, where it does not say: less the threshold, or to v_reset.",
    ),
    click.option("--model", help="The network's name; not needed for a checkpoint that snnbench wrote."),
    click.option("--model-option", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the network."),
    click.option("--data", help="The data set to calibrate and test on; not needed for what snnbench wrote."),
    click.option(
        "--data-option",
        type=Pairs(),
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of the data set, such as timesteps=20 or split=pooled.",
    ),
    DATA_ROOT,
    click.option("--calibration-samples", type=click.IntRange(min=1), default=100, show_default=True),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Of the calibration draw and random choices.",
    ),
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which network is meant, and on which data."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _source(arguments: dict[str, Any]) -> "Source":
    from benchmark.single_network.subject import Source

    def named(kind: str) -> dict[str, Any] | None:
        name, options = arguments[kind], once(arguments[f"{kind}_option"])
        if name is None and options:
            raise click.UsageError(f"--{kind}-option needs --{kind}")
        return None if name is None else {"name": name, **options}

    model, data = named("model"), named("data")
    options, file = _nir_options(arguments), _network_file(arguments)
    if arguments["nir"] is not None or (file.suffix == ".nir" and model is None):
        model = {"name": "nir", "path": str(file.absolute()), **options}
    elif options:
        raise click.UsageError("--reset and --nir-option need --nir")
    plain = {name: arguments[name] for name in ("data_root", "calibration_samples", "seed")}
    return Source(checkpoint=file, model=model, data=data, **plain)


def _nir_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """How a NIR file is read."""
    reset = {} if arguments["reset"] is None else {"reset": arguments["reset"]}
    options = once(arguments["nir_option"])
    if reset and options.get("reset", arguments["reset"]) != arguments["reset"]:
        raise click.UsageError(f"--reset {arguments['reset']} and --nir-option reset={options['reset']} contradict")
    return options | reset


def _network_file(arguments: dict[str, Any]) -> Path:
    files = [arguments[name] for name in ("checkpoint", "nir") if arguments[name] is not None]
    if any(file.is_dir() for file in files):
        raise click.UsageError(f"{files[0]} is a folder: give the network's file")
    if len(files) != 1 or (arguments["nir"] is not None and arguments["model"] is not None):
        raise click.UsageError("give either --checkpoint, with --model where needed, or --nir")
    return files[0]


@click.command()
@network_options
@METHOD
@click.option("--density", type=float, default=1.0, show_default=True, help="Share of weights to keep, in (0, 1].")
@click.option("--bits", type=int, help="Width of a weight, 2 to 8 [default: floats].")
@click.option("--synops", type=float, help="Share of the dense network's SynOps to keep, in place of a density.")
@click.option(
    "--aftercare",
    type=click.Choice(["batchnorm", "means", "scales", "reconstruct"]),
    multiple=True,
    help="On the calibration data: re-estimate BatchNorm statistics, correct the means of each layer's output, scale "
    "channels so that their spikes fit, let what is left learn to act as the dense network did.",
)
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GIB",
    help="Of the Hessians held at once, for methods that need them [default: 8].",
)
@click.option(
    "-o", "--option", "options", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the compressor."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The compressed network, .safetensors or .nir [default: beside the dense one, named by method and budget].",
)
@click.option("--plain", is_flag=True, help="Write every weight as a float, in place of packed codes and indices.")
@device_options
@AS_JSON
@user_errors
def compress(
    method: str,
    density: float,
    bits: int | None,
    synops: float | None,
    aftercare: tuple[str, ...],
    max_memory: float | None,
    options: list[tuple[str, Any]],
    output: Path | None,
    plain: bool,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Compress a network of your own, and say what it cost before and after."""
    from rich.console import Console

    from benchmark.runs.distributed import Devices
    from benchmark.single_network.compress import compress_checkpoint, show
    from compressors.budget import Budget

    devices = Devices(arguments["accelerator"], arguments["count"], arguments["strategy"])
    budget, dense = Budget(density, bits, synops), _network_file(arguments)
    units = {"density": "", "bits": "b", "synops": "synops"}
    words = [f"{value:g}{units[name]}" for name, value in budget.limits.items()]
    suffix = ".nir" if dense.suffix == ".nir" else ".safetensors"
    target = output or dense.with_name("-".join([dense.stem, method, *words]) + suffix)
    if plain and target.suffix == ".nir":
        raise click.UsageError("--plain is said of .safetensors: NIR is never packed")
    if max_memory is not None and not math.isfinite(max_memory):
        raise click.UsageError(f"--max-memory {max_memory} is no number of GiB")
    limit = {} if max_memory is None else {"max_memory": round(max_memory * 2**30)}
    named = {"name": method, **once(options), **limit}
    summary = compress_checkpoint(_source(arguments), named, budget, target, aftercare, devices, plain)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        Console().print(show(summary))


@click.command()
@network_options
@ENERGY
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Also write the table as CSV.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw bars per layer, as .png, .svg or .pdf.")
@AS_JSON
@user_errors
def profile(energy: str, csv_file: Path | None, picture: Path | None, as_json: bool, **arguments: Any) -> None:
    """Show what a network costs, layer by layer: SynOps, memory, energy, and which chips it fits."""
    from rich.console import Console

    from benchmark.files import replacing, require_writable, write_atomically
    from benchmark.single_network.profile import profile_checkpoint, summary_lines
    from hardware.table import draw, table_rows, to_csv, to_table

    if csv_file is not None:
        require_writable(csv_file)
    if picture is not None:
        require_writable(picture, ".png", ".svg", ".pdf")
    measured = profile_checkpoint(_source(arguments), energy)
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
