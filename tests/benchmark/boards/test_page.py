"""The page in a real browser."""

import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmark.boards.claims.statements import load_claims
from benchmark.boards.standings import standings
from benchmark.records import NeuronSpikes, SpikeAccount
from tests.benchmark.boards.browser import go, opened, until
from tests.benchmark.factory import make_failed, make_record, make_suite_records

NASTY = "<img src=x onerror=window.pwned=1></script><script>window.pwned=2</script>&\"'"


# in a browser --------------------------------------------------------------------------------------------------------


def column(page: Any, index: int) -> list[str]:
    texts = "cells => cells.map(cell => cell.innerText.trim())"
    return page.eval_on_selector_all(f"#rows tbody td:nth-child({index})", texts)


def methods_of(page: Any) -> list[str]:
    return [re.split(r"\s", text)[0] for text in column(page, 1)]


VARIANTS = [make_record({"name": "sbc", "solver": "fast"}, density, accuracy=0.8) for density in (0.5, 0.1)]


@pytest.fixture(scope="module")
def shared_page(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    records = [
        *make_suite_records(seeds=(0, 1)),
        *VARIANTS,
        *make_suite_records(seeds=(0,), model="mlp"),
        make_failed("sbc", 0.01),
    ]
    page = opened(chromium, tmp_path_factory.mktemp("page"), records)
    yield page
    page.context.close()


@pytest.fixture
def front(shared_page: Any) -> Iterator[Any]:
    """The page as it opens; a test after which it has complaints has failed."""
    go(shared_page, "#/")
    yield shared_page
    assert shared_page.complaints == []


@pytest.fixture
def page(front: Any) -> Any:
    """The first table."""
    front.evaluate("byId('words').value = ''; history.replaceState(null, '', '#/table'); draw()")
    until(front, "byId('plot').data && !document.querySelector('[data-view=table]').hidden")
    return front


def test_the_front_greets_with_a_card_a_network_and_its_links_lead_to_the_tables(front: Any) -> None:
    assert front.locator(".card").count() == 2
    card = front.locator(".card").first
    text = card.inner_text()
    assert "N-MNIST · small CNN · T = 10" in text
    assert "dense: 90.20 ± 0.28 %" in text
    for question in ("within one point, least memory", "a tenth of the weights", "4 bits"):
        assert question in text
    assert "no run yet" in text  # at 4 bits
    assert card.locator("svg path").count() == 21
    card.locator("h2 a").click()
    front.wait_for_selector("[data-view=table]:not([hidden])")
    assert "N-MNIST · small CNN · T = 10 · post-training" in front.inner_text("#table-title")
    assert front.locator("nav [data-page=table][aria-current=page]").count() == 1


def test_networks_and_divisions_are_tabs(page: Any) -> None:
    assert page.locator("#data-tabs a").all_inner_texts() == ["N-MNIST"]
    assert page.locator("#network-tabs a").all_inner_texts() == ["small CNN · T = 10", "MLP · T = 10"]
    page.locator("#network-tabs a", has_text="MLP").press("Enter")
    until(page, "byId('table-title').textContent.includes('MLP')")
    assert page.locator("#network-tabs a[aria-current=page]").inner_text() == "MLP · T = 10"
    assert page.inner_text("#shown") == "21 of 21 rows"


def test_filters_narrow_the_table_and_the_plot(page: Any) -> None:
    traces = "byId('plot').data.map(trace => trace.name)"
    assert len(column(page, 1)) == 21
    assert set(page.evaluate(traces)) == {"Pareto front", "dense", "sbc", "obc", "magnitude", "random"}
    page.fill("#words", "OBC 0.1")
    assert methods_of(page) == ["obc"]
    assert column(page, 2) == ["0.1"]
    assert page.inner_text("#shown") == "1 of 23 rows"
    page.wait_for_timeout(500)  # the plot waits for the end of a word
    assert set(page.evaluate(traces)) == {"Pareto front", "obc"}
    page.fill("#words", "")
    page.uncheck("#controls")
    assert set(methods_of(page)) == {"dense", "sbc", "obc"}
    until(page, "byId('plot').data.length === 4")
    page.check("#front")
    assert set(methods_of(page)) == {"dense", "sbc"}


def test_variants_are_folded_under_their_method_and_drawn_on_demand(page: Any) -> None:
    assert "sbc[fast]" not in column(page, 1)
    fold = page.locator("#rows button.fold").first
    assert fold.inner_text() == "+1"
    fold.press("Enter")
    assert column(page, 1).count("sbc[fast]") == 2
    assert page.locator("#rows button.fold").first.get_attribute("aria-expanded") == "true"
    page.locator("#rows button.fold").first.click()
    assert "sbc[fast]" not in column(page, 1)
    page.check("#variants")
    until(page, "byId('plot').data.some(trace => trace.name === 'sbc[fast]')")
    line, of_method = (
        page.evaluate(f"byId('plot').data.find(trace => trace.name === {name!r}).line.color")
        for name in ("sbc[fast]", "sbc")
    )
    assert line == of_method


def test_what_is_seen_stands_in_the_address_and_comes_back_from_it(page: Any) -> None:
    page.locator("#choose-columns summary").click()
    page.locator("#columns input[value=energy_j]").check()
    page.locator("#columns input[value=interval]").uncheck()
    page.uncheck("#controls")
    page.locator("#rows th", has_text="memory").first.locator("button").click()
    page.fill("#words", "0.1")
    address = page.evaluate("location.href")
    heads = page.locator("#rows th").all_inner_texts()
    assert any("energy" in head for head in heads)
    assert not any("test set" in head for head in heads)
    rows = column(page, 1)
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("html[data-ready=yes]")
    assert page.locator("#rows th").all_inner_texts() == heads
    assert column(page, 1) == rows
    assert page.input_value("#words") == "0.1"


def test_csv_and_json_are_of_what_is_seen(page: Any) -> None:
    page.fill("#words", "sbc 0.1")
    with page.expect_download() as download:
        page.click("#csv")
    (line, variant) = csv.DictReader(io.StringIO(Path(download.value.path()).read_text()))
    assert {line["method"], variant["method"]} == {"sbc", "sbc[fast]"}
    with page.expect_download() as download:
        page.click("#json")
    first, _ = json.loads(Path(download.value.path()).read_text())
    board = standings([*make_suite_records(seeds=(0, 1)), *VARIANTS])
    row = next(row for row in board.tables[0].rows if row.label == "sbc" and row.budget.short == "0.1")
    assert first["accuracy"] == pytest.approx(row.measured["accuracy"].mean)
    assert first["stored_bits"] == row.measured["stored_bits"].mean
    assert first["runs"].split() == [*row.runs.values()]


def test_a_cell_that_begins_as_a_formula_is_text_in_a_spreadsheet(page: Any) -> None:
    cells = page.evaluate("['=1+1', '-2', '@x', 'a,b', -3].map(csvCell)")
    assert cells == ["'=1+1", "'-2", "'@x", '"a,b"', "-3"]


def test_sorted_by_method_those_of_a_family_stand_together(page: Any) -> None:
    page.locator("#rows th", has_text="method").first.locator("button").click()
    families = page.evaluate("sorted(found()).map(row => row.dense ? 'dense' : familyOf(row))")
    assert len(set(families)) > 2
    assert len([here for here, after in pairwise(families) if here != after]) == len(set(families)) - 1


def test_columns_sort_both_ways_by_number_and_say_so(page: Any) -> None:
    head = page.locator("#rows th", has_text="accuracy")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = [float(text.split()[0]) for text in column(page, 4)]
    assert down == sorted(down, reverse=True)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(page, 4)] == sorted(down)
    assert page.locator("#rows th[aria-sort]").count() == 1
    assert page.evaluate("document.activeElement.parentElement.ariaSort") == "ascending"
    page.locator("#rows th", has_text="memory").first.locator("button").click()
    numbers = {"B": 1, "KiB": 1024}
    sizes = [float(text.split()[0]) * numbers[text.split()[1]] for text in column(page, 8)]
    assert sizes == sorted(sizes, reverse=True)


def test_hover_shows_the_numbers_and_axes_can_be_chosen(page: Any) -> None:
    page.locator("#plot").scroll_into_view_if_needed()
    page.locator("#plot .scatterlayer .trace").last.locator(".point").first.hover(force=True)
    hover = page.locator("#plot .hoverlayer")
    hover.locator("text").first.wait_for()
    assert "accuracy" in hover.text_content()
    page.select_option("#x", "energy_j")
    page.select_option("#y", "difference")
    page.uncheck("#log")
    until(page, "byId('plot').layout.xaxis.type === 'linear'")
    titles = page.evaluate("(p => [p.layout.xaxis.title.text, p.layout.yaxis.title.text])(byId('plot'))")
    assert titles == ["energy per sample, estimate [µJ]", "difference to dense [points]"]


def test_the_front_drawn_is_that_of_the_tables(page: Any) -> None:
    page.check("#variants")
    until(page, "byId('plot').data.some(trace => trace.name === 'sbc[fast]')")
    drawn = page.evaluate("(d => d.x.map((x, i) => [x, d.y[i]]))(byId('plot').data[0])")
    board = standings([*make_suite_records(seeds=(0, 1)), *VARIANTS])
    front = sorted(
        (row.measured["synops"].mean, 100 * row.measured["accuracy"].mean)
        for row in board.tables[0].rows
        if "synops" in row.fronts
    )
    assert [tuple(point) for point in drawn] == [pytest.approx(point) for point in front]


def test_a_run_stands_beside_its_dense_network_by_keyboard_alone(page: Any) -> None:
    page.locator("#rows tbody tr").nth(1).locator("td:last-child a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#run:not([hidden])")
    record = page.evaluate("location.href").rsplit("/", 1)[1]
    text = page.inner_text("#run")
    assert record in text
    assert page.inner_text("#run-title") == "sbc at 0.5"
    assert "N-MNIST · small CNN · T = 10" in text
    lines = page.locator("#run tbody tr").all_inner_texts()
    assert [line.split("\t")[:2] for line in lines] == [
        [layer, run] for layer in ("conv1", "fc") for run in ("sbc at 0.5", "dense")
    ]
    assert page.locator("#run td.bar").count() == 4 * 7
    assert "0123abcd" in text  # the git revision
    assert f"snnbench run run-{record}.yaml" in text
    assert page.evaluate("document.activeElement.id") == "run"
    page.get_by_text("Back to the table").click()
    page.wait_for_selector("[data-view=table]:not([hidden])")


def test_runs_are_compared_side_by_side(page: Any) -> None:
    boxes = page.locator("#rows input[type=checkbox]")
    assert page.locator("#compare-link").is_hidden()
    boxes.nth(1).check()
    boxes.nth(2).check()
    boxes.nth(5).check()
    assert page.inner_text("#compare-link") == "Compare 3 runs"
    page.click("#compare-link")
    page.wait_for_selector("#run:not([hidden])")
    facts = page.locator("#run table").first
    heads = facts.locator("thead th").all_inner_texts()
    assert [head.partition(" (")[0] for head in heads] == [
        "what differs",
        "sbc at 0.5",
        "obc at 0.5",
        "sbc at 0.2",
        "dense",
    ]
    lines = [line.split("\t") for line in facts.locator("tbody tr").all_inner_texts()]
    assert lines[0][0] == "accuracy"
    assert all(len(set(texts)) > 1 for _, *texts in lines)
    same = page.locator("#run details dt").all_text_contents()
    assert "dense checkpoint (SHA-256)" in same
    assert not {name for name, *_ in lines} & set(same)
    layers = page.locator("#run table").nth(1)
    assert layers.locator("tbody tr").count() == 2 * 4  # the dense network's beside those of the three
    bars = layers.locator("tbody tr").first.locator("td.bar").all_inner_texts()
    shares = [cell for cell in bars if cell.endswith("%")]
    assert len(shares) == 2  # of the weights, and of the energy


def test_methods_have_pages_by_family(front: Any) -> None:
    front.click("nav [data-page=methods]")
    front.wait_for_selector("[data-view=methods]:not([hidden])")
    assert front.locator("[data-view=methods] h2").all_inner_texts() == ["magnitude", "second order"]
    front.locator("#methods-body a", has_text="sbc").click()
    front.wait_for_selector("[data-view=method]:not([hidden])")
    text = front.inner_text("[data-view=method]")
    assert "Spiking Brain Compression" in text
    assert "N-MNIST · MLP · T = 10 · post-training" in text
    assert "sbc[fast]" in text
    claims = [claim for claim in load_claims() if claim.method == "sbc"]
    assert front.locator("[data-view=method] .verdict").count() == len(claims)
    assert all(claim.says in text for claim in claims)
    addresses = front.eval_on_selector_all(
        "[data-view=method] li .verdict + a", "found => found.map(a => a.getAttribute('href'))"
    )
    assert addresses == [f"claims.html#{claim.id}" for claim in claims]


def test_summaries_and_failures_are_shown(page: Any) -> None:
    summary = page.inner_text("#summary-tables")
    assert "sbc" in summary
    assert "arXiv:2506.03996" in summary
    go(page, "#/")
    page.locator("#apart summary").click()
    assert "ValueError: broken" in page.inner_text("#apart")


def test_addresses_of_nothing_are_answered(front: Any) -> None:
    for address, said in {"#/run/000": "No run 000", "#/method/<b>": "No method <b>"}.items():
        go(front, address)
        until(front, f"document.body.innerText.includes({said!r})")
    go(front, "#/nowhere")
    front.wait_for_selector("[data-view=front]:not([hidden])")
    go(front, "#/table/nothing")
    front.wait_for_selector("[data-view=table]:not([hidden])")
    assert "no table nothing" in front.inner_text("[role=alert]")
    go(front, "#/table")
    until(front, "!document.querySelector('[role=alert]:not([hidden])')")


@pytest.mark.parametrize("single", [False, True], ids=["folder", "single file"])
def test_names_are_text_and_never_markup(chromium: Any, tmp_path: Path, single: bool) -> None:
    records = [
        make_record(),
        make_record({"name": "sbc", "note": NASTY}, 0.1, environment={NASTY: NASTY}),
        make_failed("obc", 0.1, error=NASTY),
    ]
    page = opened(chromium, tmp_path, records, single)
    assert NASTY in page.text_content("#apart")
    go(page, "#/table")
    until(page, "byId('plot').data && byId('plot').data.length > 2")
    assert any(NASTY in text for text in column(page, 1))
    page.locator("#plot .scatterlayer .trace").last.locator(".point").first.hover(force=True)
    page.locator("#plot .hoverlayer text").first.wait_for()
    page.locator("#rows tbody tr").nth(1).locator("td:last-child a").first.click()
    page.wait_for_selector("#run:not([hidden])")
    assert NASTY in page.inner_text("#run")
    go(page, "#/method/sbc")
    page.wait_for_selector("[data-view=method]:not([hidden])")
    assert NASTY in page.text_content("[data-view=method]")
    assert page.locator("img").count() == 0
    assert page.evaluate("window.pwned") is None
    assert page.complaints == []
    page.context.close()


def test_a_missing_part_is_named(chromium: Any, tmp_path: Path) -> None:
    page = opened(chromium, tmp_path, make_suite_records(seeds=(0,)))
    (tmp_path / "leaderboard" / "runs.js").unlink()
    page.evaluate("location.hash = '#/run/' + rows[0].runs[0][1]")
    until(page, "document.body.innerText.includes('leaderboard/runs.js is missing')")
    page.context.close()


def test_no_request_leaves_the_page(page: Any) -> None:
    blocked = page.evaluate("fetch('https://example.org').then(() => 'loaded', () => 'blocked')")
    assert blocked == "blocked"
    assert any("Content Security Policy" in text for text in page.complaints)
    page.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colour_scheme(chromium: Any, tmp_path: Path, scheme: str) -> None:
    page = opened(chromium, tmp_path, make_suite_records(seeds=(0,)), viewport={"width": 360, "height": 740},
                  is_mobile=True, has_touch=True, color_scheme=scheme)  # fmt: skip
    for view in ("", "table", "methods", "method/sbc", "add"):
        go(page, f"#/{view}")
        page.wait_for_selector(f"[data-view={view.partition('/')[0] or 'front'}]:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
    go(page, "#/table")
    until(page, "byId('plot').layout")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.evaluate("byId('plot').layout.font.color") == {"light": "#1b1f24", "dark": "#e6eaf0"}[scheme]
    assert page.complaints == []
    page.context.close()


def test_a_run_shows_what_became_of_its_spikes(chromium: Any, tmp_path: Path) -> None:
    layer = {"name": "network.2", "neurons": 9248, "dead": 5000, "saturated": 3, "earth_mover": 0.125,
             "mismatch": 0.25, "van_rossum": None, "lowest_potential": -4.5, "highest_potential": 3.5}  # fmt: skip
    spikes = SpikeAccount(samples=18, layers=(NeuronSpikes(**layer),))
    compressed = make_record("sbc", 0.1, spikes=spikes)
    page = opened(chromium, tmp_path, [make_record(), compressed])
    go(page, f"#/run/{compressed.id}")
    page.wait_for_selector("text=Spikes beside the dense network's, on 18 test samples")
    cells = page.locator("#run-body table").last.locator("tbody td, tbody th").all_inner_texts()
    assert cells[0] == "network.2"
    assert cells[-7:] == ["9.25 k", "25.00 %", "–", "0.125", "5 k", "3", "-4.5 to 3.5"]
    assert page.complaints == []
