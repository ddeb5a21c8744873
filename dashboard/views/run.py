"""One run: kNN, loss, learning rate and gradients along one step axis, its spikes and dips, a brush over all of it."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html

from ..cards import labelled, panel_card
from ..follow import Runs
from ..live import answer, stream
from ..panels import panels_in

TITLE = "Run"
ORDER = 20

_SCALES = [
    {"value": "ratio", "label": "× normal"},
    {"value": "z", "label": "z"},
    {"value": "norm", "label": "norm"},
]


def layout() -> list[Any]:
    """The sentence, the brush, the controls, and the panels in two columns."""
    main = [panel_card(name, panel) for name, panel in panels_in("main").items()]
    side = [panel_card(name, panel) for name, panel in panels_in("side").items()]
    columns = [html.Div(main, className="fs-column fs-main"), html.Div(side, className="fs-column fs-beside")]
    return [
        html.Section(
            [
                html.H1("Loading the run…", id="headline", className="fs-headline"),
                html.P(id="detail", className="fs-detail"),
            ],
            className="fs-summary",
            **labelled("Summary"),
        ),
        html.Div(
            [
                html.Div([_controls(), html.Div(id="brush", className="fs-brush")], className="fs-card fs-steer"),
                html.Div(columns, className="fs-grid"),
            ],
            id="charts",
        ),
    ]


def register(app: Dash, runs: Runs) -> None:
    """The picture once, then what is new."""
    answer(app, runs)
    stream(app, runs)


def _controls() -> html.Div:
    layers = dmc.MultiSelect(
        id="layers",
        data=[],
        searchable=True,
        clearable=True,
        hidePickedOptions=True,
        maxValues=7,
        size="xs",
        placeholder="Layers: first, middle, last",
        className="fs-layers",
        nothingFoundMessage="No such layer",
        attributes={"input": labelled("Layers drawn as lines")},
    )
    scale: Any = dmc.SegmentedControl(
        id="scale", data=_SCALES, value="ratio", size="xs", **labelled("Scale of the map of all layers")
    )

    def button(text: str, name: str, label: str, **more: Any) -> Any:
        return dmc.Button(text, id=name, variant="default", size="xs", **more, **labelled(label))

    steps = [
        button("‹ Spike", "previous", "Previous spike (p)"),
        button("Spike ›", "next", "Next spike (n)"),
        button("Whole run", "whole", "Show the whole run (0)", disabled=True),
        button("Pause", "pause", "Pause or resume the updates (space)"),
    ]
    map_of = html.Label(["Map ", scale], className="fs-inline")
    return html.Div([layers, map_of, html.Div(steps, className="fs-tools")], className="fs-toolbar")
