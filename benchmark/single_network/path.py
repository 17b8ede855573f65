"""The path of a search for people: what was tried as a table and a picture, and what its samples can tell."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmark.boards.styles import Style, style
from benchmark.single_network.paired import PairedChange
from benchmark.wording import count, joules, points, seconds, size
from compressors.registry import COMPRESSORS

Account = Mapping[str, Any]

PRICES = {
    "memory": ("stored weights", lambda value: size(value)),
    "synops": ("SynOps a sample", lambda value: count(value)),
    "energy": ("energy a sample", lambda value: joules(value)),
}
"""What is minimised -> how it is called and worded."""


def change_of(step: Account) -> PairedChange:
    """A step's change on the held-out samples."""
    return PairedChange(*(step["change"][part] for part in ("samples", "gained", "lost")))


def table(account: Account) -> Table:
    """What was tried, in its order; a star marks the winner."""
    title = f"{len(account['path'])} candidates, {judged(account)}"
    shown = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in ("", "method", "density", "bits"):
        shown.add_column(heading, justify="left" if heading == "method" else "right")
    energy = account["wish"]["minimise"] == "energy"
    for heading in ("memory", "SynOps", *(["energy"] if energy else []), "points", "from", "to"):
        shown.add_column(heading, justify="right")
    shown.add_column("verdict")
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
        yield from [""] * (6 if energy else 5)
    else:
        change = change_of(step)
        yield size(step["stored_bits"])
        yield count(step["synops"])
        if energy:
            yield joules(step["price"])
        yield points(change.change)
        yield from (points(change.low), points(change.high))
    yield step["verdict"]


def lines(account: Account) -> list[str]:
    """What the search found, how sure that is, and what the test says."""
    best, wish = account["path"][account["best"]], account["wish"]
    change, test = change_of(best), change_of({"change": account["test"]})
    kept = sum(step.get("reused", False) for step in account["path"])
    told = [
        f"{len(account['path'])} candidates tried in {seconds(account['seconds'])}, {kept} of them kept from before"
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
    """Write the picture: each candidate's price and change with its interval, what is allowed, and the winner."""
    name, worded = PRICES[account["wish"]["minimise"]]
    tried = [step for step in account["path"] if "change" in step]
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(step["method"]["name"] for step in tried))
    for method in methods:
        own = [step for step in tried if step["method"]["name"] == method]
        entry = COMPRESSORS.get(method)
        _points(axes, own, method, style(method, entry is not None and entry.load().control))
    best = account["path"][account["best"]]
    axes.plot(
        [best["price"]], [100 * best["change"]["change"]], "*", color="black", markersize=16, zorder=3, label="winner"
    )
    axes.axhline(0, color="black", linestyle=":", linewidth=1)
    if account["wish"]["max_drop"] is not None:
        axes.axhline(-100 * account["wish"]["max_drop"], color="#505050", linestyle="--", linewidth=1, label="allowed")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: worded(value))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
    axes.set_ylabel("change of accuracy [points]")
    axes.set_title(judged(account), fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _points(axes: Any, steps: Sequence[Account], label: str, look: Style) -> None:
    """One method's candidates, each with its width beside it."""
    changes = [change_of(step) for step in steps]
    x, y = [step["price"] for step in steps], [100 * change.change for change in changes]
    below = [100 * (change.change - change.low) for change in changes]
    above = [100 * (change.high - change.change) for change in changes]
    drawn = {"fmt": look.mark, "color": look.colour, "ecolor": look.colour, "label": label}
    axes.errorbar(x, y, [below, above], elinewidth=0.7, markersize=5, **drawn)
    for step, across, up in zip(steps, x, y, strict=True):
        told = f"{step.get('density', 1):g}" + (f", {step['bits']} b" if "bits" in step else "")
        axes.annotate(told, (across, up), xytext=(4, 4), textcoords="offset points", fontsize=7)
