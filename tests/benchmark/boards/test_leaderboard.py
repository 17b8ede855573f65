"""Records to tables and their renderings."""

import csv
import io
import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmark.boards import leaderboard
from benchmark.boards.columns import COLUMNS
from benchmark.boards.markdown import markdown
from benchmark.boards.standings import Board, Spread, Table, pareto, standings
from benchmark.boards.styles import style
from benchmark.boards.tabular import as_csv, as_json
from benchmark.boards.terminal import WIDE, terminal
from benchmark.files import StoreError
from benchmark.questions.suite import FineTuning, FromScratch, Training
from benchmark.records import RecordStore, RunRecord, SpikeAccount
from tests.benchmark.factory import make_failed, make_record, make_suite_records

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def store_of(folder: Path, records: list) -> RecordStore:
    store = RecordStore(folder)
    for record in records:
        store.save(record)
    return store


def only_table(board: Board) -> Table:
    assert len(board.tables) == 1
    assert not board.apart
    return board.tables[0]


@given(POINTS)
def test_pareto_front_is_that_of_the_definition(points: list[tuple[int, int]]) -> None:
    def dominated(i: int) -> bool:
        cost, gain = points[i]
        return any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)

    front = pareto([cost for cost, _ in points], [gain for _, gain in points])
    assert front == [not dominated(i) for i in range(len(points))]
    assert any(front)


def test_mean_and_sample_standard_deviation_over_seeds() -> None:
    accuracies = {0: 0.91, 1: 0.88, 2: 0.9}
    table = only_table(standings(make_record("sbc", 0.1, seed, accuracy=a) for seed, a in accuracies.items()))
    (row,) = table.rows
    spread = row.measured["accuracy"]
    assert spread.mean == pytest.approx(mean(accuracies.values()))
    assert spread.std == pytest.approx(stdev(accuracies.values()))
    assert spread.n == 3
    assert list(row.runs) == [0, 1, 2]
    assert "difference" not in row.measured  # no dense record, so nothing to compare with


def test_one_seed_has_no_spread() -> None:
    assert Spread.of([0.5]) == Spread(0.5, None, 1)


def test_difference_is_paired_by_dense_checkpoint() -> None:
    dense = {0: 0.95, 1: 0.85}
    records = [make_record(seed=seed, accuracy=a) for seed, a in dense.items()]
    records += [make_record("sbc", 0.1, 0, accuracy=0.94), make_record("sbc", 0.1, 1, accuracy=0.82)]
    table = only_table(standings(records))
    difference = table.rows[1].measured["difference"]
    assert difference.mean == pytest.approx(-0.02)
    assert difference.std == pytest.approx(stdev([-0.01, -0.03]))
    assert table.rows[0].measured["difference"] == Spread(0.0, 0.0, 2)


def test_difference_leaves_out_seeds_without_a_dense_record() -> None:
    records = [make_record(seed=0, accuracy=0.9), *(make_record("sbc", 0.1, s, accuracy=0.8 - s / 2) for s in (0, 1))]
    row = only_table(standings(records)).rows[1]
    assert row.measured["difference"].n == 1
    assert row.measured["difference"].mean == pytest.approx(-0.1)
    assert row.measured["accuracy"].n == 2


def test_costs_are_those_of_the_report() -> None:
    record = make_record("sbc", 0.2)
    measured = only_table(standings([record])).rows[0].measured
    cost = record.answer.cost
    ac = sum(layer.ac for layer in cost.layers) / cost.samples
    mac = sum(layer.mac for layer in cost.layers) / cost.samples
    assert (measured["synops_ac"].mean, measured["synops_mac"].mean) == (ac, mac)
    assert measured["bits"].mean == 32
    assert ac > 0
    assert mac > 0
    assert measured["synops"].mean == pytest.approx(ac + mac)
    smallest = sum(min(layer.memory_bits.values()) for layer in cost.layers)
    assert measured["stored_bits"].mean == smallest
    assert measured["total_bits"].mean == smallest + cost.neurons[0].state_bits


def test_order_of_records_does_not_matter() -> None:
    records = [*make_suite_records(seeds=(0, 1)), make_failed("sbc", 0.01)]
    records.append(make_record("obc", 0.1, checkpoint="x", calibration_samples=7))
    boards = [standings(order) for order in (records, records[::-1], records[30:] + records[:30])]
    assert boards[0] == boards[1] == boards[2]


def test_budgets_in_bits_stand_beside_those_in_density_and_are_told_apart() -> None:
    asked = [{}, {"bits": 4}, {"bits": 2}, {"synops": 0.3}]
    records = [make_record(), make_record("sbc", 0.5), make_record("sbc", 0.5, asked={"bits": 4})]
    records += [make_record("sbc", asked=limits) for limits in asked[1:]]
    rows = only_table(standings(records)).rows
    assert [row.budget.short for row in rows] == ["", "0.5", "4 bit", "2 bit", "0.5, 4 bit", "0.3 of SynOps"]


def test_runs_of_other_aftercare_or_fine_tuning_stand_in_tables_of_their_own_beside_the_same_dense_network() -> None:
    tuned = {"finetuning": FineTuning(epochs=2, learning_rate=1e-4)}
    records = [
        make_record(),
        make_record("sbc", 0.5),
        make_record("sbc", 0.5, asked={"aftercare": ("batchnorm",)}),
        make_record("sbc", 0.5, asked=tuned, division="fine-tuned"),
    ]
    tables = standings(records).tables
    assert [(table.division, table.condition) for table in tables] == [
        ("fine-tuned", "2 epochs at 0.0001"),
        ("post-training", ""),
        ("post-training", "BatchNorm re-estimated"),
    ]
    assert all([row.method for row in table.rows] == ["identity", "sbc"] for table in tables)
    assert len({table.key for table in tables}) == len({table.slug for table in tables}) == 3
    assert "2 epochs at 0.0001" in tables[0].title


def test_rows_are_dense_first_then_by_budget_and_accuracy() -> None:
    rows = only_table(standings(make_suite_records())).rows
    assert rows[0].dense
    assert rows[0].label == "dense"
    keys = [(row.budget.rank, -row.measured["accuracy"].mean) for row in rows[1:]]
    assert keys == sorted(keys)
    assert {row.label for row in rows if row.control} == {"dense", "random", "magnitude"}
    assert rows[0].calibration_samples == 0


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "0" * 64},
        {"data": {"name": "nmnist", "timesteps": 20}},
        {"data": {"name": "nmnist", "split": "pooled"}},
        {"model": {"name": "conv", "width": 8}},
        {"training": Training(epochs=5)},
    ],
    ids=["fingerprint", "timesteps", "split", "model option", "training"],
)
def test_what_is_not_comparable_stands_in_a_table_of_its_own(other: dict) -> None:
    board = standings([*make_suite_records(seeds=(0,)), *make_suite_records(seeds=(0,), **other)])
    assert [len(table.rows) for table in board.tables] == [21, 21]
    assert len({table.slug for table in board.tables}) == 2
    assert not board.apart


def test_trained_sparse_stands_apart_with_a_dense_control_of_its_own_beside_the_dense_network() -> None:
    anew = {"from_scratch": FromScratch(epochs=35)}
    told = {"asked": anew, "division": "trained sparse"}
    records = [
        make_record(accuracy=0.9),
        make_record("sbc", 0.1, accuracy=0.8),
        make_record("identity", accuracy=0.92, **told),
        make_record("dst", 0.1, accuracy=0.85, **told),
    ]
    tables = {table.division: table for table in standings(records).tables}
    assert {division: [row.label for row in table.rows] for division, table in tables.items()} == {
        "post-training": ["dense", "sbc"],
        "trained sparse": ["dense", "dense, from scratch", "dst"],
    }
    rows = tables["trained sparse"].rows
    assert [row.measured["difference"].mean for row in rows] == pytest.approx([0.0, 0.02, -0.05])
    assert "from scratch, 35 epochs" in tables["trained sparse"].title


def test_calibration_samples_make_rows_of_their_own_but_one_dense_network() -> None:
    records = [make_record(m, d, calibration_samples=n) for n in (10, 100) for m, d in (("identity", 1), ("sbc", 0.1))]
    table = only_table(standings(records))
    assert [(row.label, row.calibration_samples, len(row.runs)) for row in table.rows] == [
        ("dense", 0, 1),
        ("sbc", 10, 1),
        ("sbc", 100, 1),
    ]


def test_divisions_are_never_ranked_together_and_share_the_dense_network() -> None:
    records = [make_record(accuracy=0.9), make_record("sbc", 0.1), make_record("magnitude", 0.1, division="fine-tuned")]
    board = standings(records)
    assert {table.division: [row.label for row in table.rows] for table in board.tables} == {
        "post-training": ["dense", "sbc"],
        "fine-tuned": ["dense", "magnitude"],
    }
    assert all("difference" in row.measured for table in board.tables for row in table.rows)


def test_another_dense_checkpoint_of_the_same_seed_stands_apart() -> None:
    stranger = make_record("magnitude", 0.1, checkpoint="another machine")
    board = standings([make_record(), make_record("sbc", 0.1), stranger])
    assert [item.run for item in board.apart] == [stranger.id]
    assert stranger.dense is not None
    assert stranger.dense.sha256[:8] in board.apart[0].reason
    assert [row.label for row in board.tables[0].rows] == ["dense", "sbc"]


def test_older_versions_of_a_compressor_are_the_history_of_their_table() -> None:
    dense = make_record(accuracy=0.9)
    first, second, third = (make_record("sbc", 0.1, version=v, accuracy=a) for v, a in ((1, 0.95), (2, 0.8), (3, 0.85)))
    board = standings([dense, first, second, third])
    (table,) = board.tables
    assert board.apart == ()
    assert [row.runs[0] for row in table.rows] == [dense.id, third.id]
    assert [(row.version, row.runs[0], row.fronts) for row in table.earlier] == [
        (2, second.id, frozenset()),
        (1, first.id, frozenset()),
    ]
    assert table.earlier[1].measured["difference"].mean == pytest.approx(0.05)
    assert standings([dense, third]).tables[0].rows == table.rows  # neither ranked nor on a front
    text = markdown(board)
    assert "| sbc | 1 | 0.1 | 95.00 |" in text
    assert "| earlier |" not in markdown(standings([dense, third]))
    assert [row["version"] for row in as_json(board)["tables"][0]["earlier"]] == [2, 1]
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(terminal(board))
    assert "sbc (version 1), sbc (version 2)" in console.export_text()
    assert {first.id, second.id, third.id} <= board.runs.keys()


def test_an_older_version_without_a_table_of_newer_ones_stands_apart() -> None:
    old = make_record("sbc", 0.1, version=1, asked={"aftercare": ("batchnorm",)})
    board = standings([old, make_record("sbc", 0.1, version=2)])
    assert [(item.run, "version 1" in item.reason) for item in board.apart] == [(old.id, True)]


def test_failures_and_damaged_results_stand_apart_with_their_reason() -> None:
    good = make_record("sbc", 0.5)
    cost = good.answer.cost
    damaged = [
        make_failed("sbc", 0.1, error="MemoryError: no room"),
        make_record("obc", 0.1),
        make_record("obc", 0.2).model_copy(update={"cost": replace(cost, samples=0)}),
        make_record("obc", 0.3).model_copy(
            update={"cost": replace(cost, layers=(replace(cost.layers[0], memory_bits={}),))}
        ),
    ]
    del damaged[1].data["fingerprint"]
    board = standings([good, *damaged])
    assert [row.method for row in board.tables[0].rows] == ["sbc"]
    reasons = {item.run: item.reason for item in board.apart}
    assert set(reasons) == {record.id for record in damaged}
    assert reasons[damaged[0].id] == "failed: MemoryError: no room"
    assert "fingerprint" in reasons[damaged[1].id]


def test_a_record_of_another_cost_schema_is_listed_as_unreadable(tmp_path: Path) -> None:
    store, good = RecordStore(tmp_path), make_record("sbc", 0.5)
    store.save(good)
    other = store.save(make_record("obc", 0.2))
    other.write_text(other.read_text().replace('"schema": 1', '"schema": 99'))
    board = leaderboard.build(store)
    assert [row.method for row in board.tables[0].rows] == ["sbc"]
    (apart,) = board.apart
    assert apart.label == "unreadable"
    assert str(other) in apart.reason
    assert "cost report of schema 99" in apart.reason


def test_fronts_are_by_cost_and_name_the_best() -> None:
    records = [
        make_record(accuracy=0.9),
        make_record("sbc", 0.1, accuracy=0.8),
        make_record("random", 0.1, accuracy=0.3),
    ]
    fronts = {row.label: row.fronts for row in only_table(standings(records)).rows}
    assert fronts == {
        "dense": {"synops", "stored_bits"},
        "sbc": {"synops", "stored_bits"},
        "random": set(),
    }


# renderings ----------------------------------------------------------------------------------------------------------


def test_csv_has_the_raw_numbers_of_every_row() -> None:
    board = standings(make_suite_records())
    lines = list(csv.DictReader(io.StringIO(as_csv(board))))
    rows = board.tables[0].rows
    assert len(lines) == len(rows) == 21
    for line, row in zip(lines, rows, strict=True):
        assert float(line["accuracy"]) == row.measured["accuracy"].mean
        assert float(line["accuracy_std"]) == row.measured["accuracy"].std
        assert float(line["stored_bits"]) == row.measured["stored_bits"].mean
        assert line["records"].split() == list(row.runs.values())
        assert (line["pareto_synops"] == "True") == ("synops" in row.fronts)


def test_peak_memory_is_shown_where_every_seed_knows_it() -> None:
    told = [make_record("sbc", 0.1, seed, peak_memory_bytes=(seed + 1) * 2**20) for seed in (0, 1)]
    half = [make_record("obc", 0.1, seed, peak_memory_bytes=2**20 if seed else None) for seed in (0, 1)]
    board = standings([*told, *half])
    rows = {row.method: row for row in board.tables[0].rows}
    assert rows["sbc"].measured["peak_memory_bytes"].mean == 1.5 * 2**20
    assert "peak_memory_bytes" not in rows["obc"].measured
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(as_csv(board)))}
    assert float(lines["sbc"]["peak_memory_bytes"]) == 1.5 * 2**20
    assert lines["obc"]["peak_memory_bytes"] == ""
    assert "| 1.5 MiB |" in markdown(board)


def test_json_is_json_and_agrees_with_the_tables() -> None:
    board = standings([*make_suite_records(seeds=(0, 1)), make_failed("sbc", 0.01)])
    content = json.loads(json.dumps(as_json(board)))
    assert [row["method"] for row in content["tables"][0]["rows"]] == [row.label for row in board.tables[0].rows]
    assert content["tables"][0]["rows"][1]["measured"]["accuracy"]["n"] == 2
    assert set(content["tables"][0]["rows"][1]["measured"]) <= set(content["measures"])
    assert len(content["apart"]) == 1


def test_markdown_has_a_line_a_row_and_cannot_be_broken_by_names() -> None:
    nasty = {"name": "sbc", "note": "a|b <script>x</script>"}
    board = standings([make_record(), make_record(nasty, 0.1), make_failed("obc", 0.1, error="Error: <b>\n| x |")])
    text = markdown(board)
    assert "<script" not in text
    assert "<b>" not in text
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    bars = [line.replace("\\|", "").count("|") for line in table_lines]
    assert bars == [bars[0]] * 4 + [bars[4]] * 3  # two rows and one summary, each under its head and rule


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200, WIDE])
def test_names_are_whole_in_terminals_of_every_width(width: int) -> None:
    long = {"name": "magnitude", "allocation": "relative_loss_of_a_name"}
    board = standings([*make_suite_records(), make_record(long, 0.1)])
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal(board))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "\n".join(lines)
    for label in ("sbc", "magnitude (c)"):  # five budgets, and the summary
        assert sum(f" {label} " in f" {line} " for line in lines) == 6
    if width > 40:  # where the long name has room
        assert sum("magnitude[relative_loss_of_a_name] (c)" in line for line in lines) == 2
        assert any(line.split()[:3] == ["budget", "method", "accuracy"] for line in lines)


def test_a_wide_terminal_has_every_column() -> None:
    console = Console(width=WIDE, file=io.StringIO(), record=True)
    console.print(terminal(standings(make_suite_records())))
    head = next(line for line in console.export_text().splitlines() if line.startswith("budget"))
    assert head.split("  ")[0] == "budget"
    assert all(name in head for name in COLUMNS)


@pytest.mark.parametrize("width", [80, 200])
def test_terminal_shows_every_row_and_never_cuts_a_number(width: int) -> None:
    board = standings([*make_suite_records(), make_failed({"name": "sbc", "x": 1}, 0.01)])
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal(board))
    text = console.export_text()
    assert "…" not in text
    for row in board.tables[0].rows:
        assert f"{100 * row.measured['accuracy'].mean:.2f} ± " in text
    assert "sbc[x=1]" in text
    assert ("calib." in text) == (width == 200)


def test_methods_have_the_colours_and_marks_of_the_page_where_the_terminal_has_colours() -> None:
    board = standings(make_suite_records(seeds=(0,)))
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True)
    console.print(terminal(board))
    lines = console.export_text(clear=False).splitlines()
    assert max(map(len, lines)) <= 80
    for label in ("● sbc", "■ magnitude (c)"):
        assert sum(f" {label} " in f"{line} " for line in lines) == 5, label
    assert style("sbc").colour.lower() in console.export_html(clear=False).lower()


def test_nothing_to_show_says_how_to_begin() -> None:
    console = Console(file=io.StringIO(), record=True)
    console.print(terminal(standings([])))
    assert "snnbench run" in console.export_text()
    assert as_json(standings([]))["tables"] == []


# files ---------------------------------------------------------------------------------------------------------------


def test_filters(tmp_path: Path) -> None:
    records = [make_record("sbc", 0.1, data=data, model=model, suite=suite)
               for data, model, suite in permutations(("a", "b", "c"), 3)]  # fmt: skip
    store = store_of(tmp_path, records)
    assert len(leaderboard.build(store).tables) == 6
    assert {table.setup.data for table in leaderboard.build(store, data="a").tables} == {"a"}
    assert {table.setup.model for table in leaderboard.build(store, model="b").tables} == {"b"}
    assert [(t.setup.data, t.setup.model) for t in leaderboard.build(store, suite="c", data="a").tables] == [("a", "b")]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, [make_record()])
    torn = tmp_path / "records" / "nmnist" / "conv" / "torn.json"
    torn.write_text('{"id": ')
    board = leaderboard.build(store)
    assert len(board.tables) == 1
    assert str(torn) in board.apart[0].reason


def test_write_leaves_markdown_csv_and_a_picture_per_table(tmp_path: Path) -> None:
    store = store_of(tmp_path, [*make_suite_records(seeds=(0, 1)), *make_suite_records(seeds=(0,), model="mlp")])
    board = leaderboard.build(store)
    leaderboard.write(board, tmp_path)
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "leaderboard").glob("*.png")}
    assert set(pictures) == {f"{table.slug}.png" for table in board.tables}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    assert len(set(pictures.values())) == 2
    text = (tmp_path / "leaderboard.md").read_text()
    assert all(f"(leaderboard/{name})" in text for name in pictures)
    assert (tmp_path / "leaderboard.csv").read_text() == as_csv(board)
    assert not list(tmp_path.rglob("*.tmp"))

    files = {path: path.read_bytes() for path in tmp_path.rglob("leaderboard*/*.*")}
    leaderboard.write(board, tmp_path)  # the same records give the same bytes
    assert {path: path.read_bytes() for path in tmp_path.rglob("leaderboard*/*.*")} == files


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "leaderboard").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="leaderboard"):
        leaderboard.write(standings([make_record()]), tmp_path)
    assert not (tmp_path / "leaderboard.md").exists()


def test_what_became_of_spikes_is_a_measure_where_every_seed_knows_it() -> None:
    def layer(name: str, mismatch: float | None, dead: int) -> dict[str, Any]:
        known = {"mismatch": mismatch, "van_rossum": mismatch, "earth_mover": 0.25}
        return {"name": name, "neurons": 10, "dead": dead, "saturated": 0, **known,
                "lowest_potential": -1.0, "highest_potential": 2.5}  # fmt: skip

    def record(method: str, seed: int, mismatch: float | None) -> RunRecord:
        layers = (layer("2", 0.25, 1), layer("5", mismatch, 4))
        return make_record(method, 0.1, seed, spikes=SpikeAccount(samples=18, layers=layers))

    board = standings(
        [
            *(record("sbc", seed, 0.75) for seed in (0, 1)),
            *(record("obc", seed, 0.75 if seed else None) for seed in (0, 1)),
            make_record("qpsnn", 0.1, 0),
        ]
    )
    rows = {row.method: row.measured for row in board.tables[0].rows}
    assert rows["sbc"]["spike_mismatch"].mean == rows["sbc"]["van_rossum"].mean == 0.5
    assert rows["sbc"]["dead_neurons"].mean == 0.25
    assert "spike_mismatch" not in rows["obc"]
    assert rows["obc"]["earth_mover"].mean == 0.25
    assert not rows["qpsnn"].keys() & {"spike_mismatch", "dead_neurons"}
