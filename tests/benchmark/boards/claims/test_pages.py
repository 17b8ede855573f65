"""Claims as people and programs see them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmark.boards.claims import pages
from benchmark.boards.claims.statements import Claim, load_claims
from benchmark.boards.claims.verdicts import RULE, Judged, judged
from benchmark.boards.standings import standings
from benchmark.cli import main
from benchmark.records import RecordStore
from tests.benchmark.boards.test_page import NASTY
from tests.benchmark.factory import make_record, make_suite_records


@pytest.fixture(scope="module")
def found() -> tuple[Judged, ...]:
    return judged(load_claims(), standings(make_suite_records(model="mlp")))


def test_every_claim_stands_on_every_page_with_its_source_and_its_figure(found: Any) -> None:
    html, markdown = pages.html(found), pages.markdown(found)
    for one in found:
        assert f'id="{one.claim.id}"' in html
        assert markdown.count(f"### {pages.cell(one.claim.says)}\n") == 1
        assert pages.cell(one.claim.figure) in markdown
        assert pages.cell(one.claim.where) in markdown
    for text in RULE:
        assert pages.cell(text) in markdown
    numbers = pages.counted(found)
    assert sum(numbers.values()) == len(found)
    for verdict, number in numbers.items():
        assert markdown.count(f"\n**{verdict}**\n") == number


def test_what_was_measured_stands_in_the_table_and_nothing_else_does(found: Any) -> None:
    (one,) = [each for each in found if each.claim.id == "sbc-obc-nmnist-97"]
    rows = [line for line in pages.markdown([one]).splitlines() if "| N-MNIST" in line]
    assert len(rows) == len(one.measured) == 2
    cells = [cell.strip() for cell in rows[1].strip("|").split("|")]
    by_head = dict(zip(pages.COLUMNS, cells, strict=True))
    assert by_head["test samples"] == "100"
    assert by_head["seeds"] == "3"
    assert by_head["claimed"] == "+43.48 points"
    assert by_head["outcome"] == one.measured[1].outcome
    assert by_head["measured"].startswith(f"{100 * one.measured[1].of.spread.mean:.2f} ± ")


def test_without_a_record_there_is_no_table_and_no_verdict() -> None:
    html = pages.html(judged(load_claims(), standings([])))
    assert "<table>" not in html
    assert 'class="verdict met' not in html.split('id="claims"')[1]


def test_texts_are_texts_and_the_page_asks_for_nothing() -> None:
    hostile = Claim.model_validate(
        {"id": "a", "method": NASTY, "says": NASTY, "who": NASTY, "where": NASTY, "read": "note", "figure": NASTY,
         "untestable": NASTY}
    )  # fmt: skip
    compared = {"of": {"method": {"name": "sbc", "note": NASTY}}, "against": {"method": "obc"}, "at_least": 1}
    tested = hostile.model_validate({**hostile.model_dump(exclude={"untestable"}), "id": "b", "tests": [compared]})
    records = [make_record(method, 0.1, 0) for method in ({"name": "sbc", "note": NASTY}, "obc")]
    found = judged([hostile, tested], standings(records))
    assert len(found[1].measured) == 1
    for text in (pages.html(found), pages.markdown(found)):
        assert "<img" not in text
        assert "<script" not in text
        assert "http" not in text.replace("http-equiv", "")


def test_json_has_rule_claims_verdicts_and_records(found: Any) -> None:
    content = json.loads(json.dumps(pages.to_dict(found), allow_nan=False))
    assert len(content["claims"]) == len(found)
    one = next(claim for claim in content["claims"] if claim["measured"])
    assert one["verdict"] in pages.VERDICTS
    assert one["measured"][0]["of"]["runs"]
    assert content["rule"] == list(RULE)


def test_the_terminal_has_a_line_a_claim(found: Any) -> None:
    console = Console(width=200, record=True)
    with console.capture() as captured:
        console.print(pages.terminal(found))
    text = captured.get()
    assert all(one.claim.says in text for one in found)
    assert f"met: {pages.counted(found)['met']}" in text


def test_commands_write_the_pages_and_print_json(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    for record in make_suite_records(seeds=(0, 1), model="mlp"):
        store.save(record)

    def call(*words: str) -> str:
        done = CliRunner().invoke(main, [*words, "--results", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done.output

    content = json.loads(call("claims", "--json", "--no-write"))
    assert content["claims"]
    assert not (tmp_path / "claims.md").exists()
    call("claims")
    written = {name: (tmp_path / name).read_bytes() for name in ("claims.md", "claims.html")}
    call("leaderboard", "--data", "cifar100")  # the tables are of some records, the claims of all
    assert {name: (tmp_path / name).read_bytes() for name in written} == written
    assert 'href="claims.html"' in (tmp_path / "leaderboard.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_and_leads_to_the_leaderboard_and_back(
    chromium: Any,
    tmp_path: Path,
    found: Any,
    width: int,
) -> None:
    (tmp_path / "claims.html").write_text(pages.html(found), encoding="utf-8")
    (tmp_path / "leaderboard.html").write_text('<a href="claims.html">claims</a>', encoding="utf-8")
    context = chromium.new_context(offline=True, viewport={"width": width, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "claims.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("article").count() == len(found)
    page.locator("nav a", has_text="Tables").click()
    page.click("text=claims")
    page.wait_for_url("**/claims.html")
    assert complaints == []
    context.close()
