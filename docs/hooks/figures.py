"""The generated parts of pages: tables from records, options from classes, lists from registries, pictures.

A figure on a page comes from here and never from a keyboard. A page asks with a comment: ``<!-- NAME WORDS -->``.
"""

import inspect
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import griffe
import numpy as np
from rich.console import Console
from roles import plain

from benchmark import catalog
from benchmark.boards import leaderboard
from benchmark.boards.claims import pages as claim_pages
from benchmark.boards.measures import MEASURES
from benchmark.boards.standings import Board, Row, Table
from benchmark.boards.terminal import terminal as in_terminal
from benchmark.cli import main
from benchmark.questions.recipes import RECIPES
from benchmark.records import RecordStore
from benchmark.wording import seconds
from compressors.registry import COMPRESSORS
from hardware.energy import load_profile, profile_names
from hardware.units import count, size

ROOT = Path(__file__).parents[2]
ASKED = re.compile(r"<!-- (\w+)(?: ([^>]*?))? -->")


def filled(markdown: str) -> str:
    """A page's text with every generated part in its place.

    Raises:
        KeyError: a comment asks for something that nobody makes; names it.
    """
    return ASKED.sub(lambda match: PARTS[match[1]](*(match[2] or "").split()), markdown)


def write_leaderboard(folder: Path) -> None:
    """The leaderboard of the committed records as page, Markdown, CSV and pictures."""
    leaderboard.write(board(), folder)


@cache
def board() -> Board:
    """The tables of the committed records."""
    return leaderboard.build(RecordStore(ROOT / "results"))


# Tables --------------------------------------------------------------------------------------------------------------


def lines(heads: Sequence[str], rows: Iterable[Sequence[str]], right_from: int = 1) -> str:
    """A Markdown table; columns from ``right_from`` on are numbers."""
    rules = [":---" if place < right_from else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rules, *rows])


def name_of(row: Row) -> str:
    """A method's plain name, without its options."""
    return row.method.partition("[")[0]


def limit(row: Row) -> str:
    """A row's budget for people."""
    return row.budget.short


def accuracy(row: Row, best: bool) -> str:
    """Mean accuracy in percent, bold for the best of its budget."""
    text = f"{100 * row.measured['accuracy'].mean:.1f}"
    return f"**{text}**" if best else text


def matrix(table: Table, wanted: Callable[[Row], bool]) -> str:
    """Methods by budgets: mean accuracy in percent, the best of each budget (of the rows shown) bold."""
    rows = [row for row in table.rows if wanted(row) and not row.dense]
    samples = {row.calibration_samples for row in rows}
    labels = {(row.method, row.calibration_samples): row for row in rows}
    budgets = list(dict.fromkeys(limit(row) for row in rows))
    tops = {b: max(row.measured["accuracy"].mean for row in rows if limit(row) == b) for b in budgets}
    body = []
    for (method, looked_at), first in sorted(labels.items()):
        own = {limit(row): row for row in rows if (row.method, row.calibration_samples) == (method, looked_at)}
        cells = [accuracy(own[b], own[b].measured["accuracy"].mean == tops[b]) if b in own else "" for b in budgets]
        name = f"`{method}`" + (" (control)" if first.control else "")
        name += f", {looked_at} samples" if len(samples) > 1 else ""
        times = [row.measured["compression_seconds"].mean for row in own.values()]
        body.append([name, *cells, seconds(max(times))])
    return lines(["kept of the network", *budgets, "time"], body)


def heading(table: Table) -> str:
    """What a table's rows share, and the dense network's figures."""
    setup = table.setup
    condition = f", {table.condition}" if table.condition else ""
    text = (
        f"**{setup.data_name} · {setup.model.partition('[')[0]}** (T = {setup.timesteps}; {table.division}{condition})"
    )
    dense = [row for row in table.rows if row.dense]
    if not dense:
        return text
    found = dense[0].measured
    return (
        f"{text}. Dense: {100 * found['accuracy'].mean:.1f} %, {count(found['synops'].mean)} operations a sample, "
        f"{size(found['stored_bits'].mean)}."
    )


def results(name: str, *beside: str) -> str:
    """``results sbc obc``: where a method stands, wherever it was measured, with others beside it."""
    others = set(beside)
    parts = []
    for table in board().tables:
        own = [row for row in table.rows if name_of(row) == name]
        if own and "re-estimated" not in table.condition:
            parts += [heading(table), "", matrix(table, lambda row: name_of(row) == name or row.method in others), ""]
    return "\n".join([*parts, standing(name)]) if parts else "Not among the committed records yet."


def standing(name: str) -> str:
    """How often a method stands on a Pareto front."""
    own = [row for table in board().tables for row in table.rows if name_of(row) == name]
    fronts = {cost: sum(cost in row.fronts for row in own) for cost in ("synops", "stored_bits")}
    return (
        f"Of its {len(own)} rows on the [leaderboard](../results.md), variants included, {fronts['synops']} are beaten "
        f"by no other row of their table in both accuracy and operations, and {fronts['stored_bits']} in both accuracy "
        "and memory."
    )


def claims() -> str:
    """How many claims have which verdict."""
    found = claim_pages.counted(leaderboard.claims(board()))
    return lines(["verdict", "claims"], [[verdict, str(number)] for verdict, number in found.items()])


def tables() -> str:
    """Every table of the leaderboard as a matrix, with its picture."""
    parts = []
    for table in board().tables:
        setup = table.setup
        condition = f" ({table.condition})" if table.condition else ""
        seeds = max(len(row.runs) for row in table.rows)
        parts += [
            f"## {setup.data_name}, {setup.model.partition('[')[0]}, {table.division}{condition} {{#{table.key}}}\n",
            f"{heading(table)} {seeds} seed{'s' if seeds > 1 else ''}; table {table.key}.\n",
            matrix(table, lambda row: True),
            f"\n[![Accuracy over synaptic operations and over memory](leaderboard/leaderboard/{table.slug}.png)]"
            f"(leaderboard/leaderboard/{table.slug}.png)\n",
        ]
    return "\n".join(parts)


def terminal(data: str, model: str) -> str:
    """``terminal nmnist nir``: the first table of these records, as a terminal of 80 columns shows it."""
    wanted = (data, model)
    found = next(t for t in board().tables if (t.setup.data_name, re.split(r"\W", t.setup.model)[0]) == wanted)
    out = io.StringIO()
    Console(file=out, width=80).print(in_terminal(replace(board(), tables=(found,), apart=())))
    shown = "\n".join(line.rstrip() for line in out.getvalue().splitlines()).partition("\nTable ")[0].rstrip()
    return f"```text\n{shown}\n```"


def counted() -> str:
    """How many records stand behind the site."""
    runs = board().runs.values()
    methods = {run.question.compressor.name for run in runs}
    return f"{len(runs):,} records, {len(methods)} methods, {len(board().tables)} tables"


# Options and registries ----------------------------------------------------------------------------------------------


def described(method: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each argument; the class's own word counts most."""
    texts: dict[str, str] = {}
    for base in reversed(method.__mro__):
        sections = griffe.Docstring(inspect.cleandoc(base.__dict__.get("__doc__") or "")).parse(
            "google", warnings=False
        )
        for section in sections:
            if section.kind is griffe.DocstringSectionKind.parameters:
                texts |= {item.name: plain(" ".join(item.description.split())) for item in section.value}
    return texts


def shown(default: Any) -> str:
    """A default as it is written in a suite."""
    if isinstance(default, int) and default >= 2**30:
        return size(8 * default)
    return "" if default is inspect.Parameter.empty else f"`{default!r}`"


def options(name: str) -> str:
    """The options of a method: name, default and meaning, from the class."""
    method = COMPRESSORS[name].load()
    texts = described(method)
    rows = [
        [f"`{key}`", shown(parameter.default), texts.get(key, "").replace("|", "\\|")]
        for key, parameter in method.options().items()
        if key != "calibration"
    ]
    budgets = ", ".join(kind.replace("+", " and ") for kind in method.budgets if kind != "none") or "none"
    return f"Budgets: {budgets}.\n\n" + lines(["option", "default", "meaning"], rows, right_from=3)


def methods() -> str:
    """The registered methods of this package."""
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")}
    rows = []
    for name, entry in COMPRESSORS.items():
        if entry.origin != "snnbench":
            continue
        method = entry.load()
        page = f"{name}.md" if name in pages else f"controls.md#{name}"
        kinds = ", ".join(kind.replace("+", " and ") for kind in method.budgets if kind != "none")
        rows.append([f"[`{name}`]({page})", entry.summary.replace(" (control)", ""), kinds])
    return lines(["name", "what it does", "budgets"], rows, right_from=3)


def registry(kind: str) -> str:
    """``registry data`` or ``registry models``: what is registered, in one line each."""
    entries = {"data": catalog.DATA, "models": catalog.MODELS}[kind]
    rows = [[f"`{name}`", entry.summary] for name, entry in entries.items() if entry.origin == "snnbench"]
    return lines(["name", "what it is"], rows, right_from=2)


def suites() -> str:
    """The shipped suites."""
    return lines(["suite", "what it asks"], [[f"`{n}`", text] for n, text in catalog.suites().items()], right_from=2)


def recipes() -> str:
    """Published ways of training, with their settings and where they were read."""
    rows = [
        [
            f"`{name}`",
            ", ".join(f"{key} {_value(value)}" for key, value in recipe.settings.items()),
            f"{recipe.data}",
            recipe.source + (f"; here {recipe.differs}" if recipe.differs else ""),
        ]
        for name, recipe in RECIPES.items()
    ]
    return lines(["recipe", "settings", "data in the source", "source"], rows, right_from=4)


def _value(value: Any) -> str:
    """A setting's value as a suite has it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def profiles() -> str:
    """The shipped energy profiles and how far to believe each."""
    found = {name: load_profile(name) for name in profile_names()}
    rows = [[f"`{name}`", profile.title, " ".join(profile.uncertainty.split())] for name, profile in found.items()]
    return lines(["profile", "what it models", "how far to believe it"], rows, right_from=3)


def measures() -> str:
    """What a row of a leaderboard measures."""
    return lines(["name in CSV and JSON", "meaning"], [[f"`{n}`", text] for n, text in MEASURES.items()], right_from=2)


def commands() -> str:
    """The help of every command."""
    parts: list[str] = []

    def add(command: click.Command, path: list[str]) -> None:
        context = click.Context(command, info_name=" ".join(path), max_content_width=96, terminal_width=96)
        parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for name in sorted(command.commands):
                add(command.commands[name], [*path, name])

    add(main, ["snnbench"])
    return "\n".join(parts)


def picture(name: str, *caption: str) -> str:
    """An SVG, put into the page so that it follows the page's colours; the caption is for people and screen readers."""
    drawing = (ROOT / "docs" / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
    return f'<figure class="drawing">\n{drawing.strip()}\n<figcaption>{" ".join(caption)}</figcaption>\n</figure>'


def likeness(part: str) -> str:
    """``likeness rates`` or ``likeness transfer``: what `docs/likeness.py` measured."""
    kept = json.loads((ROOT / "docs" / "likeness.json").read_text(encoding="utf-8"))[part]
    return {"rates": _rates, "transfer": _transfer}[part](kept)


def _rates(kept: dict[str, Any]) -> str:
    shown = [
        ("events of a recording", "events", ",.0f"),
        ("their standard deviation", "events_sd", ",.0f"),
        ("share of on events", "on", ".1%"),
        ("pixels that a digit passes", "pixels", ".0f"),
        ("events of such a pixel", "events_per_pixel", ".1f"),
        ("share of events at other pixels", "background", ".1%"),
        ("power of the rate below 32 Hz", "slow", ".1%"),
    ]
    rows = [[label, format(kept["real"][key], how), format(kept["simulated"][key], how)] for label, key, how in shown]
    alike = kept["alike"]
    return lines([f"of {kept['recordings']} recordings", "N-MNIST", "`mnist_dvs`, the same images"], rows) + (
        f"\n\nOf one image, the two numbers of events correlate with {alike['events']:.3f}, and the events per pixel"
        f" with {alike['pixels']:.3f}; over time, the two rates correlate with {alike['rate']:.3f}."
    )


def _transfer(kept: dict[str, Any]) -> str:
    tested = {
        "simulated": {"simulated": kept["simulated test"], "real": kept["unseen"]},
        "real": {"simulated": kept["simulated test"], "real": kept["real test"]},
    }
    rows = []
    for trained, sets in tested.items():
        cells = []
        for on, samples in sets.items():
            share = float(np.mean(kept["accuracy"][f"{trained} on {on}"]))
            error = (share * (1 - share) / samples) ** 0.5
            cells.append(f"{100 * share:.1f} % ± {100 * error:.1f} (of {samples:,})")
        rows.append([f"{kept[f'{trained} train']:,} {trained} recordings", *cells])
    return lines(["trained on", "tested on simulated ones", "tested on real ones"], rows)


PARTS: dict[str, Callable[..., str]] = {
    "claims": claims,
    "commands": commands,
    "counted": counted,
    "likeness": likeness,
    "measures": measures,
    "methods": methods,
    "options": options,
    "picture": picture,
    "profiles": profiles,
    "recipes": recipes,
    "registry": registry,
    "results": results,
    "suites": suites,
    "tables": tables,
    "terminal": terminal,
}
"""What a page can ask for, by the first word of the comment."""
