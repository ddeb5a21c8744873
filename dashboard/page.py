"""The page: header, the panels' cards, empty states, and the tables, as Dash components."""

from __future__ import annotations

__all__ = ["STATES", "page", "run_options", "tables"]

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from .panels import Panel, panels
from .theme import SCHEMES
from .view import Table

# Colour and meaning of a run's state; the text is in the badge too, so colour is never the only sign.
STATES = {
    "running": ("teal", "The run is being written."),
    "stalled": ("yellow", "The run says it is running, but nothing has been written for a minute."),
    "finished": ("blue", "The run has ended."),
    "failed": ("red", "The run ended with an error."),
    "deleted": ("gray", "The run's folder is gone; this is what was read before."),
    "broken": ("red", "The run cannot be read."),
    "not found": ("gray", "Choose one of the runs in the list."),
}

_CONFIG: Any = {
    "displaylogo": False,
    "responsive": True,
    "doubleClick": "autosize",
    "displayModeBar": "hover",
    "showTips": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],  # none that uploads
    "toImageButtonOptions": {"format": "svg"},
}


_HIDDEN: dict[str, Any] = {"aria-hidden": "true"}
_POLITE: dict[str, Any] = {"aria-live": "polite"}


def _labelled(label: str) -> dict[str, Any]:
    return {"aria-label": label}


def page(names: Sequence[str], root: str) -> dmc.MantineProvider:
    """The whole page for a visitor who arrives when `names` are the runs under `root`."""
    found = panels()
    main = [_card(name, panel) for name, panel in found.items() if panel.PLACE == "main"]
    side = [_card(name, panel) for name, panel in found.items() if panel.PLACE != "main"]
    body = html.Main(
        [
            html.Div(_no_runs(root), id="no-runs", hidden=bool(names)),
            html.Div(
                [
                    _summary(),
                    html.Div(
                        [html.Div(main, className="fs-column"), html.Div(side, className="fs-column")],
                        className="fs-grid",
                        id="charts",
                    ),
                ],
                id="run-view",
                hidden=not names,
            ),
        ],
        id="content",
    )
    return dmc.MantineProvider(
        [*_state(), html.A("Skip to the charts", href="#content", className="fs-skip"), _header(names), body],
        defaultColorScheme="auto",
        theme={"primaryColor": "blue", "fontFamily": "Inter, 'Segoe UI', system-ui, -apple-system, Arial, sans-serif"},
    )


def _state() -> list[Any]:
    """What the page remembers, and the clock that notices when the server has gone quiet."""
    stores = ("push", "focus", "want", "attach", "zoom", "scheme", "spike", "paused", "wanted-focus", "size")
    return [
        dcc.Location(id="url", refresh=False),
        *(dcc.Store(id=name) for name in stores),
        dcc.Store(id="schemes", data=SCHEMES),
        dcc.Interval(id="clock", interval=1000),
        dcc.Interval(id="listing", interval=5000),
        html.Div(id="announce", role="status", className="fs-unseen", **_POLITE),
    ]


def run_options(names: Sequence[str]) -> list[dict[str, str]]:
    """The choices of the run picker."""
    return [{"value": name, "label": name} for name in names]


def _header(names: Sequence[str]) -> html.Header:
    picker = dmc.Select(
        id="run",
        data=run_options(names),
        searchable=True,
        allowDeselect=False,
        nothingFoundMessage="No such run",
        placeholder="Choose a run",
        size="sm",
        className="fs-picker",
        attributes={"input": {"aria-label": "Run"}},
    )
    controls = [
        dmc.Button("Whole run", id="whole", variant="default", size="xs", disabled=True),
        dmc.Button("Pause", id="pause", variant="default", size="xs"),
        dmc.ColorSchemeToggle(
            lightIcon=html.Span("☀", **_HIDDEN),
            darkIcon=html.Span("☾", **_HIDDEN),
            size="md",
            variant="default",
            id="toggle",
            **_labelled("Switch between light and dark"),
        ),
    ]
    return html.Header(
        [
            html.Div(
                [html.Span(className="fs-mark", **_HIDDEN), html.Span("foreshock")],
                className="fs-brand",
            ),
            picker,
            html.Div(
                [
                    dmc.Badge(
                        "loading" if names else "no runs", id="badge", color="gray", variant="light", radius="sm"
                    ),
                    html.Span(id="link", className="fs-link"),
                ],
                className="fs-status",
            ),
            html.Div(controls, className="fs-controls"),
        ],
        className="fs-header",
    )


def _summary() -> html.Section:
    return html.Section(
        [
            html.H1("Loading the run…", id="headline", className="fs-headline"),
            html.P(id="detail", className="fs-detail"),
        ],
        className="fs-summary",
        **_labelled("Summary"),
    )


def _no_runs(root: str) -> html.Section:
    return html.Section(
        [
            html.Div(className="fs-mark fs-mark-large", **_HIDDEN),
            html.H1("No runs yet", className="fs-headline"),
            html.P(["Nothing under ", html.Code(root), " is a trace. Start a run, and it appears here by itself:"]),
            html.Pre("foreshock train demo --trace runs/first"),
            html.P(["or attach to your own training loop with ", html.Code("foreshock.probes.watch"), "."]),
        ],
        className="fs-empty",
    )


def _card(name: str, panel: Panel) -> html.Section:
    inside: list[Any] = [
        html.Div([html.H2(panel.TITLE), html.Span(panel.HELP, className="fs-help")], className="fs-title")
    ]
    if panel.HEIGHT:
        graph = dcc.Graph(
            id={"type": "panel", "name": name},
            config=_CONFIG,
            style={"height": f"{panel.HEIGHT}px"},
            figure={"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}},
        )
        inside.append(html.Div(graph, role="group", **_labelled(f"Chart, told in words below: {panel.TITLE}")))
    spoken = "fs-words" if panel.PLACE == "side" and panel.HEIGHT else "fs-unseen"
    inside.append(html.P(id={"type": "words", "name": name}, className=spoken))
    inside.append(html.Div(id={"type": "tables", "name": name}))
    return html.Section(inside, className="fs-card", id=f"card-{name}", **_labelled(panel.TITLE))


def tables(drawn: Sequence[Table]) -> list[html.Div]:
    """Tables with a caption and header cells; a row's button opens its spike, by mouse or keyboard."""
    return [_table(table) for table in drawn]


def _table(table: Table) -> html.Div:
    head = html.Thead(html.Tr([html.Th(title, scope="col") for title in table.header]))
    rows = [_row(row, table.keys[i] if table.keys else "") for i, row in enumerate(table.rows)]
    parts: list[Any] = [html.Table([html.Caption(table.caption), head, html.Tbody(rows)])] if rows else []
    if not rows:
        parts.append(html.H3(table.caption))
    if table.note:
        parts.append(html.P(table.note, className="fs-note"))
    return html.Div(parts, className="fs-table")


def _row(cells: Sequence[str], key: str) -> html.Tr:
    first: Any = cells[0]
    if key:
        told: dict[str, Any] = {"data-spike": key, **_labelled(f"Show the spike at step {cells[0]}")}
        first = html.Button(cells[0], type="button", **told)
    rest = [html.Td(cell) for cell in cells[1:]]
    opens: dict[str, Any] = {"data-row": key} if key else {}
    return html.Tr([html.Th(first, scope="row"), *rest], **opens)
