"""All runs under the folder, those being written first: a grid to filter, to sort, and to choose from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update
from dash_ag_grid import AgGrid

from ..cards import labelled
from ..configs import differing, flat, shown
from ..follow import Runs
from ..summaries import Summaries, Summary

TITLE = "Runs"
ORDER = 10

_PARAMS = {
    "backgroundColor": "var(--fs-card)",
    "foregroundColor": "var(--fs-ink)",
    "borderColor": "var(--fs-edge)",
    "headerBackgroundColor": "var(--fs-row)",
    "headerTextColor": "var(--fs-ink)",
    "rowHoverColor": "var(--fs-row)",
    "selectedRowBackgroundColor": "var(--fs-row)",
    "accentColor": "var(--fs-link)",
    "fontFamily": "inherit",
    "fontSize": 13,
    "wrapperBorderRadius": 8,
    "browserColorScheme": "inherit",
}


def layout() -> list[Any]:
    """A search field, and the grid."""
    options: dict[str, Any] = {
        "theme": {"function": f"themeQuartz.withParams({_theme()})"},
        "rowSelection": {"mode": "multiRow", "enableClickSelection": False},
        "selectionColumnDef": {"pinned": "left", "width": 44},
        "animateRows": False,
        "suppressCellFocus": False,
        "tooltipShowDelay": 300,
        "ensureDomOrder": True,
        "enableCellTextSelection": True,
    }
    search: Any = dmc.TextInput(
        id="runs-search", placeholder="Search", size="sm", className="fs-search", **labelled("Search the runs")
    )
    pick = dmc.Button("Compare", id="compare-selected", variant="default", size="xs", disabled=True)
    grid = AgGrid(
        id="runs-grid",
        columnDefs=columns([]),
        rowData=[],
        getRowId="params.data.run",
        defaultColDef={"sortable": True, "filter": True, "resizable": True},
        dashGridOptions=options,
        style={"height": "min(68vh, 760px)", "width": "100%"},
    )
    return [
        html.Section(
            [html.H1("Runs", className="fs-headline"), html.P(id="runs-told", className="fs-detail")],
            className="fs-summary",
            **labelled("Summary"),
        ),
        html.Div([search, html.Div(pick, className="fs-tools")], className="fs-toolbar"),
        grid,
        html.P(
            "Score: OLMo 2's spike score, the share of steps whose gradient norm is at least 7 σ from the mean of the "
            "last 1,000. Columns to the right are the settings that differ.",
            className="fs-note fs-wide",
        ),
    ]


def _theme() -> str:
    inside = ", ".join(f"{key}: {value!r}" for key, value in _PARAMS.items())
    return "{" + inside + "}"


def register(app: Dash, runs: Runs) -> None:
    """The grid's rows whenever they are asked for; its columns when the settings that differ are others."""
    summaries = Summaries(runs)

    @app.callback(
        *(Output("runs-grid", "rowData"), Output("runs-grid", "columnDefs"), Output("runs-told", "children")),
        Input("want-runs", "data"),
        *(State("runs-grid", "rowData"), State("runs-grid", "columnDefs")),
        prevent_initial_call=True,
    )
    async def fill(wanted: object, held: object, held_columns: object) -> Any:
        lines = await asyncio.to_thread(summaries.rows)
        fields = differing([line.config for line in lines])
        brief = isinstance(wanted, dict) and wanted.get("narrow") is True
        shown, rows = columns(fields, brief=brief), [row(line, fields) for line in lines]
        return (
            rows if rows != held else no_update,
            shown if shown != held_columns else no_update,
            told(lines),
        )


def told(lines: Sequence[Summary]) -> str:
    """How many runs there are, and in what state."""
    if not lines:
        return "No runs yet."
    states = {state: sum(line.state == state for line in lines) for state in dict.fromkeys(x.state for x in lines)}
    parts = ", ".join(f"{count} {state}" for state, count in states.items())
    searching = sum(line.spikes is None and line.state not in ("broken", "deleted") for line in lines)
    more = f" Looking for spikes in {searching} of them." if searching else ""
    return f"{len(lines)} {'run' if len(lines) == 1 else 'runs'}: {parts}.{more}"


def row(line: Summary, fields: Sequence[str]) -> dict[str, Any]:
    """A grid row as plain JSON values; accuracies and shares in per cent."""

    def percent(share: float | None, digits: int = 1) -> float | None:
        return None if share is None else round(100 * share, digits)

    settings = flat(line.config)
    return {
        "run": line.run,
        "state": line.state,
        "message": line.message,
        "progress": percent(line.progress),
        "step": line.step,
        "left": None if line.left_s is None else duration(line.left_s),
        "knn": percent(line.knn),
        "best": percent(line.best),
        "spark": list(line.spark),
        "spikes": line.spikes,
        "dips": line.dips,
        "score": percent(line.score, 3),
        **{_field(name): _cell(settings.get(name)) for name in fields},
    }


def duration(seconds: float) -> str:
    """A span of time as text.

    >>> duration(42), duration(400), duration(7500), duration(200_000)
    ('42 s', '6 min 40 s', '2 h 05 min', '2 d 7 h')
    """
    whole = round(max(0.0, seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _field(name: str) -> str:
    """A column's id: the grid reads a dot as a path into the row."""
    return "config:" + name.replace(".", "/")


def _label(name: str, fields: Sequence[str]) -> str:
    """The last part of a setting's name; the last two where that alone would not tell which.

    >>> _label("optim.lr", ["optim.lr"]), _label("method.name", ["method.name", "seed"])
    ('lr', 'method.name')
    """
    last = name.rpartition(".")[2]
    told = last != "name" and sum(other.rpartition(".")[2] == last for other in fields) == 1
    return last if told else ".".join(name.split(".")[-2:])


def _cell(value: Any) -> Any:
    return value if type(value) in (int, float) and value == value else shown(value)


# What is not known yet is "…", what a run does not have "–"; both sort below every number.
_KNOWN = "params.data.spikes == null && !['broken', 'deleted'].includes(params.data.state)"


def _number(form: str, late: bool = False) -> dict[str, Any]:
    """A column of numbers in d3's format `form`; `late` ones come when the run has been searched for spikes."""
    missing = f"({_KNOWN} ? '…' : '–')" if late else "'–'"
    shown = {"function": f"params.value == null ? {missing} : d3.format({form!r})(params.value)"}
    return {"filter": "agNumberColumnFilter", "type": "rightAligned", "valueFormatter": shown}


def columns(fields: Sequence[str], *, brief: bool = False) -> list[dict[str, Any]]:
    """The grid's columns, the settings `fields` last; `brief` are those that a phone has room for.

    The grid keeps a column's width and place when it gets new ones, unless they are said.
    """

    def column(field: str, name: str, width: int, hint: str = "", **more: Any) -> dict[str, Any]:
        return {"field": field, "headerName": name, "width": width, "headerTooltip": hint or name, **more}

    if brief:
        plain: dict[str, Any] = {"filter": False, "resizable": False}
        name = {
            "cellRenderer": "FsRunBrief",
            "flex": 1,
            "minWidth": 120,
            "autoHeight": True,
            "wrapText": True,
            "pinned": None,
        }
        return [
            column("run", "Run", 150, tooltipField="message", **name, **plain),
            column("knn", "kNN, %", 72, **{**_number(".1f"), **plain}),
            column("spikes", "Spikes", 66, **{**_number(",d", late=True), **plain}),
            column("dips", "Dips", 56, **{**_number(",d", late=True), **plain}),
        ]
    return [
        column("run", "Run", 210, pinned="left", flex=None, cellRenderer="FsRun", tooltipField="run"),
        column("state", "State", 110, cellRenderer="FsState", tooltipField="message"),
        column("progress", "Done, %", 130, "steps done of all", **{**_number(".0f"), "cellRenderer": "FsProgress"}),
        column("left", "Time left", 130, "at the pace of the last 200 steps"),
        column("knn", "kNN, %", 115, "the newest evaluation", **_number(".1f")),
        column("best", "Best, %", 115, "the highest single evaluation", **_number(".1f")),
        column("spark", "kNN curve", 130, cellRenderer="FsSpark", sortable=False, filter=False),
        column("spikes", "Spikes", 95, "after the warm-up, over all layers", **_number(",d", late=True)),
        column("dips", "Dips", 85, **_number(",d", late=True)),
        column(
            "score",
            "Score, %",
            120,
            "steps at least 7 sigma from the mean of the last 1,000; runs of 1,000 steps and fewer have none",
            **_number(".3~f", late=True),
        ),
        *(column(_field(name), _label(name, fields), 120, name) for name in fields),
    ]
