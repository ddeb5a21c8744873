"""One spike or dip: every layer aligned on its onset, the accuracy around it, and what happened in a sentence."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html

from ..cards import data, labelled, panel_card
from ..follow import Runs
from ..panels import panels, panels_in

TITLE = "Event"
ORDER = 30


def layout() -> list[Any]:
    """The sentence, the charts on one axis of steps since the onset, and the table of onsets."""
    cards = {name: panel_card(name, panel) for name, panel in panels_in("event").items()}
    charts = [found for name, found in cards.items() if panels()[name].HEIGHT]
    rest = [found for name, found in cards.items() if not panels()[name].HEIGHT]

    def button(text: str, step: str, label: str) -> Any:
        return dmc.Button(text, variant="default", size="xs", **data(neighbour=step), **labelled(label))

    steps = [button("‹ Spike", "-1", "Previous spike (p)"), button("Spike ›", "1", "Next spike (n)")]
    heading = html.Section(
        [
            html.Div(
                [
                    html.H1("No event is chosen.", id="event-told", className="fs-headline"),
                    html.Div(steps, className="fs-tools"),
                ],
                className="fs-toolbar",
            ),
        ],
        className="fs-summary",
        **labelled("Summary"),
    )
    columns = [html.Div(charts, className="fs-column"), html.Div(rest, className="fs-column")]
    return [heading, html.Div(columns, id="event-cards", className="fs-grid", hidden=True)]


def register(app: Dash, runs: Runs) -> None:
    """Nothing of its own: the run's view sends the event's panels along with the close-up."""
