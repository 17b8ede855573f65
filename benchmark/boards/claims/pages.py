"""Claims for people: as Markdown, as a page of the site, in the terminal; and for programs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape as unmarked
from rich.table import Table as RichTable

from benchmark.boards.claims.statements import ADDED, GAIN
from benchmark.boards.claims.verdicts import RULE, Judged, Measurement, Side
from benchmark.boards.columns import with_spread
from benchmark.boards.markdown import cell, line
from benchmark.boards.measures import MEASURES
from benchmark.wording import count, joules, percent, points, rounded, seconds, size

TITLE = "Claims"
ABOUT = (
    "What papers, their code and their readers say of the methods here, and what the committed records say to it. "
    "Reported figures are the papers' own; whatever stands in a table was measured here."
)
UNJUDGED = "no verdict"
VERDICTS = ("met", "met in part", "not met", "not testable here", UNJUDGED)

_FORMS: dict[str, Callable[[float], str]] = {
    "accuracy": percent,
    "synops": count,
    "synops_ac": count,
    "synops_mac": count,
    "weight_bits": size,
    "stored_bits": size,
    "total_bits": size,
    "energy_j": joules,
    "compression_seconds": seconds,
    "fit_seconds": seconds,
}
_NAMES = {
    "accuracy": "accuracy [%]",
    "synops": "operations",
    "weight_bits": "nonzero weights",
    "stored_bits": "memory",
    "total_bits": "memory and state",
    "energy_j": "energy (estimate)",
    "compression_seconds": "time to compress",
    "fit_seconds": "time, training included",
    "timesteps": "time steps",
}

COLUMNS: dict[str, Callable[[Measurement], str]] = {
    "outcome": lambda found: found.outcome,
    "comes out at": lambda found: _with_ends(found),
    "claimed": lambda found: _claimed(found),
    "compared": lambda found: _NAMES.get(found.measure, found.measure),
    "of": lambda found: _named(found.of),
    "measured": lambda found: _measured(found, found.of),
    "against": lambda found: _named(found.against),
    "its measure": lambda found: _measured(found, found.against),
    "data": lambda found: found.data,
    "network": lambda found: found.model,
    "seeds": lambda found: str(len(found.seeds)),
    "test samples": lambda found: f"{found.samples:,}",
}
"""Heading -> the cell of a measurement."""


def to_dict(judged: Iterable[Judged]) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers."""
    return {
        "rule": list(RULE),
        "measures": {**MEASURES, **ADDED},
        "claims": [
            {
                **claim.claim.model_dump(exclude={"tests"}),
                "verdict": claim.verdict,
                "reason": claim.reason,
                "measured": [asdict(found) for found in claim.measured],
            }
            for claim in judged
        ],
    }


def markdown(judged: Sequence[Judged]) -> str:
    """The rule, how many claims have which verdict, and each claim with what was measured, by method."""
    lines = [f"# {TITLE}", "", ABOUT, "", "## The rule", ""]
    lines += [f"{number}. {cell(text)}" for number, text in enumerate(RULE, 1)]
    lines += ["", *(f"- {verdict}: {number}" for verdict, number in counted(judged).items()), ""]
    for method, group in _by_method(judged):
        lines += [f"## {cell(method)}", ""]
        for found in group:
            lines += [*_claim(found), ""]
    return "\n".join(lines)


def html(judged: Sequence[Judged]) -> str:
    """The same as a page that needs nothing else; every text is shown as text."""
    here, look = files("benchmark.boards.claims"), files("benchmark.boards.page")
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        style=look.joinpath("page.css").read_text(encoding="utf-8") + here.joinpath("page.css").read_text("utf-8"),
        title=TITLE,
        about=escape(ABOUT),
        rule="\n".join(f"<li>{escape(text)}</li>" for text in RULE),
        counts="".join(f"<dt>{_badge(verdict)}</dt><dd>{number}</dd>" for verdict, number in counted(judged).items()),
        methods=" ".join(f'<a href="#of-{_anchor(name)}">{escape(name)}</a>' for name, _ in _by_method(judged)),
        claims="\n".join(_section(method, group) for method, group in _by_method(judged)),
    )


def terminal(judged: Sequence[Judged]) -> RenderableType:
    """A line a claim, and how many have which verdict."""
    shown = RichTable(box=None, padding=(0, 1, 0, 0), show_edge=False)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("method", no_wrap=True)
    shown.add_column("claim")
    for found in judged:
        shown.add_row(found.verdict or UNJUDGED, unmarked(found.claim.method), unmarked(found.claim.says))
    return Group(shown, "", ", ".join(f"{verdict}: {number}" for verdict, number in counted(judged).items()))


def counted(judged: Iterable[Judged]) -> dict[str, int]:
    """Verdict -> how many claims have it."""
    found = [claim.verdict or UNJUDGED for claim in judged]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def _by_method(judged: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    """The claims by method, methods in the order of their first claim."""
    order = list(dict.fromkeys(found.claim.method for found in judged))
    ranked = sorted(judged, key=lambda found: order.index(found.claim.method))
    return [(method, [*group]) for method, group in groupby(ranked, key=lambda found: found.claim.method)]


def _facts(found: Judged) -> dict[str, str]:
    """What is said of a claim beside its measurements; empty ones are left out."""
    claim = found.claim
    facts = {"who": claim.source, "reported": claim.figure, "differs": claim.differs, "reason": found.reason}
    return {name: text for name, text in facts.items() if text}


def _claim(found: Judged) -> list[str]:
    lines = [f"### {cell(found.claim.says)}", "", f"**{found.verdict or UNJUDGED}**", ""]
    lines += [f"- {name}: {cell(text)}" for name, text in _facts(found).items()]
    if found.measured:
        rows = [line([cell(show(one)) for show in COLUMNS.values()]) for one in found.measured]
        lines += ["", line([*COLUMNS]), line([":---"] * len(COLUMNS)), *rows]
    return lines


def _section(method: str, group: Sequence[Judged]) -> str:
    claims = "\n".join(_article(found) for found in group)
    anchor = _anchor(method)
    return f'<section aria-labelledby="of-{anchor}"><h2 id="of-{anchor}">{escape(method)}</h2>\n{claims}\n</section>'


def _article(found: Judged) -> str:
    facts = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in _facts(found).items())
    head = f'<h3 id="{found.claim.id}">{escape(found.claim.says)}</h3>\n<p>{_badge(found.verdict or UNJUDGED)}</p>'
    return f'<article class="claim">{head}\n<dl>{facts}</dl>\n{_table(found.measured)}</article>'


def _table(measured: Sequence[Measurement]) -> str:
    if not measured:
        return ""
    heads = "".join(f'<th scope="col" class="text">{name}</th>' for name in COLUMNS)
    rows = "".join(f"<tr>{_cells(found)}</tr>" for found in measured)
    label = f"{len(measured)} comparison{'s' if len(measured) > 1 else ''} measured here"
    return (
        f'<details><summary>{label}</summary><div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _cells(found: Measurement) -> str:
    return "".join(f'<td class="text">{escape(show(found))}</td>' for show in COLUMNS.values())


def _badge(verdict: str) -> str:
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def _anchor(method: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in method.lower()).split())


def _named(side: Side) -> str:
    asked = [side.budget, side.division, f"{side.calibration_samples} samples" if side.calibration_samples else ""]
    said = ", ".join(filter(None, asked))
    return f"{side.method} ({said})" if said else side.method


def _measured(found: Measurement, side: Side) -> str:
    if found.measure == GAIN:
        return with_spread(side.spread, percent)
    form, spread = _FORMS.get(found.measure, rounded), side.spread
    return form(spread.mean) if spread.std is None else f"{form(spread.mean)} ± {form(spread.std)}"


def _with_ends(found: Measurement) -> str:
    form = points if found.measure == GAIN else rounded
    ends = "" if found.low is None or found.high is None else f" [{form(found.low)}, {form(found.high)}]"
    return f"{form(found.value)}{ends} points" if found.measure == GAIN else f"{form(found.value)}{ends} times less"


def _claimed(found: Measurement) -> str:
    gain = found.measure == GAIN
    form, unit, none = (points, "points", 0.0) if gain else (rounded, "times less", 1.0)
    lesser = "" if found.in_part in (none, found.at_least) else f", in part above {form(found.in_part)}"
    if found.at_least == none:
        return "better" if gain else "less"
    return f"{form(found.at_least)} {unit}{lesser}"
