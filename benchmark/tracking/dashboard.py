"""The dashboard of a project in Weights & Biases, as code: a workspace and a report, made anew by one command."""

from collections.abc import Mapping
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces

from benchmark.boards.claims import pages
from benchmark.boards.claims.statements import load_claims
from benchmark.boards.claims.verdicts import judged
from benchmark.boards.markdown import markdown
from benchmark.boards.standings import Board
from benchmark.boards.styles import style
from benchmark.tracking.layers import BARS, HISTOGRAMS, SPIKES

Panel = Any  # the packages' own unions of panels are invariant lists, which no typed helper can build
TITLE = "snnbench leaderboard"

_COSTS = {
    "synops": "synaptic operations per sample",
    "stored_bits": "memory as stored, in bits",
    "total_bits": "memory and neuron state, in bits",
    "seconds/compress": "seconds to compress",
}


class DashboardError(Exception):
    """A dashboard that could not be made; says why and the remedy."""

    exit_status = 1


_LIVE = {
    "epoch": ("train/loss", "val/accuracy", "learning_rate"),
    "reconstruct/step": ("reconstruct/loss",),
    "held_out/step": ("held_out/distance", "held_out/output", "held_out/spikes"),
    "compress/step": ("compress/layers", "compress/density", "compress/loss"),
    "eliminate/step": ("eliminate/weights",),
}
"""Step metric -> what is drawn over it while work goes on (:mod:`benchmark.tracking.live`)."""


def workspace(entity: str, project: str, board: Board) -> workspaces.Workspace:
    """Who leads, trade-offs, claims, layers, and work that goes on: the project's runs, live.

    The runs that are on the board have the colours of their methods on its page.
    """
    parts = {
        "Front": [_table("front")],
        "Trade-offs": [*_scatters(), reports.MediaBrowser(title="as on the page", media_keys=["trade-offs"])],
        "Leaderboard": [_table("leaderboard")],
        "Claims": [_table("claims")],
        "Layers": [_table("layers"), _table("spikes"), *_layer_bars(), *_histograms()],
        "While it runs": _lines(),
        "By method": _bars(),
    }
    settings = {run: workspaces.RunSettings(color=colour) for run, colour in colours(board).items()}
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[
            workspaces.Section(name=name, panels=panels, is_open=name != "By method") for name, panels in parts.items()
        ],
        runset_settings=workspaces.RunsetSettings(run_settings=settings),
    )


def report(entity: str, project: str, board: Board) -> reports.Report:
    """The leaderboard and its claims as they stand now, above plots of the runs as they come.

    Raises:
        Exception: not logged in; W&B needs to know the project's runs.
    """
    settings = {run: reports.RunSettings(color=colour) for run, colour in colours(board).items()}
    runs = reports.Runset(entity=entity, project=project, name="runs", run_settings=settings)

    def grid(panels: list[Panel]) -> reports.PanelGrid:
        return reports.PanelGrid(runsets=[runs], panels=panels)

    verdicts = ", ".join(f"{name}: {number}" for name, number in pages.counted(judged(load_claims(), board)).items())
    return reports.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description="Which compressor makes a spiking network smallest and cheapest at which loss of accuracy?",
        width="fluid",
        blocks=[
            reports.TableOfContents(),
            reports.H1("Who leads"),
            grid([_table("front")]),
            reports.H1("Trade-offs"),
            grid(_scatters()),
            reports.H1("Tables"),
            reports.MarkdownBlock(text=markdown(board)),
            reports.H1("Claims"),
            reports.P(verdicts),
            grid([_table("claims")]),
            reports.H1("Layers"),
            grid([_table("layers"), _table("spikes"), *_layer_bars(), *_histograms()]),
            reports.H1("While it runs"),
            grid(_lines()),
        ],
    )


def colours(board: Board) -> Mapping[str, str]:
    """Run id -> the colour of its method on the page."""
    return {
        run: style(row.family, row.control).colour
        for table in board.tables
        for row in table.rows
        if not row.dense
        for run in row.runs.values()
    }


def create(board: Board, entity: str | None, project: str) -> tuple[str, str]:
    """Make the workspace and the report in W&B, online.

    Returns:
        Addresses of the workspace and of the report.

    Raises:
        DashboardError: there is no key, no network, or no such entity.
    """
    try:
        owner = entity or wandb.Api().default_entity
        if owner is None:
            raise DashboardError("W&B knows no entity for this key: give one with --entity")
        return workspace(owner, project, board).save().url, report(owner, project, board).save().url
    except DashboardError:
        raise
    except Exception as error:  # the packages raise what their libraries raise, plain Exception among it
        raise DashboardError(
            f"W&B did not take the dashboard ({type(error).__name__}: {error}): check WANDB_API_KEY, the entity and "
            "the network"
        ) from error


def _scatters() -> list[Panel]:
    return [
        reports.ScatterPlot(
            title=f"accuracy over {name}",
            x=reports.SummaryMetric(cost),
            y=reports.SummaryMetric("accuracy"),
            log_x=True,
            legend_template="${run:displayName}",
        )
        for cost, name in _COSTS.items()
    ]


def _bars() -> list[Panel]:
    by_method = reports.Config("compressor.name")
    return [
        reports.BarPlot(
            title=name, metrics=[name], groupby=by_method, groupby_aggfunc="mean", groupby_rangefunc="stddev"
        )
        for name in ("accuracy", "seconds/compress")
    ]


def _layer_bars() -> list[Panel]:
    """The bars that each run has of its layers (:mod:`benchmark.tracking.layers`)."""
    return [
        reports.CustomChart(
            query={"summaryTable": {"tableKey": f"{table}/{column}_table"}},
            chart_name="wandb/bar/v0",
            chart_fields={"label": "layer", "value": column},
            chart_strings={"title": title},
        )
        for table, column, title in (
            *(("layers", column, title) for column, title in BARS.items()),
            *(("spikes", column, f"{column} by layer of neurons") for column in SPIKES),
        )
    ]


def _histograms() -> list[Panel]:
    return [reports.LinePlot(title=name, y=[name]) for name in HISTOGRAMS]


def _lines() -> list[Panel]:
    return [reports.LinePlot(title=name, x=step, y=[name]) for step, names in _LIVE.items() for name in names]


def _table(name: str) -> reports.WeavePanelSummaryTable:
    return reports.WeavePanelSummaryTable(table_name=name)
