"""The page of some records in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.boards.claims.statements import load_claims
from benchmark.boards.claims.verdicts import judged
from benchmark.boards.page import render, render_folder
from benchmark.boards.standings import standings


def opened(chromium: Any, tmp_path: Path, records: list, single: bool = False, **settings: Any) -> Any:
    """The page of these records in a fresh context without network; complaints are gathered in ``page.complaints``."""
    board = standings(records)
    claims = judged(load_claims(), board)
    page = {"leaderboard.html": render(board, claims)} if single else render_folder(board, claims)
    for name, text in page.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return visited(chromium, tmp_path / "leaderboard.html", **settings)


def visited(chromium: Any, file: Path, **settings: Any) -> Any:
    """A page that is there as a file, opened as :func:`opened` does."""
    context = chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **settings})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.complaints.append(request.url) if "file:" not in request.url else None)
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    return page


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true; the driver's own way of waiting is what the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(f"Boolean({expression})"):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def go(page: Any, place: str) -> None:
    """To a view of the page, and wait until it is there."""
    page.evaluate(f"location.hash = {json.dumps(place)}; draw()")
