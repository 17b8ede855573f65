"""One look for every picture and page: a colour for each method, a mark for each family, the same everywhere.

Colours are Okabe and Ito's, which the colour-blind can tell apart; marks tell families apart in grey as well. Controls
are grey.
"""

import zlib
from dataclasses import dataclass

FAMILIES = {
    "second order": ("sbc", "obc", "mimic"),
    "magnitude": ("lamp", "slamp", "lottery", "magnitude", "random"),
    "activations": ("wanda", "ria"),
    "quantisation": ("lsq", "rtn"),
    "structure": ("spatiotemporal", "qpsnn"),
    "trained sparse": ("dst", "gradr", "stds", "upf"),
}
"""Methods that work alike, by what they look at or take away; those of others are of the family ``OTHER``."""

OTHER = "other"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#707070", "#909090", "#a8a8a8", "#505050")

MARKS = {
    "second order": ("o", "circle", "●"),
    "magnitude": ("s", "square", "■"),
    "activations": ("D", "diamond", "◆"),
    "quantisation": ("^", "triangle-up", "▲"),
    "structure": ("P", "cross", "✚"),
    "trained sparse": ("v", "triangle-down", "▼"),
    OTHER: ("X", "x", "✖"),
}
"""Family -> the name of its mark in matplotlib and in plotly, and the mark itself, for terminals."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn.

    Args:
        family: what it is one of.
        colour: of its curve, as ``#rrggbb``.
        mark: of its points, in matplotlib's words.
        symbol: the same in plotly's.
        glyph: the same as a character.
    """

    family: str
    colour: str
    mark: str
    symbol: str
    glyph: str


def style(method: str, control: bool = False) -> Style:
    """The look of a method by its plain name, the same in every table; a variant looks as its method does."""
    family = next((name for name, methods in FAMILIES.items() if method in methods), OTHER)
    place = FAMILIES[family].index(method) if family != OTHER else zlib.crc32(method.encode())
    first = [*MARKS].index(family)
    colours = GREYS if control else COLOURS
    return Style(family, colours[(first + place) % len(colours)], *MARKS[family])
