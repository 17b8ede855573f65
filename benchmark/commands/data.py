"""The commands ``snnbench data ...``; each imports what it needs."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import AS_JSON, DATA_ROOT, DATA_SET, Pairs, once, user_errors

if TYPE_CHECKING:
    from datamodules.base import BenchmarkDataModule

DATA_OPTION = click.option(
    "-o",
    "--option",
    "options",
    type=Pairs(),
    multiple=True,
    metavar="KEY=VALUE",
    help="An option, such as timesteps=20.",
)


def _open(name: str, root: Path | None, options: list[tuple[str, Any]]) -> "BenchmarkDataModule":
    """The data set by its name; not set up yet, so that a missing one can be fetched."""
    from benchmark.questions import build
    from benchmark.questions.suite import Data

    return build.datamodule(
        Data.model_validate({"name": name, **once(options)}), batch_size=64, calibration_samples=1, seed=0, root=root
    )


@click.group()
def data() -> None:
    """Data sets: get their files, check them, look at them."""


@data.command()
@DATA_SET
@DATA_ROOT
@DATA_OPTION
@user_errors
def prepare(name: str, data_root: Path | None, options: list[tuple[str, Any]]) -> None:
    """Get SET's files onto this machine, or say which files to put where."""
    from datamodules.prepare import prepare as fetch

    opened = _open(name, data_root, options)
    fetch(opened)
    counts = ", ".join(f"{part} {count}" for part, count in opened.describe()["counts"].items())
    click.echo(f"{name} is ready in {opened.root}: {counts}")


@data.command()
@DATA_SET
@DATA_ROOT
@DATA_OPTION
@click.option("--workers", type=click.IntRange(min=0), help="Processes that read [default: one for each core].")
@click.option("--report", type=click.Path(path_type=Path), help="Also write what was found as JSON.")
@AS_JSON
@user_errors
def verify(
    name: str,
    data_root: Path | None,
    options: list[tuple[str, Any]],
    workers: int | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Read every file of SET; exit status 1 if one cannot be used or is there twice."""
    from benchmark.files import require_writable
    from datamodules.verify import verify as check

    if report is not None:
        require_writable(report)
    verification = check(_open(name, data_root, options), workers=workers, report=report)
    if as_json:
        click.echo(json.dumps(asdict(verification) | {"complete": verification.complete, "sound": verification.sound}))
    else:
        samples = f"{verification.samples} of {verification.published_samples} samples"
        click.echo(f"{name} ({verification.split}): {samples}, {verification.fingerprint}")
        for label, counts in verification.samples_per_class.items():
            click.echo(f"  {label}: " + ", ".join(f"{part} {count}" for part, count in counts.items()))
        for fault in verification.unusable:
            click.echo(f"cannot be used: {fault}")
        for group in verification.duplicates:
            click.echo(f"the same content: {', '.join(group)}")
    sys.exit(0 if verification.sound else 1)


@data.command()
@DATA_SET
@DATA_ROOT
@DATA_OPTION
@click.option("--picture", type=click.Path(path_type=Path), help="The PNG to write [default: <SET>.png].")
@user_errors
def show(name: str, data_root: Path | None, options: list[tuple[str, Any]], picture: Path | None) -> None:
    """Draw a sample of each class of SET."""
    from benchmark.files import require_writable
    from datamodules.show import show as draw

    target = picture or Path(f"{name}.png")
    require_writable(target, ".png")
    draw(_open(name, data_root, options), target)
    click.echo(f"written: {target}")
