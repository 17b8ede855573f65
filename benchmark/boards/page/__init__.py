"""The leaderboard as one HTML page that needs nothing else: no network, no server, no file beside it."""

import base64
import gzip
import json
from functools import cache
from importlib.resources import files
from string import Template

from benchmark.boards.page.content import content
from benchmark.boards.standings import Board


def render(board: Board) -> str:
    """The page of a board.

    Names from records reach the page as data and are shown as text, never as markup; the page's own policy keeps it
    from loading anything. Data and the plotting library travel compressed.
    """
    here = files("benchmark.boards.page")
    template = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        script=here.joinpath("page.js").read_text(encoding="utf-8"),
        content=_packed(json.dumps(content(board), separators=(",", ":"), allow_nan=False).encode()),
        plotly=_plotly(),
    )


@cache
def _plotly() -> str:
    return _packed(files("plotly").joinpath("package_data", "plotly.min.js").read_bytes())


def _packed(data: bytes) -> str:
    """Compressed and in letters; the same bytes for the same data."""
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")
