"""The path of a search for people: what was tried as a table and a picture, and what its samples can tell."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmark.boards.styles import Style, style
from benchmark.single_network.paired import PairedChange
from benchmark.wording import count, joules, number_of, points, seconds, size
from compressors.registry import COMPRESSORS

Account = Mapping[str, Any]

PRICES = {
    "memory": ("stored weights", lambda value: size(value)),
    "synops": ("SynOps a sample", lambda value: count(value)),
    "energy": ("energy a sample", lambda value: joules(value)),
}
"""What is minimised -> how it is called and worded."""

_LONG_NAME = 9
"""Letters of a method's name up to which columns at 80 characters may stand two spaces apart."""

_LINEAR = 3.0
"""Points of accuracy up to which the picture's scale is linear; beyond, it is logarithmic."""


def change_of(step: Account) -> PairedChange:
    """A step's change on the held-out samples."""
    return PairedChange(*(step["change"][part] for part in ("samples", "gained", "lost")))


def table(account: Account) -> Table:
    """What was tried, in its order; a star marks the winner."""
    title = f"{number_of(len(account['path']), 'candidate')}, {judged(account)}"
    gap = 1 if max(len(step["method"]["name"]) for step in account["path"]) <= _LONG_NAME else 0
    shown = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0)
    )
    for heading in ("", "method", "density", "bits"):
        shown.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    energy = account["wish"]["minimise"] == "energy"
    for heading in ("memory", "energy" if energy else "SynOps", "points", "from", "to"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("verdict", overflow="fold")
    width = account.get("whole_numbers", {}).get("weight_bits", "float")
    for number, step in enumerate(account["path"]):
        shown.add_row("*" if number == account["best"] else str(number + 1), *_row(step, energy, width))
    return shown


def _row(step: Account, energy: bool, width: int | str) -> Iterator[str]:
    """``width`` is that of weights which a budget gives none."""
    yield step["method"]["name"]
    yield f"{step.get('density', 1):g}"
    yield str(step.get("bits", width))
    if "change" not in step:
        yield from [""] * 5
    else:
        change = change_of(step)
        yield size(step["stored_bits"])
        yield joules(step["price"]) if energy else count(step["synops"])
        yield points(change.change)
        yield from (points(change.low), points(change.high))
    yield step["verdict"] if "change" in step else "failed"


def lines(account: Account) -> list[str]:
    """What the search found, how sure that is, and what the test says."""
    best, wish = account["path"][account["best"]], account["wish"]
    change, test = change_of(best), change_of({"change": account["test"]})
    tried = number_of(len(account["path"]), "candidate")
    kept = sum(step.get("reused", False) for step in account["path"])
    told = [
        *(f"{number} {step['verdict']}" for number, step in enumerate(account["path"], 1) if "change" not in step),
        f"{tried} tried in {seconds(account['seconds'])}, {kept} of them kept from before",
    ]
    told += [f"held-out training samples: {change}", *decided(change, wish["max_drop"])]
    told.append(f"test samples, asked once: {test}")
    return [*told, "the winner alone:", account["command"]]


def decided(change: PairedChange, most: float | None) -> list[str]:
    """Whether the samples can tell that the winner keeps within the fall."""
    if most is None:
        return []
    allowed = f"{100 * most:g} {'point' if most == 0.01 else 'points'}"
    if change.verdict(most) == "yes":
        return [f"they decide: it loses at most {allowed}"]
    needed = change.samples_to_decide(most)
    more = "" if needed is None else f"; about {needed:,} such samples would"
    return [f"{change.samples:,} samples cannot decide whether it loses at most {allowed}{more}"]


def judged(account: Account) -> str:
    """Which samples judged, in words."""
    unseen, seen = (account["samples"][part] for part in ("unseen", "seen"))
    of_training = f", {seen:,} of which the dense network may have been trained on" if seen else ""
    return f"judged on {unseen + seen:,} held-out training samples{of_training}"


def draw(account: Account, path: Path) -> None:
    """Write the picture: each candidate's price and change, numbered as in the table, with what the wish allows.

    Candidates that were taken are filled. Changes beyond a few points are drawn closer together, so that one hopeless
    candidate does not hide how the others differ.
    """
    wish = account["wish"]
    name, worded = PRICES[wish["minimise"]]
    tried = [(number, step) for number, step in enumerate(account["path"], start=1) if "change" in step]
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for method in dict.fromkeys(step["method"]["name"] for _, step in tried):
        own = [(number, step) for number, step in tried if step["method"]["name"] == method]
        entry = COMPRESSORS.get(method)
        _points(axes, own, method, style(method, entry is not None and entry.load().control))
    best = account["path"][account["best"]]
    place = [best["price"]], [100 * best["change"]["change"]]
    axes.plot(*place, "*", color="black", markersize=16, zorder=3, label=f"winner, {account['best'] + 1}")
    _allowed(axes, wish)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: worded(value))
    axes.xaxis.set_major_locator(LogLocator(2) if wish["minimise"] == "memory" else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yscale("symlog", linthresh=_LINEAR, linscale=2)
    axes.yaxis.set_major_locator(FixedLocator([sign * value for value in (0, 1, 2, 5, 10, 20, 50) for sign in (1, -1)]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    axes.set_xlabel(name)
    axes.set_ylabel("change of accuracy [points]")
    axes.set_title(judged(account), fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, format="png", metadata={"Software": None})


def _allowed(axes: Any, wish: Account) -> None:
    """What may be lost, and what the price may be."""
    grey = {"color": "#505050", "linestyle": "--", "linewidth": 1}
    axes.axhline(0, color="black", linestyle=":", linewidth=1)
    if wish["max_drop"] is not None:
        axes.axhline(-100 * wish["max_drop"], **grey, label="allowed")
    most = {"memory": wish["max_memory_bits"], "synops": wish["max_synops"]}.get(wish["minimise"])
    if most is not None:
        axes.axvline(most, **grey, label="allowed" if wish["max_drop"] is None else None)


def _points(axes: Any, steps: Sequence[tuple[int, Account]], label: str, look: Style) -> None:
    """One method's candidates, each with its number beside it."""
    for number, step in steps:
        change = change_of(step)
        middle, low, high = (100 * value for value in (change.change, change.low, change.high))
        filled = look.colour if step["verdict"] == "ok" else "white"
        drawn = {"color": look.colour, "markerfacecolor": filled, "markersize": 6, "elinewidth": 0.7}
        axes.errorbar([step["price"]], [middle], [[middle - low], [high - middle]], fmt=look.mark, **drawn)
        axes.annotate(str(number), (step["price"], middle), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.plot([], [], look.mark, color=look.colour, label=f"{label} (hollow: not taken)")
