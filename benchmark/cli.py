"""The command ``snnbench``. Commands import the heavy packages they need; ``--help`` and ``list`` need none."""

import json
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from benchmark.errors import exit_status

RESULTS = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of the records and leaderboards.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")


def user_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """End a user's mistake with its message and exit status rather than a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on where this one stopped", err=True)
            sys.exit(130)
        except Exception as error:  # anything unknown to exit_status is a defect, and is raised on
            status = exit_status(error)
            if status is None:
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(status)

    return wrapped


class _Pairs(click.ParamType):
    """``key=value`` options; values are read as YAML, so that numbers are numbers."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        import yaml

        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, yaml.safe_load(text)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="snnbench")
def main() -> None:
    """Which compressor makes a spiking network smallest and cheapest at which loss of accuracy?

    \b
    snnbench run smoke          run a suite; every run leaves a record in results/
    snnbench leaderboard        turn the records into tables and plots
    snnbench compress --help    compress a network of your own

    Exit status: 0 done, 1 some run failed, 2 a mistake in the call or a file, 3 data missing.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


@main.command()
@click.argument("suite")
@RESULTS
@click.option(
    "--data-root",
    "data_roots",
    type=_Pairs(),
    multiple=True,
    metavar="SET=DIR",
    help="Where a data set's files are (else $SNNBENCH_DATA/<set>, or the user's data folder).",
)
@click.option(
    "--wandb/--no-wandb", "use_wandb", default=True, help="Log each run to Weights & Biases (offline without a key)."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that torch may use.")
@AS_JSON
@user_errors
def run(
    suite: str,
    results: Path,
    data_roots: tuple[tuple[str, Any], ...],
    use_wandb: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run SUITE, a shipped suite's name or a .yaml file. What is already in the results is not run again."""
    from benchmark.catalog import suite_path
    from benchmark.suite import load_suite

    plan = load_suite(suite_path(suite))
    roots = {name: Path(str(folder)) for name, folder in data_roots}

    from benchmark import job

    outcome = job.run(plan, results, roots, use_wandb=use_wandb, threads=threads)
    if as_json:
        click.echo(json.dumps({"suite": plan.name, **vars(outcome)}))
    sys.exit(1 if outcome.failed else 0)


@main.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    required=True,
    help="The dense network: .safetensors, .ckpt or .pt.",
)
@click.option("--method", required=True, help="The compressor (see `snnbench list`).")
@click.option("--density", type=float, default=1.0, show_default=True, help="Share of weights to keep, in (0, 1].")
@click.option(
    "-o", "--option", "options", type=_Pairs(), multiple=True, metavar="KEY=VALUE", help="An option of the compressor."
)
@click.option("--model", help="The network's name; not needed for a checkpoint that snnbench wrote.")
@click.option(
    "--model-option",
    "model_options",
    type=_Pairs(),
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the network.",
)
@click.option("--data", help="The data set to calibrate and test on; not needed for a checkpoint that snnbench wrote.")
@click.option(
    "--data-option",
    "data_options",
    type=_Pairs(),
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the data set, such as timesteps=20 or split=pooled.",
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@click.option("--calibration-samples", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the calibration draw and of random choices.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The compressed network [default: <checkpoint>-<method>-<density>.safetensors].",
)
@AS_JSON
@user_errors
def compress(
    checkpoint: Path,
    method: str,
    density: float,
    options: tuple[tuple[str, Any], ...],
    model: str | None,
    model_options: tuple[tuple[str, Any], ...],
    data: str | None,
    data_options: tuple[tuple[str, Any], ...],
    data_root: Path | None,
    calibration_samples: int,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compress a network of your own, and say what it cost before and after."""
    from compressors.registry import COMPRESSORS

    COMPRESSORS[method]  # a misspelt name is answered before anything heavy is imported

    from benchmark.compress import Request, compress_checkpoint, show

    request = Request(
        checkpoint=checkpoint,
        method={"name": method, **dict(options)},
        density=density,
        model=None if model is None else {"name": model, **dict(model_options)},
        data=None if data is None else {"name": data, **dict(data_options)},
        data_root=data_root,
        calibration_samples=calibration_samples,
        seed=seed,
        output=output or checkpoint.with_name(f"{checkpoint.stem}-{method}-{density:g}.safetensors"),
    )
    summary = compress_checkpoint(request)
    click.echo(json.dumps(summary) if as_json else show(summary), nl=as_json)


@main.command()
@RESULTS
@click.option("--suite", help="Only the records of this suite.")
@click.option("--data", help="Only this data set.")
@click.option("--model", help="Only this network.")
@click.option("--write/--no-write", default=True, help="Also write leaderboard.md, .csv and the plots.")
@AS_JSON
@user_errors
def leaderboard(
    results: Path, suite: str | None, data: str | None, model: str | None, write: bool, as_json: bool
) -> None:
    """Render the records: a table here, and leaderboard.md, leaderboard.csv and plots in the results folder."""
    from rich.console import Console

    from benchmark import leaderboard as board
    from benchmark.records import RecordStore

    store = RecordStore(results)
    tables = board.build(store, suite=suite, data=data, model=model)
    if write:
        board.write(tables, results)
    if as_json:
        click.echo(json.dumps(board.as_json(tables)))
    else:
        Console().print(board.terminal(tables))


@main.command("list")
@AS_JSON
@user_errors
def list_(as_json: bool) -> None:
    """List data sets, models, compressors and suites."""
    from benchmark.catalog import DATA, MODELS, suites
    from compressors.registry import COMPRESSORS

    kinds = {"data": DATA, "models": MODELS, "compressors": COMPRESSORS}
    listing = {kind: {name: registry[name].summary for name in registry} for kind, registry in kinds.items()}
    listing["suites"] = suites()
    if as_json:
        click.echo(json.dumps(listing, indent=1))
        return
    width = max(len(name) for entries in listing.values() for name in entries)
    for kind, entries in listing.items():
        click.secho(kind, bold=True)
        for name, summary in entries.items():
            click.echo(f"  {name:<{width}}  {summary}")


@main.command()
@AS_JSON
@user_errors
def doctor(as_json: bool) -> None:
    """Check this installation: versions that fit each other, folders that can be written, data that are there."""
    from benchmark.doctor import checkup

    findings = checkup()
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            mark = {"ok": click.style("ok  ", fg="green"), "note": "note", "bad": click.style("bad ", fg="red")}[
                finding.state
            ]
            click.echo(f"{mark}  {finding.subject}: {finding.message}")
    sys.exit(1 if any(finding.state == "bad" for finding in findings) else 0)


if __name__ == "__main__":
    main()
