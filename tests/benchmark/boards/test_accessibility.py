"""What axe finds wrong with the pages for people who read by ear, by keyboard, or with other eyes: nothing."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmark.boards.claims import pages
from benchmark.boards.claims.statements import load_claims
from benchmark.boards.claims.verdicts import judged
from benchmark.boards.standings import standings
from tests.benchmark.boards.browser import go, opened, until
from tests.benchmark.factory import make_failed, make_record, make_suite_records

RECORDS = [
    *make_suite_records(seeds=(0, 1)),
    make_record({"name": "sbc", "solver": "fast"}, 0.5, accuracy=0.8),
    make_failed("sbc", 0.01),
]
EVERY_RULE = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which the package brings along."""
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe is not installed: pip install -e .[dev]")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["light", "dark"])
def page(chromium: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Any]:
    page = opened(chromium, tmp_path_factory.mktemp("axe"), RECORDS, color_scheme=request.param)
    yield page
    page.context.close()


def violations(page: Any, axe: str) -> list[str]:
    """A line for each element that breaks a rule: rule, element, and what to mend."""
    page.evaluate(axe)
    found = page.evaluate("options => axe.run(document, options)", EVERY_RULE)["violations"]
    return [f"{rule['id']}: {node['target']}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]


VIEWS = ["front", "table", "methods", "method/sbc", "run", "compare", "add"]


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_breaks_a_rule(page: Any, axe: str, view: str) -> None:
    runs = page.evaluate("rows.filter(row => !row.dense).map(row => row.runs[0][1])")
    chosen = {"run": runs[:1], "compare": runs[:3], "front": []}.get(view)
    go(page, f"#/{'' if view == 'front' else '/'.join([view, *(chosen or [])])}")
    section = {"compare": "run"}.get(view, view.partition("/")[0])
    page.wait_for_selector(f"[data-view={section}]:not([hidden])")
    if view == "table":
        until(page, "byId('plot').data")
        page.locator("#choose-columns summary").click()
    assert violations(page, axe) == []


def test_the_claims_page_breaks_no_rule(chromium: Any, axe: str, tmp_path: Path) -> None:
    (tmp_path / "claims.html").write_text(pages.html(judged(load_claims(), standings(RECORDS))), encoding="utf-8")
    for scheme in ("light", "dark"):
        context = chromium.new_context(offline=True, color_scheme=scheme)
        page = context.new_page()
        page.goto((tmp_path / "claims.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert violations(page, axe) == []
        context.close()


def test_what_is_wrong_is_found(page: Any, axe: str) -> None:
    go(page, "#/add")
    page.wait_for_selector("[data-view=add]:not([hidden])")
    page.evaluate("byId('add-title').style.color = 'var(--shade)'")
    page.evaluate("byId('add-title').append(Object.assign(document.createElement('img'), { src: 'data:,' }))")
    found = {line.partition(":")[0] for line in violations(page, axe)}
    page.evaluate("byId('add-title').style.color = ''; byId('add-title').lastChild.remove()")
    assert found == {"color-contrast", "image-alt"}
