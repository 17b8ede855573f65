"""The dashboard of a project in Weights & Biases, as code: a workspace and a report, made anew by one command."""

from typing import Any

import wandb
import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces

from benchmark.boards.markdown import markdown
from benchmark.boards.standings import Board

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


def workspace(entity: str, project: str) -> workspaces.Workspace:
    """Trade-offs, layers and costs of the project's runs, live."""
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[
            workspaces.Section(name="Trade-offs", panels=_scatters(), is_open=True),
            workspaces.Section(name="Leaderboard", panels=[_table("leaderboard")], is_open=True),
            workspaces.Section(name="Layers", panels=[_table("layers")], is_open=True),
            workspaces.Section(name="By method", panels=_bars(), is_open=False),
        ],
    )


def report(entity: str, project: str, board: Board) -> reports.Report:
    """The leaderboard as it stands now, above plots of the runs as they come.

    Raises:
        Exception: not logged in; W&B needs to know the project's runs.
    """
    runs = reports.Runset(entity=entity, project=project, name="runs")
    return reports.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description="Which compressor makes a spiking network smallest and cheapest at which loss of accuracy?",
        width="fluid",
        blocks=[
            reports.TableOfContents(),
            reports.H1("Trade-offs"),
            reports.PanelGrid(runsets=[runs], panels=_scatters()),
            reports.H1("Tables"),
            reports.MarkdownBlock(text=markdown(board)),
            reports.H1("Layers"),
            reports.PanelGrid(runsets=[runs], panels=[_table("layers")]),
        ],
    )


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
        return workspace(owner, project).save().url, report(owner, project, board).save().url
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


def _table(name: str) -> reports.WeavePanelSummaryTable:
    return reports.WeavePanelSummaryTable(table_name=name)
