"""What ``make perf`` does: every package's performance table, measured in one run.

Read ratios rather than seconds: both sides of a ratio were measured in the same process.
"""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmark.networks.classifier import SNNClassifier, outputs
from benchmark.networks.zoo.conv import conv
from benchmark.perf import counting, cuda, inference, large, reading, solvers, training
from benchmark.runs import memory
from datamodules import NMNIST, DataMissing, DigitsDVS
from datamodules.event_set import EventDataModule


def startup() -> list[dict[str, Any]]:
    """Wall time of the command line's quick answers, the median of five, beside that of the bare interpreter."""
    calls = {"python -c pass": ["-c", "pass"]}
    calls |= {f"snnbench {word}": ["-m", "benchmark.cli", word] for word in ("--help", "list")}
    return [
        {"command": name, "median_s": statistics.median(_wall(words) for _ in range(5))}
        for name, words in calls.items()
    ]


def _wall(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def events() -> list[dict[str, Any]]:
    """Reading events, on the embedded set and on N-MNIST where it is there."""
    sets: list[EventDataModule] = [DigitsDVS(timesteps=20)]
    try:
        nmnist = NMNIST(timesteps=20)
        nmnist.setup()
        sets.append(nmnist)
    except DataMissing as error:
        click.echo(f"not measured: {error}", err=True)
    return [row for data in sets for row in reading.measure(data)]


def waiting() -> list[dict[str, Any]]:
    """Share of a training step of the conv network that is spent waiting for data."""
    data = DigitsDVS(timesteps=20, batch_size=16)
    data.prepare_data()
    module = SNNClassifier(conv(data.input_shape, data.num_classes), classes=data.num_classes, timesteps=20)
    optimizer = torch.optim.Adam(module.parameters())

    def step(batch: Any) -> None:
        x, y = data.on_after_batch_transfer(batch, 0)
        optimizer.zero_grad()
        module.loss(outputs(module.network, x, data.num_classes, 20), y, 0.0).backward()
        optimizer.step()

    share = reading.waiting_share(islice(data.train_dataloader(), 20), step)
    return [{"data": data.name, "network": "conv", "timesteps": 20, "waiting_share": share}]


def with_peak(cases: Iterable[Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of all cases, each with the process's largest resident set while it was measured."""
    rows = []
    for case in cases:
        known = memory.forget_peak()
        rows.append(case() | ({"peak_mb": memory.peak_bytes() / 1e6} if known else {}))
    return rows


def large_networks() -> list[dict[str, Any]]:
    """Pruning of networks of ImageNet's size, where its images are there."""
    try:
        return with_peak(large.cases())
    except DataMissing as error:
        click.echo(f"not measured: {error}", err=True)
        return []


PARTS = {
    "start-up": startup,
    "exact solver": lambda: with_peak(solvers.exact()),
    "approximate solvers": lambda: with_peak(solvers.approximate()),
    "counting": counting.measure,
    "data": events,
    "training": training.measure,
    "waiting for data": waiting,
    "inference": inference.measure,
    "large networks": large_networks,
}


def _show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=title, title_justify="left")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(
            column, overflow="fold", justify="right" if isinstance(rows[0].get(column), int | float) else "left"
        )
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    console.print(table)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS, *(part for part in cuda.PARTS if part not in PARTS)]))
@click.option("--device", default="cpu", help="What to measure: cpu, cuda, cuda:1 ...", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that torch may use.")
def main(parts: tuple[str, ...], device: str, threads: int | None) -> None:
    """Measure PARTS, or all that there are for the device."""
    if threads is not None:
        torch.set_num_threads(threads)
    memory.keep_freed()  # as every run does
    console = Console(width=None if sys.stdout.isatty() else 200)
    measured = _measured_on(device)
    if unknown := [part for part in parts if part not in measured]:
        raise click.UsageError(f"{unknown[0]} is not measured on {device}: choose from {', '.join(measured)}")
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    console.print(f"{_card(device) or machine}, torch {torch.__version__}")
    for part in parts or measured:
        _show(part, measured[part](), console)


def _measured_on(device: str) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    if device == "cpu":
        return PARTS
    if not torch.cuda.is_available():
        raise click.UsageError(f"there is no {device} here: torch finds no GPU")
    return {title: partial(part, device) for title, part in cuda.PARTS.items()}


def _card(device: str) -> str | None:
    return None if device == "cpu" else torch.cuda.get_device_name(device)


if __name__ == "__main__":
    main()
