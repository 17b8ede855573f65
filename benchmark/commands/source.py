"""Which network a command is about, on which data, and how the call is found to be right before anything heavy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmark.commands.options import DATA_ROOT, Pairs, check_model, data_sets, known, models, once

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


def source_of(arguments: dict[str, Any]) -> dict[str, Any]:
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
    options, file = _nir_options(arguments), network_file(arguments)
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


def network_file(arguments: dict[str, Any]) -> Path:
    """The network's file.

    Raises:
        UsageError: none is given, or two, or a folder.
    """
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
