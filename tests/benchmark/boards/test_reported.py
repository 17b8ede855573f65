"""What papers report: with its source, beside the tables and hollow in the plots, never among what was measured."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from benchmark.boards import plots
from benchmark.boards.markdown import markdown
from benchmark.boards.measures import COSTS, MEASURES
from benchmark.boards.page.content import content
from benchmark.boards.reported import Reported, beside, marks, published, reported
from benchmark.boards.standings import standings
from benchmark.boards.tabular import as_csv
from benchmark.catalog import DATA
from tests.benchmark.boards.browser import opened
from tests.benchmark.factory import make_record, make_suite_records

SUITE = make_suite_records(seeds=(0,))
KNOWN = {"data": "nmnist", "method": "m", "network": "n", "paper": "p", "read": "paper", "accuracy": 50}


def test_every_figure_has_a_source_and_a_data_set_that_there_is() -> None:
    for item in reported():
        assert item.paper
        assert item.data in DATA
        assert item.measures.keys() <= MEASURES.keys()
    assert len({item.text for item in reported()}) == len(reported())
    assert {item.data for item in reported()} >= {
        "nmnist",
        "cifar10",
        "cifar100",
        "cifar10_dvs",
        "dvs_gesture",
        "imagenet",
    }


LATER = "arXiv:2506.03996, later version, known from a summary"


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        ("SBC (2FC, T=100) at 3 % of the weights: ", f"-1.59 points ({LATER})"),
        ("QP-SNN (VGG16, T=4) at 9.61 % of the weights, 4 bit, ", "-2.44 points (arXiv:2502.05905, submission)"),
        ("SCA (VGG16, T=4) at 28.4 % of the weights, 67.8 % of the operations: ", "its tables, known from a summary)"),
    ],
)  # fmt: skip
def test_a_figure_is_one_line(begins: str, ends: str) -> None:
    assert len([item for item in reported() if item.text.startswith(begins) and item.text.endswith(ends)]) == 1


def test_sizes_are_the_papers_own_or_follow_from_weights_and_bits() -> None:
    def bits(**changes: Any) -> float | None:
        return Reported.model_validate(KNOWN | changes).weight_bits

    assert bits(megabytes=0.74, weights=10, bits=4) == pytest.approx(0.74 * 8e6)
    assert bits(weights=1000, bits=2) == 2000
    assert bits(weights=1000, density=0.1) == 3200
    assert bits(weights=1000, density=0.1, bits=4) == pytest.approx(400)
    assert bits(weights=1000) is None
    assert bits(bits=2) is None


def test_a_figure_says_how_accurate() -> None:
    with pytest.raises(ValueError, match="give accuracy, or difference"):
        Reported.model_validate({key: value for key, value in KNOWN.items() if key != "accuracy"})


def test_trained_results_stand_beside_trained_ones() -> None:
    assert {item.method for item in published("nmnist", "post-training")} == {"SBC", "ExactOBS", "RTN"}
    assert published("nmnist", "post-training, reconstructed") == published("nmnist", "post-training")
    assert {item.division for item in published("cifar100", "fine-tuned")} == {"trained"}
    assert beside("digits_dvs", "post-training") == []


def test_marks_are_those_that_know_both_measures() -> None:
    both = marks("nmnist", "post-training", "stored_bits", "accuracy")
    assert {item.bits for _, _, item in both} == {2, 4}
    assert all(x == item.weight_bits and 100 * y == pytest.approx(item.accuracy) for x, y, item in both)
    assert {y for _, y, _ in marks("nmnist", "post-training", "density", "difference")} >= {-0.0141, -0.4507}
    assert marks("nmnist", "post-training", "synops", "accuracy") == []


def test_they_stand_beside_the_table_and_in_no_row() -> None:
    board = standings([make_record("sbc", 0.03), make_record("sbc", 0.03, data="digits_dvs")])
    text = markdown(board)
    assert text.count("reported, not measured here") == len(beside("nmnist", "post-training"))
    assert "-1.41 points" in text
    assert "ExactOBS" not in as_csv(board)
    (digits, nmnist) = content(board)["tables"]
    assert (digits["marks"], digits["data"]) == ([], "digits_dvs")
    assert [mark["text"] for mark in nmnist["marks"]] == nmnist["reported"]
    assert all(row["method"] in ("dense", "sbc") for row in nmnist["rows"])


def test_pictures_have_hollow_marks_where_both_measures_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[float], list[float], dict[str, Any]]] = []
    plot = Axes.plot

    def spy(axes: Axes, *data: Any, **style: Any) -> Any:
        if style.get("label") == "reported":
            drawn.append((*data, style))
        return plot(axes, *data, **style)

    monkeypatch.setattr(Axes, "plot", spy)
    (table,) = standings(make_suite_records(seeds=(0,))).tables
    picture = np.asarray(Image.open(io.BytesIO(plots.plot(table))))
    assert picture.std() > 0
    assert [style["fillstyle"] for *_, style in drawn] == ["none", "none"]
    assert [len(x) for x, _, _ in drawn] == [len(marks("nmnist", "post-training", cost, "accuracy")) for cost in COSTS]
    assert 98.14 in [pytest.approx(y) for y in drawn[1][1]]
    drawn.clear()
    (without,) = standings(make_suite_records(seeds=(0,), data="digits_dvs")).tables
    plots.plot(without)
    assert drawn == []


def test_the_page_draws_them_hollow_on_the_axes_that_they_know(chromium: Any, tmp_path: Any) -> None:
    older = make_record("sbc", 0.1, version=1, accuracy=0.123)
    newer = [record.model_copy(update={"version": 2, "id": f"{n:012x}"}) for n, record in enumerate(SUITE)]
    page = opened(chromium, tmp_path, [older, *newer])
    for x, y in (("density", "difference"), ("weight_bits", "accuracy"), ("synops", "accuracy")):
        page.evaluate(f"history.replaceState(null, '', '#/table?x={x}&y={y}'); draw()")
        drawn = f"byId('plot').layout?.xaxis.title.text === content.measures.{x}.axis"
        page.wait_for_function(drawn)
        found = page.evaluate(
            "byId('plot').data.filter(trace => trace.name.startsWith('reported'))"
            ".map(({x, marker}) => [x.length, marker.symbol])"
        )
        wanted = len(marks("nmnist", "post-training", x, y))
        assert found == ([[wanted, "pentagon-open"]] if wanted else [])
    history = page.inner_text("#summary-tables")
    assert "What older versions of methods gave" in history
    assert "12.30" in history
    assert page.complaints == []
    page.context.close()
