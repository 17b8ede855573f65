"""The commands for a network of one's own: ``compress``, ``profile``, ``sensitivity`` and ``fixed-point``.

Each imports what it needs.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import (
    AS_JSON,
    DATA_ROOT,
    ENERGY,
    METHOD,
    METHOD_BEFORE,
    METHOD_OF_LAYERS,
    Bits,
    Pairs,
    call_without,
    check_model,
    data_sets,
    device_options,
    is_given,
    known,
    models,
    once,
    user_errors,
)

if TYPE_CHECKING:
    from benchmark.networks.fixed_point.scheme import FixedPoint
    from benchmark.single_network.search import Wish
    from benchmark.single_network.trials import Candidate

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
    click.option(
        "--model", callback=known(models), help="The network; not needed for a checkpoint that snnbench wrote."
    ),
    click.option("--model-option", type=Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the network."),
    click.option(
        "--data",
        callback=known(data_sets),
        help="To calibrate and test on; not needed for what snnbench wrote.",
    ),
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


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """What `Source` takes, as far as a call is right; found out before anything heavy is imported.

    Raises:
        UsageError: options are missing or contradict each other.
        CheckpointError: there is no such file.
        BuilderError: the network's builder takes something else than builders are given.
    """

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
    _check_file(file)
    if model is not None:
        check_model(**model)
    plain = {name: arguments[name] for name in ("data_root", "calibration_samples", "seed")}
    return {"checkpoint": file, "model": model, "data": data, **plain}


def _check_file(file: Path) -> None:
    from benchmark.networks.weights.published import require_file

    require_file(file)


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


HELD_OUT_SAMPLES = click.option(
    "--held-out",
    type=click.IntRange(min=1),
    help="Training samples, at most, that candidates are judged on [default: 1000].",
)
SEARCH = (
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0, max=100),
        metavar="POINTS",
        help="Search the cheapest network that loses at most so many points of accuracy.",
    ),
    click.option(
        "--minimise",
        type=click.Choice(["memory", "synops", "energy"]),
        help="What is to be least within --max-drop [default: memory].",
    ),
    click.option(
        "--fit",
        metavar="CHIP",
        help="Search a network that fits loihi1, loihi2, spinnaker2, speck or xylo; without --max-drop the most "
        "accurate.",
    ),
    click.option(
        "--max-memory-bits",
        type=Bits(),
        help="Search a network whose weights are stored in at most so many bits; 64KiB is a size too.",
    ),
    click.option(
        "--max-synops",
        type=click.FloatRange(min=0, min_open=True),
        help="Search a network of at most so many synaptic operations a sample.",
    ),
    HELD_OUT_SAMPLES,
    ENERGY,
)
WISHES = ("max_drop", "fit", "max_memory_bits", "max_synops")
OF_SEARCHES = (*WISHES, "minimise", "held_out", "energy")


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a search, in place of a budget."""
    for option in reversed(SEARCH):
        command = option(command)
    return command


OF_WHOLE_NUMBERS = (
    click.option(
        "--overflow",
        type=click.Choice(["saturate", "wrap"]),
        help="What a potential beyond its range does [default: saturate].",
    ),
    click.option(
        "--leak",
        type=click.Choice(["factor", "shift"]),
        help="How a potential in whole numbers leaks: by a factor of 12 fractional bits, or by a shift "
        "[default: factor].",
    ),
)


def whole_number_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of all whole numbers, be there one width or several."""
    for option in reversed(OF_WHOLE_NUMBERS):
        command = option(command)
    return command


FIXED_POINT = (
    click.option(
        "--fixed-point",
        "fixed",
        is_flag=True,
        help="Make whole numbers of the compressed network's weights, thresholds and potentials, and test these.",
    ),
    click.option("--weight-bits", type=int, help="Of a weight in whole numbers, 2 to 8 [default: --bits, else 8]."),
    click.option("--potential-bits", type=int, help="Of a potential in whole numbers, 8 to 24 [default: 16]."),
)


def fixed_point_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a compressed network in whole numbers."""
    command = whole_number_options(command)
    for option in reversed(FIXED_POINT):
        command = option(command)
    return command


@click.command()
@network_options
@METHOD
@click.option("--density", type=float, help="Share of weights to keep, in (0, 1] [default: all, or what is searched].")
@click.option("--bits", type=int, help="Width of a weight, 2 to 8 [default: floats, or what is searched].")
@click.option("--synops", type=float, help="Share of the dense network's SynOps to keep, in place of a density.")
@search_options
@fixed_point_options
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
def compress(output: Path | None, as_json: bool, **arguments: Any) -> None:
    """Compress a network of your own, and say what it cost before and after.

    With --max-drop, --fit, --max-memory-bits or --max-synops the budget is searched, and judged on
    held-out training samples.
    """
    if arguments["max_memory"] is not None and not math.isfinite(arguments["max_memory"]):
        raise click.UsageError(f"--max-memory {arguments['max_memory']} is no number of GiB")
    if any(arguments[name] is not None for name in WISHES):
        _search(output, as_json, **arguments)
    else:
        _compress(output, as_json, **arguments)


def _compress(output: Path | None, as_json: bool, **arguments: Any) -> None:
    """Compress to the budget that is given."""
    from compressors.budget import Budget

    for name in OF_SEARCHES:
        if is_given(click.get_current_context(), name):
            raise click.UsageError(f"--{name.replace('_', '-')} is of a search: give --max-drop, or a limit")
    if len(arguments["methods"]) > 1:
        raise click.UsageError("several methods are searched: give --max-drop, or a limit; or one --method")
    scheme = _scheme(arguments)
    density = 1.0 if arguments["density"] is None else arguments["density"]
    budget = Budget(density, arguments["bits"], arguments["synops"])
    units = {"density": "", "bits": "b", "synops": "synops"}
    (method,) = arguments["methods"]
    words = [f"{value:g}{units[name]}" for name, value in budget.limits.items()]
    words += ["fixed"] if arguments["fixed"] else []
    target = _target(output, [method, *words], arguments)
    (named,), aftercare, given = _named(arguments), arguments["aftercare"], _given(arguments)

    from rich.console import Console

    from benchmark.runs.distributed import Devices
    from benchmark.single_network.compress import compress_checkpoint, show
    from benchmark.single_network.subject import Source

    devices = Devices(arguments["accelerator"], arguments["count"], arguments["strategy"])
    summary = compress_checkpoint(
        Source(**given), named, budget, target, aftercare, devices, arguments["plain"], scheme
    )
    if as_json:
        click.echo(json.dumps(summary))
    else:
        Console().print(show(summary))


def _search(output: Path | None, as_json: bool, **arguments: Any) -> None:
    """Search the budget, and compress to it."""
    if arguments["synops"] is not None:
        raise click.UsageError("--synops is a budget, and the budget is searched: leave it out (or --max-synops)")
    if arguments["count"] > 1:
        raise click.UsageError("a search works on one device: leave --devices out")
    if arguments["minimise"] is not None and arguments["max_drop"] is None:
        raise click.UsageError("--minimise is said of networks within --max-drop: give it too")
    if _scheme(arguments) is not None:
        raise click.UsageError("a search judges networks in floats: leave --fixed-point to the call that repeats it")
    given, named = _given(arguments), _named(arguments)

    from rich.console import Console

    from benchmark.single_network import path
    from benchmark.single_network.compress import show
    from benchmark.single_network.searching import Space, search_checkpoint
    from benchmark.single_network.subject import Source
    from benchmark.single_network.trials import HELD_OUT

    space = Space(named, arguments["density"], arguments["bits"])
    target = _target(output, ["searched"], arguments)
    summary = search_checkpoint(
        Source(**given),
        space,
        _wish(arguments),
        target,
        _command_of,
        samples=arguments["held_out"] or HELD_OUT,
        aftercare=arguments["aftercare"],
        plain=arguments["plain"],
        told=lambda step: click.echo(f"tried {step.candidate}: {step.verdict}", err=True),
    )
    if as_json:
        click.echo(json.dumps(summary))
        return
    console = Console()
    console.print(path.table(summary["search"]))
    console.print(show(summary))
    for line in path.lines(summary["search"]):
        click.echo(line)


def _scheme(arguments: dict[str, Any]) -> "FixedPoint | None":
    """The widths of whole numbers, where these are asked for."""
    from benchmark.networks.fixed_point.scheme import FixedPoint

    names = ("weight_bits", "potential_bits", "overflow", "leak")
    given: dict[str, Any] = {name: arguments[name] for name in names if arguments[name] is not None}
    if not arguments["fixed"]:
        for name in given:
            raise click.UsageError(f"--{name.replace('_', '-')} is of whole numbers: give --fixed-point too")
        return None
    given.setdefault("weight_bits", arguments["bits"] or 8)
    return FixedPoint(**given)


def _wish(arguments: dict[str, Any]) -> "Wish":
    from benchmark.single_network.search import Wish

    return Wish(
        max_drop=None if arguments["max_drop"] is None else arguments["max_drop"] / 100,
        minimise=arguments["minimise"] or "memory",
        chip=arguments["fit"],
        max_memory_bits=arguments["max_memory_bits"],
        max_synops=arguments["max_synops"],
        energy_profile=arguments["energy"],
    )


def _command_of(candidate: "Candidate") -> str:
    """The call that compresses as a candidate of the search did that this call is."""
    budget = [word for name, value in candidate.budget.limits.items() for word in (f"--{name}", f"{value:g}")]
    left_out = {*OF_SEARCHES, "methods", "density", "bits", "as_json"}
    return call_without(click.get_current_context(), left_out, ["--method", candidate.method.name, *budget])


def _named(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The methods with their options."""
    limit = arguments["max_memory"]
    options = once(arguments["options"]) | ({} if limit is None else {"max_memory": round(limit * 2**30)})
    return [{"name": method, **options} for method in arguments["methods"]]


def _target(output: Path | None, words: list[str], arguments: dict[str, Any]) -> Path:
    """The compressed network's file: as the user names it, else beside the dense one."""
    dense = _network_file(arguments)
    suffix = ".nir" if dense.suffix == ".nir" else ".safetensors"
    target = output or dense.with_name("-".join([dense.stem, *words]) + suffix)
    if arguments["plain"] and target.suffix == ".nir":
        raise click.UsageError("--plain is said of .safetensors: NIR is never packed")
    return target


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
    given = _given(arguments)

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
    given = _given(arguments)

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
    source = _given(arguments)

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
