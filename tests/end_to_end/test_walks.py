"""Three kinds of new user, each with the page alone: one chooses, one compresses, one contributes.

What a page tells them to do is read off it in a browser, and done.
"""

import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.boards import leaderboard as boards
from benchmark.boards.page import render_folder
from benchmark.questions.build import questions_of
from benchmark.questions.suite import Suite
from benchmark.records import RecordStore
from tests.benchmark.boards.browser import until, visited
from tests.benchmark.boards.conftest import chromium
from tests.end_to_end import pages
from tests.end_to_end.conftest import REPOSITORY, TINY, records

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The page of the committed records."""
    folder = tmp_path_factory.mktemp("site")
    board = boards.build(RecordStore(REPOSITORY / "results"))
    claims = boards.claims(board)
    for name, text in render_folder(board, claims).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "claims.html").write_text(dict(boards.claim_files(claims, folder))[folder / "claims.html"])
    return folder


@pytest.fixture
def page(chromium, site):
    page = visited(chromium, site / "leaderboard.html", viewport={"width": 390, "height": 800}, is_mobile=True)
    yield page
    assert page.complaints == []
    page.context.close()


def lines_to_copy(page) -> list[str]:
    """The commands of the view that is open."""
    blocks = page.locator("main section:not([hidden]) pre").all_inner_texts()
    return [line for text in blocks for line in text.split("\n")]


def to_the_leader_of_a_tenth(page) -> None:
    """From the front to the method that leads the first network at a tenth of the weights."""
    question = page.locator(".card").first.locator("dl.leaders dt", has_text="a tenth of the weights")
    question.locator("xpath=following-sibling::dd[1]").locator("a").click()
    page.wait_for_selector("[data-view=method]:not([hidden])")


def test_one_chooses(page):
    """For a network like mine: which method, at what price, how sure is that, and how do I do it."""
    card = page.locator(".card").first
    network = card.locator("h2").inner_text()
    answer = card.locator("dl.leaders dd").nth(2).inner_text()
    method = answer.split()[0].partition("[")[0]
    assert "%" in answer
    assert "operations" in answer  # the price

    card.locator("h2 a").click()
    until(page, "!document.querySelector('[data-view=table]').hidden && byId('plot').data")
    assert network in page.inner_text("#table-title")
    page.fill("#words", f"{method} 0.1")
    until(page, "document.querySelectorAll('#rows tbody tr').length")
    row = page.locator("#rows tbody tr").first
    assert method in row.inner_text()
    heads = page.locator("#rows thead th").all_inner_texts()
    cells = dict(zip(heads, row.locator("td").all_inner_texts(), strict=True))
    assert cells["place"]  # with an equals sign where noise does not tell it from the best
    assert cells["test set [points]"].startswith("±")

    row.locator("td:last-child a").first.click()
    page.wait_for_selector("#run:not([hidden])")
    again = page.locator("#run pre").inner_text().split("\n")
    (line,) = [line for line in again if line.startswith("snnbench run")]
    pages.parse(line)
    asked = questions_of(Suite.model_validate(yaml.safe_load("\n".join(again[1:-2]))))
    store = {record.id: record for record in RecordStore(REPOSITORY / "results")}
    shown = page.evaluate("location.hash").rsplit("/", 1)[1]
    assert [question.model_dump() for question in asked] == [store[shown].question.model_dump()]

    page.go_back()
    page.go_back()
    to_the_leader_of_a_tenth(page)
    assert "How to use it" in page.inner_text("[data-view=method]")


def test_one_compresses(page, snnbench, tmp_path, cache):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("[identity, random, magnitude, obc]", "[identity]"))
    snnbench("run", "tiny.yaml", "--no-wandb")
    (record,) = records(tmp_path / "results").values()
    shutil.copy(cache / "checkpoints" / f"{record['dense']['id']}.safetensors", tmp_path / "mine.safetensors")

    to_the_leader_of_a_tenth(page)
    line, *python = lines_to_copy(page)
    words = shlex.split(line)
    assert words[:2] == ["snnbench", "compress"]
    done = snnbench(*words[1:])
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    method = words[words.index("--method") + 1]
    assert (tmp_path / f"mine-{method}-0.1.safetensors").exists()
    compile("\n".join(python), "page", "exec")


def test_one_contributes(page, snnbench, tmp_path, monkeypatch):
    """A method, its results, and the pull request: the files and the commands of the page."""
    page.click("nav [data-page=add]")
    page.wait_for_selector("[data-view=add]:not([hidden])")
    files = page.locator("[data-view=add] pre[data-file]")
    for file in files.all():
        (tmp_path / file.get_attribute("data-file")).write_text(file.inner_text())
    commands = [shlex.split(line)[1:] for line in lines_to_copy(page) if line.startswith("snnbench ")]
    assert [words[0] for words in commands] == ["check", "run", "leaderboard", "submit"]
    check, run, leaderboard, submit = commands

    name, _, method = check[1].partition(":")
    monkeypatch.syspath_prepend(tmp_path)
    done = snnbench(*check)
    assert done.returncode == 0, done.stdout + done.stderr
    for results in ("one", "two"):
        monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / f"cache-{results}"))
        assert snnbench(*run, "--results", results, "--no-wandb").returncode == 0
    done = snnbench(*leaderboard, "--results", "one")
    assert method in done.stdout
    told = [str(path) for word in submit for path in ([word] if "*" not in word else sorted(tmp_path.glob(word)))]
    done = snnbench(*told)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "submission" / "pull-request.md").exists()
    sys.modules.pop(name, None)
