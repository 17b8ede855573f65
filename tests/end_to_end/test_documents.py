"""What README, CONTRIBUTING and the pages of docs/ tell people to do works, and what they show is so."""

import importlib.util
import json
import re
import sys
from statistics import mean

import pytest

from tests.end_to_end import pages
from tests.end_to_end.conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "docs" / "hooks"))
import figures

# Pages whose blocks take a while.
TRAINING = (
    "README.md",
    "docs/index.md",
    "docs/compress.md",
    "docs/extend.md",
    "docs/whole_numbers.md",
    "docs/write.md",
)


def blocks(document: str, language: str) -> list[str]:
    return [block.text for block in pages.blocks(document) if block.language == language]


@pytest.fixture
def folder(tmp_path, monkeypatch, environment):
    """An empty folder to be in, which Python imports from, as the command line does."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in {path.stem for path in tmp_path.glob("*.py")} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in TRAINING else page for page in pages.PAGES]
)
def test_blocks_of_a_page_run_and_show_what_there_is(page, folder):
    pages.run(page)


def test_a_page_that_shows_another_figure_is_found():
    pages.compare("accuracy 52.3 %\n", "accuracy 52.4 %\n", tolerance=0.01)
    for shown in ("accuracy 52.3 %\n", "precision 52.4 %\n", "accuracy 52.4 %\nmore\n", ""):
        with pytest.raises(AssertionError, match="the page"):
            pages.compare(shown, "accuracy 52.4 %\n", tolerance=0.0)


def test_lines_that_a_page_leaves_out_are_marked():
    pages.compare("a 1\n…\nc 3\n", "a 1\nb 2\nc 3\n", tolerance=0.0)
    with pytest.raises(AssertionError, match="leaves out"):
        pages.compare("a 1\n", "a 1\nb 2\n", tolerance=0.0)


def test_table_of_the_readme_has_the_rows_of_the_demo():
    from benchmark.catalog import suite_path
    from benchmark.questions.build import questions_of
    from benchmark.questions.suite import load_suite

    (table,) = blocks("README.md", "text")
    shown = re.findall(r"^ +(?:([\d.]+) +)?([a-z]+(?:\[\w+\])?)(?: \(c\))? +\d", table, re.MULTILINE)
    asked = [(q.budget.density, q.compressor.label) for q in questions_of(load_suite(suite_path("demo")))]
    rows = [("" if density == 1 else f"{density:g}", label.replace("identity", "dense")) for density, label in asked]
    assert sorted(shown) == sorted(rows)


def test_compressor_of_the_guide_meets_its_budget():
    from tests.compressors.networks import fit

    namespace: dict = {}
    exec(compile(blocks("CONTRIBUTING.md", "python")[0], "CONTRIBUTING.md", "exec"), namespace)
    compressor = namespace["FanOutMagnitude"](0.3)
    fit(compressor)
    assert compressor.compression.density == pytest.approx(0.3, abs=0.01)


def test_the_guide_and_the_page_write_the_same_compressor():
    (short,), long = blocks("CONTRIBUTING.md", "python"), blocks("docs/write.md", "python")[0]
    assert short.partition("class ")[2] == long.partition("class ")[2]


def test_places_that_the_guide_names_exist():
    table = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("## Where things are")[2].partition("##")[0]
    places = re.findall(r"`([\w./]+(?:/|\.\w+))`", table)
    assert len(places) > 15
    assert [place for place in places if not (REPOSITORY / place).exists()] == []


def test_every_method_has_its_options_and_results_on_a_page():
    from compressors.registry import COMPRESSORS

    text = "\n".join(path.read_text() for path in (REPOSITORY / "docs" / "methods").glob("*.md"))
    own = [name for name, entry in COMPRESSORS.items() if entry.origin == "snnbench"]
    assert [name for name in own if f"<!-- options {name} -->" not in text] == []
    assert [name for name in own if name != "identity" and f"<!-- results {name}" not in text] == []


@pytest.mark.parametrize(
    "name", ["obc", "qpsnn", "slamp", "wanda", "ria", "lottery", "lsq", "dst", "gradr", "stds", "upf"]
)
def test_every_option_of_a_method_is_explained(name):
    rows = [line.split(" | ") for line in figures.options(name).splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


def test_results_of_a_method_come_from_the_records():
    table = next(t for t in figures.board().tables if t.setup.model.startswith("vgg9") and t.division != "fine-tuned")
    row = next(row for row in table.rows if row.method == "sbc")
    assert f"{100 * row.measured['accuracy'].mean:.1f}" in figures.results("sbc", "obc")


def test_a_part_that_nobody_makes_is_an_error():
    with pytest.raises(KeyError, match="weather"):
        figures.filled("<!-- weather tomorrow -->")


def test_the_picture_on_mimics_page_is_of_committed_records_that_end_no_further_away(tmp_path):
    specification = importlib.util.spec_from_file_location("distances", REPOSITORY / "docs" / "distances.py")
    distances = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(distances)
    rounds = distances.last_rounds(REPOSITORY / "results")
    assert len(rounds) >= 3
    for found in rounds:
        before, after = (found[name]["output"] + mean(found[name]["spikes"]) for name in ("before", "after"))
        assert after <= before
    distances.draw(rounds, tmp_path / "mimic.svg")
    assert b"van Rossum" in (tmp_path / "mimic.svg").read_bytes()


def test_the_table_of_widths_has_the_kept_figures():
    """Each cell of the page's first table is the accuracy in the file of its column."""
    page = (REPOSITORY / "docs" / "whole_numbers.md").read_text()
    table = page.partition("## On real recordings")[2].partition("Of the spikes")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line][2:]
    names = ("nir", "nir-sbc", "conv", "conv-sbc", "mlp", "mlp-sbc")
    kept = [json.loads((REPOSITORY / "results" / "whole_numbers" / f"{name}.json").read_text()) for name in names]
    shown = {(width, potential): cells for width, potential, *cells in lines}
    assert shown["float", "float"] == [f"{100 * account['floats']['accuracy']:.1f}" for account in kept]
    assert len(shown) == 1 + len(kept[0]["rows"])
    for rows in zip(*(account["rows"] for account in kept), strict=True):
        key = str(rows[0]["weight_bits"]), str(rows[0]["potential_bits"] or "float")
        assert shown[key] == [f"{100 * row['accuracy']:.1f}" for row in rows]
