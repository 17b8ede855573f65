"""The command ``snnbench``. Commands import the heavy packages they need; ``--help`` and ``list`` need none."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click

from benchmark.command import AS_JSON, RESULTS, user_errors
from benchmark.wandb_commands import wandb


class _Pairs(click.ParamType):
    """``key=value`` options; values are read as YAML, so that numbers are numbers."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        import yaml

        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, yaml.safe_load(text)


def _energy_profile(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from hardware.energy import load_profile

    try:
        load_profile(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return value


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
@click.option("--only", metavar="KEY", help="Only the run of this key (see `snnbench wandb sweep`).")
@AS_JSON
@user_errors
def run(
    suite: str,
    results: Path,
    data_roots: tuple[tuple[str, Any], ...],
    use_wandb: bool,
    threads: int | None,
    only: str | None,
    as_json: bool,
) -> None:
    """Run SUITE, a shipped suite's name or a .yaml file. What is already in the results is not run again."""
    from benchmark.catalog import suite_path
    from benchmark.suite import load_suite

    plan = load_suite(suite_path(suite))
    roots = {name: Path(str(folder)) for name, folder in data_roots}

    from benchmark import build, job, wandb_sweep

    if only is not None:
        plan = wandb_sweep.only(plan, only, build.budgetless(plan))
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
@click.option(
    "--energy",
    callback=_energy_profile,
    default="horowitz_sram_45nm",
    show_default=True,
    help="Profile that prices the counts, or a .yaml file of one's own.",
)
@click.option("--write/--no-write", default=True, help="Also write leaderboard.html, .md, .csv and the plots.")
@AS_JSON
@user_errors
def leaderboard(
    results: Path, suite: str | None, data: str | None, model: str | None, energy: str, write: bool, as_json: bool
) -> None:
    """Render the records: a table here; a page, Markdown, CSV and plots in the results folder."""
    from rich.console import Console

    from benchmark import leaderboard as board
    from benchmark.records import RecordStore

    store = RecordStore(results)
    tables = board.build(store, suite=suite, data=data, model=model, energy_profile=energy)
    if write:
        board.write(tables, results)
    if as_json:
        click.echo(json.dumps(board.as_json(tables)))
    else:
        Console().print(board.terminal(tables))


@main.command()
@click.argument("a")
@click.argument("b")
@RESULTS
@AS_JSON
@user_errors
def compare(a: str, b: str, results: Path, as_json: bool) -> None:
    """Show runs A and B side by side: what differs, layer by layer, and whether it is more than chance.

    A and B are record ids, or their beginnings, as in leaderboard.csv and on the page.
    """
    from rich.console import Console

    from benchmark import compare as comparing
    from benchmark.records import RecordStore

    comparison = comparing.compare(RecordStore(results), a, b)
    if as_json:
        click.echo(json.dumps(comparison.to_dict()))
    else:
        Console().print(comparing.show(comparison))


main.add_command(wandb)


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
