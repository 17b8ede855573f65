"""What the page is made of: its content, its parts, and the commands that it shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.boards.columns import COLUMNS, summary_cells
from benchmark.boards.compare import compare
from benchmark.boards.page import render, render_folder
from benchmark.boards.page.content import content
from benchmark.boards.page.runs import command
from benchmark.boards.page.usage import usage
from benchmark.boards.standings import standings
from benchmark.questions.suite import FineTuning, FromScratch, Suite, Training, load_suite
from benchmark.wording import count
from compressors.registry import COMPRESSORS
from hardware.registry import Entry
from tests.benchmark.boards.test_page import NASTY
from tests.benchmark.factory import make_failed, make_record, make_suite_records
from tests.end_to_end.pages import parse


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


def test_layers_of_a_run_are_worded_and_have_bars() -> None:
    record = make_record("sbc", 0.1)
    report = record.answer.cost
    layers = content(standings([record]))["runs"][record.id]["layers"]
    cells = [dict(zip(layers["heads"], row, strict=True)) for row in layers["rows"]]
    for place, (layer, cell) in enumerate(zip(report.layers, cells, strict=True)):
        assert cell["layer"] == layer.name
        assert cell["AC"] == count(layer.ac / report.samples)
        assert cell["kept"] == f"{100 * layer.nonzero / layer.weights:.2f} %"
        assert layers["bars"]["AC"][place] == layer.ac / report.samples
        assert layers["bars"]["kept"][place] == pytest.approx(layer.density)
    assert set(layers["bars"]) <= set(layers["heads"])


def test_what_is_kept_of_a_layer_is_of_the_dense_one_though_channels_are_gone() -> None:
    """Counted is the layer as it is, of which a method that takes out channels prunes nothing."""
    record = make_record("qpsnn", 0.5)
    counted = record.answer.cost.layers[0]
    narrowed = {"name": counted.name, "shape": [1], "weights": 2 * counted.weights, "kept": counted.nonzero,
                "density": 0.5, "loss": None}  # fmt: skip
    record = make_record("qpsnn", 0.5, compression={"density": 0.5, "seconds": 1.0, "layers": [narrowed]})
    kept = counted.nonzero / (2 * counted.weights)
    layers = content(standings([record]))["runs"][record.id]["layers"]
    assert layers["bars"]["kept"][0] == pytest.approx(kept)
    assert dict(zip(layers["heads"], layers["rows"][0], strict=True))["kept"] == f"{100 * kept:.2f} %"
    compared = compare([record, dense := make_record()], record.id, dense.id)
    assert compared.layers[counted.name]["density"] == (pytest.approx(kept), pytest.approx(1.0))


def test_no_figure_for_people_has_more_than_four_digits_after_its_point() -> None:
    """A computer's 0.8933333158493042 is nobody's accuracy."""
    board = standings(make_suite_records(seeds=(0, 1)))
    page = content(board)
    worded = [run["facts"] for run in page["runs"].values()] + [run["layers"]["rows"] for run in page["runs"].values()]
    worded += [[row["measured"][name][2] for name in row["measured"]] for row in page["tables"][0]["rows"]]
    assert not re.findall(r"[0-9][.][0-9]{5,}", json.dumps(worded))


def test_networks_have_their_names_leaders_and_tables_with_post_training_first() -> None:
    tuned = {"finetuning": FineTuning(epochs=2, learning_rate=1e-4)}
    cifar = {"name": "cifar100", "timesteps": 4, "official_checksums": False}
    vgg = {"name": "vgg9", "width": 16, "norm": True}
    records = [
        *make_suite_records(seeds=(0,), data=cifar, model=vgg),
        make_record("lamp", 0.1, data=cifar, model=vgg, asked=tuned, division="fine-tuned"),
        make_record("obc", asked={"bits": 4}, data=cifar, model=vgg, accuracy=0.899),
    ]
    page = content(standings(records))
    (network,) = page["networks"]
    assert network["title"] == "CIFAR-100 · VGG9, a quarter of the width, BatchNorm · T = 4"
    by_key = {table["key"]: table["division"] for table in page["tables"]}
    assert [by_key[key].partition(",")[0] for key in network["tables"]] == ["post-training", "fine-tuned"]
    assert network["dense"]["accuracy"] == "90.00"
    leaders = {leader["question"]: leader["row"] for leader in network["leaders"]}
    assert leaders["4 bits"]["name"] == "obc"
    assert (leaders["a tenth of the weights"]["name"], leaders["a tenth of the weights"]["budget"]) == ("sbc", "0.1")
    assert "cifar100[" not in json.dumps(page["networks"])
    assert "official_checksums" not in json.dumps([table["title"] for table in page["tables"]])


def test_a_method_has_a_page_of_its_own_with_its_variants_and_places() -> None:
    records = [*make_suite_records(seeds=(0,)), make_record({"name": "sbc", "solver": "fast"}, 0.1)]
    methods = {method["name"]: method for method in content(standings(records))["methods"]}
    assert set(methods) == {"sbc", "obc", "magnitude", "random"}
    assert methods["sbc"]["variants"] == ["sbc", "sbc[fast]"]
    assert [line["cells"][1] for line in methods["sbc"]["standing"]].count("sbc[fast]") == 1
    assert all(line["cells"][0].endswith(" of 5") for line in methods["sbc"]["standing"])
    assert methods["sbc"]["colour"] != methods["obc"]["colour"]
    assert methods["sbc"]["symbol"] == methods["obc"]["symbol"] != methods["magnitude"]["symbol"]


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
        make_record("dst", 0.1, asked={"from_scratch": FromScratch(epochs=9)}),
        make_record("identity", asked={"from_scratch": FromScratch(epochs=9)}),
    ],
    ids=["plain", "dense", "options", "small numbers", "tricky YAML", "bits", "joint", "synops", "sparse", "control"],
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
    *dense, question = load_suite(path).questions({asked.compressor.name: kinds}, {"dst"})
    assert question == asked
    assert len(dense) == (asked.from_scratch is not None and kinds == ("none",))
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
    assert "http://" not in re.sub(r"http://www\.w3\.org/2000/svg", "", page)  # a name, and no address
    assert "https://" not in page


def test_data_and_library_stand_beside_the_page_of_a_folder() -> None:
    board = standings(make_suite_records(seeds=(0,)))
    parts = render_folder(board)
    assert set(parts) == {"leaderboard.html", *(f"leaderboard/{name}.js" for name in ("content", "runs", "plotly"))}
    assert len(parts["leaderboard.html"]) < 100_000 < len(parts["leaderboard/plotly.js"])
    other = render_folder(standings(make_suite_records(seeds=(1,))))
    same = {name for name in parts if parts[name] == other[name]}
    assert same == {"leaderboard.html", "leaderboard/plotly.js"}  # what changes with the records is the data alone


def test_every_method_says_how_it_is_used_in_lines_that_are_right() -> None:
    for name, entry in COMPRESSORS.items():
        method = entry.load()
        said = usage(name, method)
        python = next(lines for what, lines in said.items() if "Python" in what)
        *_, call = python.splitlines()
        made = eval(call.partition("callbacks=[")[2].partition("]")[0], {method.__name__: method})
        assert isinstance(made, method)
        shell = said.get("Compress a network of yours")
        assert (shell is None) == method.from_scratch
        if shell is not None:
            parse(shell)


def test_a_method_of_another_package_is_not_loaded_for_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Entry("no_such_module:Broken", "breaks where it is loaded", origin="somebody")
    monkeypatch.setattr(type(COMPRESSORS), "get", lambda self, name, default=None: broken)
    (method,) = content(standings([make_record(), make_record("sbc", 0.1)]))["methods"]
    assert method["usage"] == {}
