"""Pages as sessions: every code block of a page is run, in order, in one folder, and what it shows is compared.

A block's language says what is done with it:

- ``python``: executed; all such blocks of a page share their names. With a ``title`` it is written to that file, which
  the blocks after it import.
- ``text`` after it: what it prints.
- ``console``: a line ``$ snnbench ...`` is executed, and the lines after it are its output; ``…`` stands for any lines.
- ``sh``: lines of ``snnbench`` on a network that is there are executed, others parsed; targets of ``make`` exist.
- ``json``, ``yaml``, ``toml``: parsed; with a ``title`` written to that file, for the blocks after it.

``python -m tests.end_to_end.pages docs/compress.md`` writes what the blocks give today into a page.
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import yaml

from benchmark.cli import main

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    path.relative_to(REPOSITORY).as_posix()
    for path in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REPOSITORY.glob("docs/**/*.md")))
]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?[^\n]*\n(.*?)^```$', re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
WIDTH = 80
TOLERANCE = 0.1  # of figures that a processor with other rounding may change; those from records are exact


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title and its text, and where the text stands in the page."""

    language: str
    title: str | None
    text: str
    place: slice


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = BLOCK.finditer((REPOSITORY / page).read_text(encoding="utf-8"))
    return [Block(match[1], match[2], match[3], slice(*match.span(3))) for match in found]


def parse(line: str) -> None:
    """See whether a line of ``snnbench`` is a call that the command line takes."""
    words = shlex.split(line, comments=True)[1:]
    context = main.make_context("snnbench", words, resilient_parsing=False)
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, rest, parent=context)


def alike(shown: str, real: str, tolerance: float) -> bool:
    """Whether two lines say the same, their figures being as near as ``tolerance``, and spaces left aside."""
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", real).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(real), strict=True)
    return all(near(float(a.replace(",", "")), float(b.replace(",", "")), tolerance) for a, b in pairs)


def near(shown: float, real: float, tolerance: float) -> bool:
    """Whether a figure is the real one, but for the tolerance; points of accuracy and the like are small figures."""
    return abs(shown - real) <= tolerance * max(10.0, abs(shown), abs(real))


def compare(shown: str, real: str, tolerance: float) -> None:
    """Assert that a page shows the lines that there are; ``…`` stands for any number of lines."""
    rest = [line.rstrip() for line in real.splitlines()]
    skipping = False
    for line in shown.splitlines():
        if line.strip() == "…":
            skipping = True
            continue
        places = [i for i, other in enumerate(rest) if alike(line, other, tolerance)]
        here = places[:1] if skipping else [i for i in places if i == 0]
        assert here, f"the page shows\n  {line}\nwhere there is\n" + "\n".join(rest[:12])
        rest, skipping = rest[here[0] + 1 :], False
    assert skipping or not any(rest), "the page leaves out\n" + "\n".join(rest)


@dataclass
class Session:
    """One page being run in the current folder."""

    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    printed: str = ""

    def run(self, block: Block) -> None:
        """Do what a block's language says, once its file is written."""
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        getattr(self, block.language)(block)

    def python(self, block: Block) -> None:
        """Execute a block, and keep what it prints itself: Lightning's bars are nobody's example. Files wait."""
        if block.title is None:
            out = io.StringIO()
            self.names["print"] = partial(print, file=out)
            exec(compile(block.text, "page", "exec"), self.names)
            self.printed = out.getvalue()

    def text(self, block: Block) -> None:
        """What the block before printed; a page that runs nothing shows what is compared elsewhere."""
        if self.printed:
            compare(block.text, self.printed, TOLERANCE)

    def console(self, block: Block) -> None:
        """Call what stands behind the dollar, and compare."""
        for line, shown in calls(block.text):
            exact = shlex.split(line)[1] in ("leaderboard", "list", "plan")
            compare(shown, output_of(line), 0.0 if exact else TOLERANCE)

    def sh(self, block: Block) -> None:
        """Lines of a shell: those on a network that the page has made are run, the others parsed."""
        targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
        for line in block.text.splitlines():
            if line.startswith("snnbench ") and is_ready(line):
                output_of(line)
            elif line.startswith("snnbench "):
                parse(line)
            elif line.startswith("make "):
                assert line.split()[1] in targets, f"there is no target for `{line}`"

    def yaml(self, block: Block) -> None:
        """A file that is data."""
        yaml.safe_load(block.text)

    def json(self, block: Block) -> None:
        """A text that is data."""
        json.loads(block.text)

    def toml(self, block: Block) -> None:
        """A file that is data."""
        tomllib.loads(block.text)


def is_ready(line: str) -> bool:
    """Whether the network that a command is about stands in the current folder."""
    words = shlex.split(line)
    return any(option in ("--checkpoint", "--nir") and Path(file).is_file() for option, file in pairwise(words))


def calls(text: str) -> Iterator[tuple[str, str]]:
    """``$ line`` and the output shown for it, of a console block."""
    starts = [match.start() for match in re.finditer(r"^\$ ", text, re.MULTILINE)]
    for start, end in pairwise([*starts, len(text)]):
        line, _, shown = text[start + 2 : end].partition("\n")
        yield line, shown


def output_of(line: str) -> str:
    """What a call of ``snnbench`` prints to a terminal of :data:`WIDTH` columns, in a process of its own."""
    imports = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", *shlex.split(line)[1:]],
        env=os.environ | {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONPATH": imports},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(page: str) -> None:
    """Run a page in the current folder."""
    session = Session()
    for block in blocks(page):
        session.run(block)


def recorded(page: str) -> str:
    """The text of a page with the real output in its console and text blocks."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    session, pieces, end = Session(), [], 0
    for block in blocks(page):
        shown = block.text
        if block.language == "console" and "…" not in shown:
            shown = "".join(f"$ {line}\n{_trimmed(output_of(line))}\n" for line, _ in calls(block.text))
        elif block.language == "text" and session.printed:
            shown = session.printed
        else:
            session.run(block)
        pieces += [text[end : block.place.start], shown]
        end = block.place.stop
    return "".join([*pieces, text[end:]])


def _trimmed(output: str) -> str:
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines())


if __name__ == "__main__":
    import tempfile

    page = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.append(folder)
        new = recorded(page)
        os.chdir(REPOSITORY)
    (REPOSITORY / page).write_text(new, encoding="utf-8")
