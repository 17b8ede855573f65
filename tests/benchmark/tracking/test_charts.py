"""Every chart of a run and of the leaderboard, read back from a stand-in of the service: its data are the records'."""

import json
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmark.boards.claims.statements import load_claims
from benchmark.boards.standings import standings
from benchmark.records import NeuronSpikes, SpikeAccount
from benchmark.tracking.board import log_board
from benchmark.tracking.dashboard import _LIVE, colours, report, workspace
from benchmark.tracking.live import GROUPS
from benchmark.tracking.runs import log_run
from hardware.energy import energy
from hardware.table import table_rows
from tests.benchmark.factory import make_record, make_suite_records
from tests.benchmark.tracking.wandb_server import Backend

SPIKES = SpikeAccount(
    samples=18,
    layers=tuple(
        NeuronSpikes(
            name=name, neurons=256, dead=3, saturated=1, mismatch=mismatch, van_rossum=None, earth_mover=0.25,
            lowest_potential=-1.5, highest_potential=2.0,
        )
        for name, mismatch in (("lif1", 0.125), ("lif2", 0.5))
    ),
)  # fmt: skip
RECORD = make_record("sbc", 0.1, seed=11, spikes=SPIKES)
BOARD = standings(make_suite_records(seeds=(0, 1)))


def table_of(backend: Backend, run: str, key: str) -> list[dict[str, Any]]:
    """A table that a run has logged under a key, from the file that the client has sent."""
    logged = [step[key] for step in backend.history[run] if key in step][-1]
    content = json.loads(backend.stored[f"{run}/{logged['path']}"])
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def charts_of(backend: Backend, run: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Chart -> the key of the table it draws, and which column stands for what."""
    found = json.loads(backend.runs[run]["config"])["_wandb"]["value"]["visualize"]
    charts = {}
    for name, chart in found.items():
        (fields,) = [query["fields"] for query in chart["panel_config"]["userQuery"]["queryFields"]]
        (table,) = [field["args"][0]["value"] for field in fields if field["name"] == "summaryTable"]
        charts[name] = table, chart["panel_config"]["fieldSettings"]
    return charts


@pytest.fixture
def logged(backend: Backend, tmp_path: Path) -> Backend:
    assert log_run(RECORD, tmp_path)
    return backend


def test_bars_of_layers_show_what_was_counted(logged: Backend) -> None:
    rows = {row["layer"]: row for row in table_rows(RECORD.answer.cost, energy(RECORD.answer.cost))}
    charts = charts_of(logged, RECORD.id)
    of_layers = {name: chart for name, chart in charts.items() if name.startswith("layers/")}
    assert set(of_layers) == {"layers/energy_share", "layers/memory_bits", "layers/density"}
    for table, fields in of_layers.values():
        data = table_of(logged, RECORD.id, table)
        assert data
        assert all(row[fields["value"]] == rows[row["layer"]][fields["value"]] for row in data)
    shares = table_of(logged, RECORD.id, "layers/energy_share_table")
    assert sum(row["energy_share"] for row in shares) == pytest.approx(1)


def test_what_became_of_spikes_is_a_table_with_bars(logged: Backend) -> None:
    table = table_of(logged, RECORD.id, "spikes")
    assert table == [layer.model_dump() for layer in SPIKES.layers]
    bars = table_of(logged, RECORD.id, charts_of(logged, RECORD.id)["spikes/mismatch"][0])
    assert [(row["layer"], row["mismatch"]) for row in bars] == [("lif1", 0.125), ("lif2", 0.5)]
    assert table_of(logged, RECORD.id, "spikes/van_rossum_table") == []
    assert logged.summary[RECORD.id]["spike_mismatch"] == 0.3125


def test_histograms_hold_every_operation_and_every_neuron_layer(logged: Backend) -> None:
    (step,) = [step for step in logged.history[RECORD.id] if "firing rates" in step]
    cost = RECORD.answer.cost
    over_time = step["operations over time"]
    assert sum(over_time["values"]) == pytest.approx(sum(layer.synops for layer in cost.layers) / cost.samples)
    assert over_time["bins"] == [*range(cost.timesteps + 1)]
    rates = step["firing rates"]
    assert sum(rates["values"]) == len(cost.neurons)
    assert (rates["bins"][0], rates["bins"][-1]) == (0, 1)


def test_operations_over_time_take_layers_that_run_once(backend: Backend, tmp_path: Path) -> None:
    """A layer that sees a still image computes in the first step alone; others do in every step."""
    cost = RECORD.answer.cost
    first, *others = cost.layers
    still = replace(cost, layers=(replace(first, synops_per_step=(sum(first.synops_per_step),)), *others))
    record = RECORD.model_copy(update={"cost": still})
    assert log_run(record, tmp_path)
    (step,) = [step for step in backend.history[RECORD.id] if "firing rates" in step]
    values = step["operations over time"]["values"]
    assert len(values) == cost.timesteps
    assert sum(values) == pytest.approx(sum(layer.synops for layer in cost.layers) / cost.samples)
    assert values[0] > values[1]


def test_runs_are_tagged_and_named_as_on_the_page(logged: Backend) -> None:
    assert logged.runs[RECORD.id]["tags"] == ["N-MNIST", "small CNN", "sbc", "second order", "post-training"]
    config = json.loads(logged.runs[RECORD.id]["config"])
    assert config["subject"]["value"] == "N-MNIST · small CNN · T = 10"
    assert config["look"]["value"] == {"family": "second order", "colour": "#0072B2", "mark": "circle"}


def test_the_board_has_its_front_its_rows_its_pictures_and_the_claims(backend: Backend, tmp_path: Path) -> None:
    assert log_board(BOARD, tmp_path)
    front = table_of(backend, "leaderboard", "front")
    assert [row["question"] for row in front] == [
        "within one point, least memory", "within one point, fewest operations", "a tenth of the weights", "4 bits",
    ]  # fmt: skip
    assert front[2]["method"] in ("sbc", "obc")
    assert front[3]["method"] == "no run yet"
    assert len(table_of(backend, "leaderboard", "leaderboard")) == sum(len(table.rows) for table in BOARD.tables)
    claims = table_of(backend, "leaderboard", "claims")
    assert [row["claim"] for row in claims] == [claim.says for claim in load_claims()]
    charts = charts_of(backend, "leaderboard")
    assert set(charts) == {"accuracy over synops", "accuracy over stored_bits"}
    for table, fields in charts.values():
        points = [(row[fields["x"]], row[fields["y"]]) for row in table_of(backend, "leaderboard", table)]
        rows = BOARD.tables[0].rows
        assert points == [
            pytest.approx((row.measured[fields["x"]].mean, row.measured["accuracy"].mean), rel=1e-5) for row in rows
        ]
    (step,) = [step for step in backend.history["leaderboard"] if "trade-offs" in step]
    (name,) = step["trade-offs"]["filenames"]
    assert Image.open(BytesIO(backend.stored[f"leaderboard/{name}"])).width > 1000
    assert step["trade-offs"]["captions"] == [BOARD.tables[0].title]


def test_every_panel_of_workspace_and_report_is_of_what_is_logged(backend: Backend, tmp_path: Path) -> None:
    log_run(RECORD, tmp_path)
    log_board(BOARD, tmp_path)
    keys = {key for steps in backend.history.values() for step in steps for key in step}
    told = {name for names in _LIVE.values() for name in names}
    assert {name.partition("/")[0] for name in told} - {"train", "val", "learning_rate"} == set(GROUPS)
    for made in (workspace("e", "p", BOARD), report("e", "p", BOARD)):
        text = made._to_model().model_dump_json(by_alias=True)
        wanted = {part.split('"')[0] for part in text.split('"summary:')[1:]}
        assert wanted
        assert wanted <= keys
        for name in (
            "front",
            "claims",
            "layers",
            "spikes",
            "spikes/mismatch_table",
            "layers/energy_share_table",
            *told,
        ):
            assert f'"{name}"' in text, name


def test_the_dashboard_has_the_colours_of_the_page() -> None:
    (sbc,) = [row for row in BOARD.tables[0].rows if row.family == "sbc" and row.budget.density == 0.1]
    assert {colours(BOARD)[run] for run in sbc.runs.values()} == {"#0072B2"}
    assert '"#0072B2"' in workspace("e", "p", BOARD)._to_model().model_dump_json(by_alias=True)


@pytest.mark.slow
def test_files_of_an_offline_run_that_are_synced_later_give_the_same(backend: Backend, tmp_path: Path) -> None:
    assert log_run(RECORD, tmp_path / "online")
    online = kept(backend)
    vars(backend).update(vars(Backend(url=backend.url)))
    assert log_run(RECORD, tmp_path / "offline", mode="offline")
    assert backend.runs == {}
    (folder,) = (tmp_path / "offline").glob("wandb/offline-run-*")
    words = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert kept(backend) == online


def kept(backend: Backend) -> dict[str, Any]:
    """What a stand-in knows of the run, without times, names of files that are drawn, and the client's own account."""
    config = json.loads(backend.runs[RECORD.id]["config"])
    run = {name: backend.runs[RECORD.id][name] for name in ("displayName", "groupName", "jobType", "tags")}
    return run | {
        "config": {name: part for name, part in config.items() if name != "_wandb"},
        "charts": charts_of(backend, RECORD.id),
        "tables": {key: table_of(backend, RECORD.id, key) for key in ("layers", "layers/energy_share_table")},
        "numbers": {
            key: value
            for step in backend.history[RECORD.id]
            for key, value in step.items()
            if isinstance(value, int | float) and not key.startswith("_")
        },
        "histograms": [step["firing rates"] for step in backend.history[RECORD.id] if "firing rates" in step],
        "artifacts": {name for name in backend.artifacts if not name.startswith("run-")},
        "exit": backend.exit_codes[RECORD.id],
    }
