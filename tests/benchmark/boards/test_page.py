"""The HTML page: its content in Python, and its behaviour in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.boards.columns import COLUMNS, summary_cells
from benchmark.boards.page import render
from benchmark.boards.page.content import command, content
from benchmark.boards.standings import standings
from benchmark.questions.suite import FineTuning, Suite, Training, load_suite
from benchmark.wording import count
from tests.benchmark.factory import make_failed, make_record, make_suite_records

NASTY = "<img src=x onerror=window.pwned=1></script><script>window.pwned=2</script>&\"'"


def test_content_has_every_row_and_every_run_once() -> None:
    board = standings([*make_suite_records(seeds=(0, 1)), make_failed("sbc", 0.01)])
    shown = content(board)
    assert len(shown["tables"][0]["rows"]) == len(board.tables[0].rows) == 21
    runs = {run for row in shown["tables"][0]["rows"] for _, run in row["runs"]}
    assert runs == set(shown["runs"])
    assert len(runs) == 42
    assert len(shown["environments"]) == 1
    assert [item["reason"] for item in shown["apart"]] == ["failed: ValueError: broken"]
    assert shown["tables"][0]["reported"]  # what papers say of N-MNIST


def test_numbers_of_the_page_are_worded_as_those_of_the_other_tables() -> None:
    board = standings(make_suite_records(seeds=(0, 1)))
    (table,) = content(board)["tables"]
    columns = {"accuracy": "accuracy", "synops_ac": "AC", "stored_bits": "memory", "energy_j": "energy", "bits": "bits"}
    for row, shown in zip(board.tables[0].rows, table["rows"], strict=True):
        for measure, heading in columns.items():
            mean, _, words = shown["measured"][measure]
            assert mean == pytest.approx(row.measured[measure].mean)
            assert words == COLUMNS[heading](row)
    assert table["summary"]["rows"] == summary_cells(board.tables[0])


def test_layers_of_a_run_are_worded_and_their_longest_bars_are_full() -> None:
    record = make_record("sbc", 0.1)
    report = record.answer.cost
    layers = content(standings([record]))["runs"][record.id]["layers"]
    cells = [dict(zip(layers["heads"], row, strict=True)) for row in layers["rows"]]
    for layer, cell in zip(report.layers, cells, strict=True):
        assert cell["layer"] == layer.name
        assert cell["AC"] == count(layer.ac / report.samples)
        assert cell["kept"] == f"{100 * layer.nonzero / layer.weights:.2f} %"
    assert {max(bars) for head, bars in layers["bars"].items() if head != "MAC"} == {100}


@pytest.mark.parametrize(
    "record",
    [
        make_record("sbc", 0.1, seed=7),
        make_record(),
        make_record({"name": "magnitude", "allocation": "global"}, 0.05, model={"name": "conv", "width": 8}),
        make_record("sbc", 0.1, training=Training(learning_rate=1e-5, weight_decay=1e-12)),
        make_record({"name": "x", "note": "no", "level": "1e5", "list": [1, 2.5e-7]}, 0.1, suite="my-suite.2"),
        make_record("rtn", asked={"bits": 3, "aftercare": ("batchnorm", "means")}),
        make_record("sbc", 0.25, asked={"bits": 4, "finetuning": FineTuning(epochs=2, learning_rate=1e-4)}),
        make_record("obc", asked={"synops": 0.3}),
    ],
    ids=["plain", "dense", "options", "small numbers", "tricky YAML", "bits", "joint", "synops"],
)
def test_the_command_asks_the_very_same_question(tmp_path: Path, record: Any) -> None:
    lines = command(record).splitlines()
    start, end = lines[0], lines[-1]
    name = f"run-{record.id}"
    assert start == f"cat > {name}.yaml <<'{name}'"
    assert end == f"snnbench run {name}.yaml --results {name}"
    body = lines[1 : lines.index(name)]
    path = tmp_path / "one.yaml"
    path.write_text("\n".join(body))
    asked = record.question
    kinds = ("none",) if asked.compressor.name == "identity" else ("density", "bits", "density+bits", "synops")
    (question,) = load_suite(path).questions({asked.compressor.name: kinds})
    assert question == asked
    assert question.id(record.data["fingerprint"], record.version) == record.id


def test_the_command_is_a_suite_on_its_own() -> None:
    text = command(make_record("sbc", 0.1))
    body = text.split("\n", 1)[1].rsplit("\n", 2)[0]
    assert Suite.model_validate(yaml.safe_load(body)).densities == (0.1,)


def test_the_page_is_one_file_of_fixed_bytes_and_names_are_not_in_its_markup() -> None:
    board = standings([make_record({"name": "sbc", "note": NASTY}, 0.1), make_failed("obc", 0.1, error=NASTY)])
    page = render(board)
    assert page == render(board)
    assert "pwned" not in page
    assert "http://" not in page
    assert "https://" not in page


# in a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine: install chromium to test the page")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(chromium: Any, tmp_path: Path, records: list, **settings: Any) -> Any:
    """The page of these records in a fresh context without network; complaints are gathered in ``page.complaints``."""
    path = tmp_path / "leaderboard.html"
    path.write_text(render(standings(records)), encoding="utf-8")
    context = chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **settings})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.complaints.append(request.url) if "file:" not in request.url else None)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    return page


def column(page: Any, index: int) -> list[str]:
    return page.eval_on_selector_all(f"#rows tbody td:nth-child({index})", "cells => cells.map(cell => cell.innerText)")


@pytest.fixture(scope="module")
def shared_page(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    records = [
        *make_suite_records(seeds=(0, 1)),
        *make_suite_records(seeds=(0,), model="mlp"),
        make_failed("sbc", 0.01),
    ]
    page = opened(chromium, tmp_path_factory.mktemp("page"), records)
    yield page
    page.context.close()


@pytest.fixture
def page(shared_page: Any) -> Iterator[Any]:
    """The page as it is after opening; a test after which it has complaints has failed."""
    shared_page.evaluate(
        "document.querySelectorAll('form').forEach(form => form.reset()); location.hash = ''; update()"
    )
    yield shared_page
    assert shared_page.complaints == []


def test_filters_narrow_the_table_and_the_plot(page: Any) -> None:
    traces = "document.getElementById('plot').data.map(trace => trace.name)"
    assert len(column(page, 1)) == 21
    assert set(page.evaluate(traces)) == {"Pareto front", "dense", "sbc", "obc", "magnitude", "random"}
    page.fill("#words", "SBC 0.1")
    assert column(page, 1) == ["sbc"]
    assert column(page, 2) == ["0.1"]
    assert page.inner_text("#shown") == "1 of 42 rows"
    page.wait_for_timeout(500)  # the plot waits for the end of a word
    assert set(page.evaluate(traces)) == {"Pareto front", "sbc"}
    page.fill("#words", "")
    page.uncheck("#controls")
    assert set(column(page, 1)) == {"dense (c)", "sbc", "obc"}
    assert set(page.evaluate(traces)) == {"Pareto front", "dense", "sbc", "obc"}
    page.check("#front")
    assert set(column(page, 1)) == {"dense (c)", "sbc"}
    page.select_option("#table", "all")
    assert page.inner_text("#shown") == "12 of 42 rows"


def test_columns_sort_both_ways_by_number_and_say_so(page: Any) -> None:
    head = page.locator("#rows th", has_text="accuracy")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = [float(text.split()[0]) for text in column(page, 3)]
    assert down == sorted(down, reverse=True)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(page, 3)] == sorted(down)
    assert page.locator("#rows th[aria-sort]").count() == 1
    page.locator("#rows th", has_text="memory").first.locator("button").click()
    numbers = {"B": 1, "KiB": 1024}
    sizes = [float(text.split()[0]) * numbers[text.split()[1]] for text in column(page, 11)]
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
    titles = page.evaluate("(p => [p.layout.xaxis.title.text, p.layout.yaxis.title.text, p.layout.xaxis.type])(plot)")
    assert titles == ["energy per sample, estimate [µJ]", "difference to dense [points]", "linear"]


def test_the_front_drawn_is_that_of_the_tables(page: Any) -> None:
    drawn = page.evaluate("plot.data[0].x.map((x, i) => [x, plot.data[0].y[i]])")
    board = standings(make_suite_records(seeds=(0, 1)))
    front = sorted(
        (row.measured["synops"].mean, 100 * row.measured["accuracy"].mean)
        for row in board.tables[0].rows
        if "synops" in row.fronts
    )
    assert [tuple(point) for point in drawn] == [pytest.approx(point) for point in front]


def test_a_run_has_layers_provenance_and_its_command_by_keyboard_alone(page: Any) -> None:
    page.locator("#rows tbody tr").nth(1).locator("a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#run:not([hidden])")
    record = page.url.rsplit("/", 1)[1]
    text = page.inner_text("#run")
    assert record in page.inner_text("#run-title")
    assert "conv1" in text
    assert "fc" in text
    assert "0123abcd" in text  # the git revision
    assert f"snnbench run run-{record}.yaml" in text
    assert page.evaluate("document.activeElement.id") == "run"


def test_summaries_and_failures_are_shown(page: Any) -> None:
    summary = page.inner_text("#summary-tables")
    assert "sbc" in summary
    assert "arXiv:2506.03996" in summary
    assert "ValueError: broken" in page.inner_text("#apart")


def test_names_are_text_and_never_markup(chromium: Any, tmp_path: Path) -> None:
    records = [
        make_record(),
        make_record({"name": "sbc", "note": NASTY}, 0.1, environment={NASTY: NASTY}),
        make_failed("obc", 0.1, error=NASTY),
    ]
    page = opened(chromium, tmp_path, records)
    assert any(NASTY in text for text in column(page, 1))
    page.locator("#rows tbody tr").nth(1).locator("a").first.click()
    page.wait_for_selector("#run:not([hidden])")
    assert NASTY in page.inner_text("#run")
    assert NASTY in page.inner_text("#apart")
    page.locator("#plot .scatterlayer .trace").last.locator(".point").first.hover(force=True)
    page.locator("#plot .hoverlayer text").first.wait_for()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.pwned") is None
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
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.evaluate("plot.layout.font.color") == {"light": "#1b1f24", "dark": "#e6eaf0"}[scheme]
    assert page.complaints == []
    page.context.close()
