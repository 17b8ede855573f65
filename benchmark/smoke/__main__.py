"""The command behind ``make smoke``."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmark import smoke
from benchmark.files import write_atomically
from benchmark.runs.progress import SuiteProgress


@click.command()
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path(".smoke"), show_default=True)
@click.option("--record", is_flag=True, help="Keep what is found as the figures to compare with.")
def main(results: Path, record: bool) -> None:
    """Run the suite `smoke`, every compressor once, and compare with the recorded figures; status 1 if they differ."""
    with SuiteProgress("smoke", len(smoke.questions()), Console(stderr=True)) as display:
        records = smoke.run(results, display)
    if record:
        failed = [record for record in records if record.status == "failed"]
        if failed:
            sys.exit("\n".join(f"{record.question.label}: {record.error}" for record in failed))
        write_atomically(smoke.BOUNDS, json.dumps(smoke.as_bounds(records), indent=1) + "\n")
        return
    lines = list(smoke.differences(records, smoke.load_bounds()))
    click.echo("\n".join(lines) or f"{len(records)} runs as recorded")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
