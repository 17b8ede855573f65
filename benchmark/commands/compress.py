"""``snnbench compress``: to a budget, or to one that is searched. It imports what it needs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import (
    AS_JSON,
    ENERGY,
    METHOD,
    Bits,
    Pairs,
    call_without,
    device_options,
    is_given,
    once,
    user_errors,
)
from benchmark.commands.source import HELD_OUT_SAMPLES, network_file, network_options, source_of, whole_number_options

if TYPE_CHECKING:
    from benchmark.networks.fixed_point.scheme import FixedPoint
    from benchmark.single_network.search import Wish
    from benchmark.single_network.trials import Candidate

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
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="The compressed network, .safetensors or .nir; both if given twice [default: beside the dense one, named by "
    "method and budget].",
)
@click.option(
    "--wandb", "use_wandb", is_flag=True, help="Log it to Weights & Biases: figures, layers, and networks as artifacts."
)
@click.option("--plain", is_flag=True, help="Write every weight as a float, in place of packed codes and indices.")
@device_options
@AS_JSON
@user_errors
def compress(outputs: tuple[Path, ...], as_json: bool, **arguments: Any) -> None:
    """Compress a network of your own, and say what it cost before and after.

    With --max-drop, --fit, --max-memory-bits or --max-synops the budget is searched, and judged on
    held-out training samples.
    """
    if arguments["max_memory"] is not None and not math.isfinite(arguments["max_memory"]):
        raise click.UsageError(f"--max-memory {arguments['max_memory']} is no number of GiB")
    if any(arguments[name] is not None for name in WISHES):
        _search(outputs, as_json, **arguments)
    else:
        _compress(outputs, as_json, **arguments)


def _compress(outputs: tuple[Path, ...], as_json: bool, **arguments: Any) -> None:
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
    target, *others = _targets(outputs, [method, *words], arguments)
    (named,), aftercare, given = _named(arguments), arguments["aftercare"], source_of(arguments)

    from rich.console import Console

    from benchmark.runs.distributed import Devices
    from benchmark.single_network.compress import compress_checkpoint, show
    from benchmark.single_network.subject import Source

    devices = Devices(arguments["accelerator"], arguments["count"], arguments["strategy"])
    summary = compress_checkpoint(
        Source(**given), named, budget, target, aftercare, devices, arguments["plain"], scheme, others
    )
    _log(summary, arguments)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        Console().print(show(summary))


def _search(outputs: tuple[Path, ...], as_json: bool, **arguments: Any) -> None:
    """Search the budget, and compress to it."""
    if arguments["synops"] is not None:
        raise click.UsageError("--synops is a budget, and the budget is searched: leave it out (or --max-synops)")
    if arguments["count"] > 1:
        raise click.UsageError("a search works on one device: leave --devices out")
    if arguments["minimise"] is not None and arguments["max_drop"] is None:
        raise click.UsageError("--minimise is said of networks within --max-drop: give it too")
    if arguments["weight_bits"] is not None:
        raise click.UsageError("the width of weights is searched: give --bits, or leave --weight-bits out")
    scheme = _scheme(arguments)
    given, named = source_of(arguments), _named(arguments)

    from rich.console import Console

    from benchmark.single_network import path
    from benchmark.single_network.compress import show
    from benchmark.single_network.profile import chip_line
    from benchmark.single_network.searching import Space, search_checkpoint
    from benchmark.single_network.subject import Source
    from benchmark.single_network.trials import HELD_OUT
    from hardware.table import to_table

    space = Space(named, arguments["density"], arguments["bits"])
    targets = _targets(outputs, ["searched"], arguments)
    summary, profile = search_checkpoint(
        Source(**given),
        space,
        _wish(arguments),
        targets,
        _command_of,
        samples=arguments["held_out"] or HELD_OUT,
        aftercare=arguments["aftercare"],
        plain=arguments["plain"],
        scheme=scheme,
        told=lambda step: click.echo(f"tried {step.candidate}: {step.verdict}", err=True),
    )
    _log(summary, arguments)
    if as_json:
        click.echo(json.dumps(summary))
        return
    console = Console()
    console.print(path.table(summary["search"]))
    console.print(to_table(profile.report, profile.energy, console.width))
    console.print(show(summary))
    for line in (*map(chip_line, profile.chips), *path.lines(summary["search"])):
        click.echo(line)


def _log(summary: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Log what was written to Weights & Biases, where that is asked for."""
    if arguments["use_wandb"]:
        from benchmark.tracking.lineage import log_compression

        log_compression(summary)


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
    budget = [word for name, value in candidate.budget.limits.items() for word in (f"--{name}", str(value))]
    left_out = {*OF_SEARCHES, "methods", "density", "bits", "as_json"}
    return call_without(click.get_current_context(), left_out, ["--method", candidate.method.name, *budget])


def _named(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The methods with their options."""
    limit = arguments["max_memory"]
    options = once(arguments["options"]) | ({} if limit is None else {"max_memory": round(limit * 2**30)})
    return [{"name": method, **options} for method in arguments["methods"]]


def _targets(outputs: tuple[Path, ...], words: list[str], arguments: dict[str, Any]) -> list[Path]:
    """The compressed network's files: as the user names them, else one beside the dense one."""
    dense = network_file(arguments)
    suffix = ".nir" if dense.suffix == ".nir" else ".safetensors"
    targets = [*outputs] or [dense.with_name("-".join([dense.stem, *words]) + suffix)]
    if arguments["plain"] and all(target.suffix == ".nir" for target in targets):
        raise click.UsageError("--plain is said of .safetensors: NIR is never packed")
    return targets
