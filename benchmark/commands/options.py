"""What commands have in common; imports nothing heavy."""

import gc
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource

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


class Bits(click.ParamType):
    """A number of bits, plain or with a unit: ``524288``, ``64KiB``."""

    name = "size"
    units: ClassVar[dict[str, int]] = {
        "": 1,
        "bit": 1,
        "bits": 1,
        "b": 8,
        "kb": 8000,
        "kib": 8 * 2**10,
        "mb": 8_000_000,
        "mib": 8 * 2**20,
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Split off the unit."""
        found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *([a-z]*)", str(value).lower())
        try:
            bits = float(found[1]) * self.units[found[2]] if found else 0.0
        except (ValueError, KeyError):
            bits = 0.0
        if not 0 < bits < math.inf:
            self.fail(f"{value!r} is no size: give bits, or a number with B, kB, KiB, MB or MiB", param, ctx)
        return bits


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter stands in the call."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def call_without(ctx: click.Context, left_out: Collection[str], more: Sequence[str]) -> str:
    """The call that a command was made with, as a line for a shell.

    Args:
        ctx: of the command.
        left_out: parameters that are not said again.
        more: words at its end.
    """
    words = ["snnbench", str(ctx.info_name)]
    for option in ctx.command.params:
        if option.name not in left_out and is_given(ctx, str(option.name)):
            words += _words(option, ctx.params[str(option.name)])
    return shlex.join([*words, *more])


def _words(option: click.Parameter, value: Any) -> list[str]:
    """An option with its value, as words of a shell."""
    if isinstance(option, click.Option) and option.is_flag:
        return [option.opts[0]]
    values = value if option.multiple else [value]
    return [word for each in values for word in (option.opts[0], _said(option, each))]


def _said(option: click.Parameter, value: Any) -> str:
    if not isinstance(option.type, Pairs):
        return str(value)
    from benchmark.questions.reading import YAMLFault, read_yaml

    key, content = value
    try:
        plain = isinstance(content, str) and read_yaml(content)[1] == content
    except YAMLFault:
        plain = False
    return f"{key}={content if plain else json.dumps(content)}"


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
        BuilderError: a builder of a network that it names takes something else than builders are given.
    """
    from benchmark.catalog import suite_path
    from benchmark.questions.suite import load_suite

    suite = load_suite(suite_path(name))
    if suite.modules:
        click.echo(f"{name} runs code that it names: {', '.join(suite.modules)}", err=True)
    for model in suite.models:
        check_model(model.name, **model.options)
    return suite


def check_model(name: str, **options: Any) -> None:
    """Refuse a network of the user's own whose builder, by its source, cannot be called; nothing of it is run.

    Raises:
        BuilderError: there is no such function, or it takes something else than builders are given.
    """
    from benchmark.questions.builders import check_builder, signature_of

    if ":" in name and name not in models():
        signature = signature_of(name)
        if signature is not None:
            check_builder(name, signature, options)


def known(registry: Callable[[], "Registry"]) -> Callable[..., Any]:
    """A callback that answers a misspelt name before anything heavy is imported."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        from hardware.registry import UnknownName

        try:
            if value is not None:
                registry().by_user(value)
        except UnknownName as error:
            raise click.BadParameter(str(error), ctx, param) from error
        return value

    return check


def _each(check: Callable[..., str]) -> Callable[..., tuple[str, ...]]:
    """The callback of an option that may be given several times, each time with another value."""

    def check_all(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        if len({*values}) < len(values):
            raise click.BadParameter("the same one is given twice: leave one of them out", ctx, param)
        return tuple(check(ctx, param, value) for value in values)

    return check_all


def _compressors() -> "Registry":
    from compressors.registry import COMPRESSORS

    return COMPRESSORS


def data_sets() -> "Registry":
    """The data sets."""
    from benchmark.catalog import DATA

    return DATA


def models() -> "Registry":
    """The networks."""
    from benchmark.catalog import MODELS

    return MODELS


def _energy_profiles() -> "Registry":
    from hardware.catalog import energy_profiles

    return energy_profiles()


METHOD = click.option(
    "--method",
    "methods",
    required=True,
    multiple=True,
    callback=_each(known(_compressors)),
    help="The compressor (see `snnbench list`); a search takes several.",
)
METHOD_OF_LAYERS = click.option(
    "--method", default="sbc", show_default=True, callback=known(_compressors), help="The compressor."
)
METHOD_BEFORE = click.option(
    "--method",
    default="identity",
    show_default=True,
    callback=known(_compressors),
    help="What compresses the network before; identity for nothing.",
)
DATA_SET = click.argument("name", metavar="SET", callback=known(data_sets))


ENERGY = click.option(
    "--energy",
    callback=known(_energy_profiles),
    default="horowitz_sram_45nm",
    show_default=True,
    help="Profile that prices the counts, or a .yaml file of one's own.",
)


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for unreachable cycles inside, for commands that read many records and end.

    Records are millions of objects without cycles; to search through them takes up to a seventh of such a command.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _interrupted(error: BaseException | None) -> bool:
    """Whether an exception comes of an interrupt: a Trainer makes a silent exit of it, and cleaning up may fail."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _interrupted(error.__context__))


def user_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """End a user's mistake with its message and exit status rather than a traceback.

    Errors that a user can mend have the status as a class attribute: 1 a run or a place failed, 2 a mistake in the call
    or a file, 3 data missing.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except BaseException as error:
            if _interrupted(error):
                click.echo("interrupted; the same command goes on where this one stopped", err=True)
                sys.exit(130)
            status = getattr(error, "exit_status", None)  # an error without one is a defect, and is raised on
            if status is None:
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(status)

    return wrapped
