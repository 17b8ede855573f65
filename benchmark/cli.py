"""The command ``snnbench``: its subcommands, each in a module of :mod:`benchmark.commands`.

These modules declare options and import what they work with when they are called: ``--help`` and ``list`` need none of
the heavy packages.
"""

import codecs
import io
import logging
import sys
from pathlib import Path

import click

from benchmark.commands.check import check
from benchmark.commands.claims import claims
from benchmark.commands.compare import compare
from benchmark.commands.compress import compress
from benchmark.commands.data import data
from benchmark.commands.doctor import doctor
from benchmark.commands.leaderboard import leaderboard
from benchmark.commands.list import list_
from benchmark.commands.network import fixed_point, profile, sensitivity
from benchmark.commands.plan import plan
from benchmark.commands.run import run
from benchmark.commands.submit import submit
from benchmark.commands.wandb import wandb
from benchmark.distribution import COMMAND, installed

IN_ASCII = {"–": "-", "−": "-", "—": "-", "Δ": "d", "µ": "u", "·": "*", "±": "+/-", "×": "x", "→": "->", "…": "..."}
"""What is printed for characters that a terminal does not have; for others it is a question mark."""


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What a terminal shows in place of characters that it does not have."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(character, "?") for character in missing), error.end


def _speak_to_every_terminal() -> None:
    """Whatever the terminal's encoding, what is printed arrives, with near characters in place of missing ones."""
    codecs.register_error("snnbench", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="snnbench")


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"{COMMAND}, version {installed().version}")
        ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main() -> None:
    """Which compressor makes a spiking network smallest and cheapest at which loss of accuracy?

    \b
    snnbench run demo           run a suite; every run leaves a record in results/
    snnbench leaderboard        turn the records into tables and plots
    snnbench compress --help    compress a network of your own

    Exit status: 0 done, 1 some run failed, 2 a mistake in the call or a file, 3 data missing.
    """
    _speak_to_every_terminal()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    home = str(Path(__file__).resolve().parents[1])
    sys.path += [
        home,
        str(Path.cwd()),
    ]  # module:attribute finds a file beside the suite; last, so that it hides nothing


NETWORK = (compress, fixed_point, profile, sensitivity)
RECORDS = (claims, compare, leaderboard, submit)
for command in (check, data, doctor, list_, plan, run, wandb, *NETWORK, *RECORDS):
    main.add_command(command)


if __name__ == "__main__":
    main()
