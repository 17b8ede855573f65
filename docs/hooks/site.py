"""What happens while the site is built: generated parts are filled in, formulas and the leaderboard are added.

A page asks for a generated part with a comment such as ``<!-- options obc -->``; see :mod:`figures` for what there is.
"""

import re
import sys
from html import unescape
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.append(str(Path(__file__).parent))

import figures

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Fill in what a page asks for."""
    return figures.filled(markdown)


def on_page_content(html: str, **kwargs: Any) -> str:
    """Formulas become MathML, which browsers show without a script."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(unescape(match[2]), display=display)

    return FORMULA.sub(formula, html)


def on_files(files: Files, config: MkDocsConfig, **kwargs: Any) -> Files:
    """Put the leaderboard of the committed records, its data and its pictures beside the pages."""
    folder = Path(mkdtemp(prefix="snnbench-leaderboard-"))
    figures.write_leaderboard(folder)
    for path in sorted(folder.rglob("*.*")):
        if path.suffix != ".md":
            place = f"leaderboard/{path.relative_to(folder)}"
            files.append(File.generated(config, place, content=path.read_bytes()))
    rmtree(folder)
    return files
