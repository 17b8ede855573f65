"""The leaderboard as an HTML page that needs no network and no server.

It comes in two forms: a small file with the data and the plotting library beside it, which browsers load when they are
needed and keep, or a single file with all of them inside.
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

from benchmark.boards.claims.verdicts import Judged
from benchmark.boards.markdown import PICTURES
from benchmark.boards.page.content import content
from benchmark.boards.standings import Board

NAME = "leaderboard.html"
SCRIPTS = ("page.js", "front.js", "table.js", "plot.js", "run.js")
DETAILS = ("runs", "environments")
"""Of the content, what is needed once a run is opened."""


def render(board: Board, claims: Sequence[Judged] = ()) -> str:
    """The page of a board as a single file; ``claims`` stand on the pages of their methods.

    Names from records reach the page as data and are shown as text, never as markup; the page's own policy keeps it
    from loading anything. Data and the plotting library travel compressed.
    """
    return _page("".join(f"<script>{script}</script>\n" for script in _parts(board, claims).values()), sources="")


def render_folder(board: Board, claims: Sequence[Judged] = ()) -> dict[str, str]:
    """The page of a board and the files beside it, by their paths: the same page, whose parts are loaded once."""
    parts = {f"{PICTURES}/{name}.js": script for name, script in _parts(board, claims).items()}
    page = _page(f'<script src="{PICTURES}/content.js"></script>\n', sources=" 'self' file:")
    return {NAME: page, **parts}


def _page(parts: str, sources: str) -> str:
    here = files("benchmark.boards.page")
    template = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        script="\n".join(here.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS),
        parts=parts,
        sources=sources,
    )


def _parts(board: Board, claims: Sequence[Judged]) -> dict[str, str]:
    """Name of a part -> the script that hands it to the page."""
    whole = content(board, claims)
    details = {name: whole.pop(name) for name in DETAILS}
    return {"content": _handed("content", _json(whole)), "runs": _handed("runs", _json(details)), "plotly": _plotly()}


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


@cache
def _plotly() -> str:
    return _handed("plotly", files("plotly").joinpath("package_data", "plotly.min.js").read_bytes())


def _handed(name: str, data: bytes) -> str:
    """A script with compressed data, in letters; the same bytes for the same data."""
    letters = base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")
    return f'(window.parts ??= {{}}).{name} = "{letters}";\n'
