"""What commands have in common; imports nothing heavy."""

import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from benchmark.questions.suite import Suite
    from hardware.registry import Registry

RESULTS = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of the records and leaderboards.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")
DATA_ROOT = click.option("--data-root", type=click.Path(path_type=Path), help="Where the data set's files are.")
DEVICES = (
    click.option(
        "--devices",
        "count",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="GPUs, or processes on the CPU, that share each run (Lightning's DDP).",
    ),
    click.option("--accelerator", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True),
    click.option(
        "--strategy",
        type=click.Choice(["auto", "ddp", "ddp_find_unused_parameters_true"]),
        default="auto",
        show_default=True,
    ),
)


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what the Trainers work on; the command gets what `benchmark.runs.distributed.Devices` takes."""
    for option in reversed(DEVICES):
        command = option(command)
    return command


class Pairs(click.ParamType):
    """``key=value`` options; values are read as YAML, so that numbers are numbers."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Split and read."""
        from benchmark.questions.reading import YAMLFault, read_yaml

        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not key=value", param, ctx)
        try:
            return key, read_yaml(text)[1]
        except YAMLFault as error:
            hint = f"quote what is text, as in '{key}=[\"*.10\"]'"
            self.fail(f"{value!r}: what follows {key}= cannot be read as YAML ({error}); {hint}", param, ctx)


def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Options by name.

    Raises:
        UsageError: one is given twice.
    """
    options: dict[str, Any] = {}
    for key, value in pairs:
        if key in options:
            raise click.UsageError(f"{key} is given twice: leave one of them out")
        options[key] = value
    return options


def opened(name: str) -> "Suite":
    """A suite by its name or path, read before anything heavy is imported; says which code of others it will import.

    Raises:
        UnknownName, SuiteError: there is no such suite, or what is there is none.
    """
    from benchmark.catalog import suite_path
    from benchmark.questions.suite import load_suite

    suite = load_suite(suite_path(name))
    if suite.modules:
        click.echo(f"{name} runs code that it names: {', '.join(suite.modules)}", err=True)
    return suite


def _known(registry: Callable[[], "Registry"]) -> Callable[..., str]:
    """A callback that answers a misspelt name before anything heavy is imported."""

    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        from hardware.registry import UnknownName

        try:
            registry().by_user(value)
        except UnknownName as error:
            raise click.BadParameter(str(error), ctx, param) from error
        return value

    return check


def _compressors() -> "Registry":
    from compressors.registry import COMPRESSORS

    return COMPRESSORS


def _data_sets() -> "Registry":
    from benchmark.catalog import DATA

    return DATA


def _energy_profiles() -> "Registry":
    from hardware.catalog import energy_profiles

    return energy_profiles()


METHOD = click.option(
    "--method", required=True, callback=_known(_compressors), help="The compressor (see `snnbench list`)."
)
DATA_SET = click.argument("name", metavar="SET", callback=_known(_data_sets))


ENERGY = click.option(
    "--energy",
    callback=_known(_energy_profiles),
    default="horowitz_sram_45nm",
    show_default=True,
    help="Profile that prices the counts, or a .yaml file of one's own.",
)


def user_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """End a user's mistake with its message and exit status rather than a traceback.

    Errors that a user can mend have the status as a class attribute: 1 a run or a place failed, 2 a mistake in the call
    or a file, 3 data missing.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on where this one stopped", err=True)
            sys.exit(130)
        except Exception as error:
            status = getattr(error, "exit_status", None)  # an error without one is a defect, and is raised on
            if status is None:
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(status)

    return wrapped
