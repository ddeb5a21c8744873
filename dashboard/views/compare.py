"""Several runs over each other, grouped by a setting, with bands over the seeds and rates of spikes and dips."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html, set_props

from ...traces.errors import TraceError
from ..asked import names_in
from ..cards import labelled, panel_card, said, tell
from ..comparison import Comparison, Member, compare_runs, member_of
from ..follow import Runs
from ..live import run_options
from ..panels import panels, panels_in

TITLE = "Compare"
ORDER = 50
MOST_RUNS = 24

_AXES = [{"value": "step", "label": "step"}, {"value": "epoch", "label": "epoch"}]


def layout() -> list[Any]:
    """The choice of runs and of the setting, and the panels."""
    compared = dmc.MultiSelect(
        id="compared",
        data=[],
        value=[],
        searchable=True,
        clearable=True,
        hidePickedOptions=True,
        maxValues=MOST_RUNS,
        size="xs",
        placeholder="Runs: all",
        className="fs-layers",
        nothingFoundMessage="No such run",
        attributes={"input": labelled("Runs to compare")},
    )
    by = dmc.Select(
        id="by",
        data=[],
        clearable=True,
        size="xs",
        placeholder="Group by: what differs",
        className="fs-search",
        attributes={"input": labelled("Setting to group by")},
    )
    axis: Any = dmc.SegmentedControl(id="axis", data=_AXES, value="step", size="xs", **labelled("Unit of the x axis"))
    heading = [
        html.H1("Compare runs", id="compare-told", className="fs-headline"),
        html.P(id="compare-facts", className="fs-detail"),
    ]
    cards = {name: panel_card(name, panel) for name, panel in panels_in("compare").items()}
    charts = [one for name, one in cards.items() if panels()[name].HEIGHT]
    rest = [one for name, one in cards.items() if not panels()[name].HEIGHT]
    return [
        html.Section(heading, className="fs-summary", **labelled("Summary")),
        html.Div([compared, by, html.Label(["Along ", axis], className="fs-inline")], className="fs-toolbar"),
        html.Div(charts, className="fs-grid fs-halves"),
        html.Div(rest, className="fs-column fs-below"),
    ]


def register(app: Dash, runs: Runs) -> None:
    """The panels of the chosen runs."""

    @app.callback(Output("comparison", "data"), Input("want-compare", "data"), prevent_initial_call=True)
    async def fill(wanted: object) -> Any:
        given = wanted if isinstance(wanted, dict) else {}
        chosen, by = names_in(given.get("runs"))[:MOST_RUNS], given.get("by")
        members = await asyncio.to_thread(_members, runs, chosen)
        comparison = compare_runs(members, by if isinstance(by, str) else "", given.get("axis") == "epoch")
        drawn = {name: panel.draw(comparison) for name, panel in panels_in("compare").items()}
        tell(drawn)
        set_props("compare-told", {"children": said(comparison.verdict)})
        set_props("compare-facts", {"children": said(facts(comparison, given.get("axis") == "epoch"))})
        set_props("compared", {"data": run_options(await asyncio.to_thread(runs.names))})
        set_props("by", {"data": list(comparison.fields)})
        figures = {name: part.figure for name, part in drawn.items() if part.figure}
        return {"figures": figures, "pending": comparison.pending}


def _members(runs: Runs, chosen: Sequence[str]) -> list[Member]:
    found = []
    for name in chosen or runs.names()[:MOST_RUNS]:
        follower = runs.follower(name)
        try:
            member = member_of(follower.snapshot()) if follower is not None else None
        except TraceError:  # cut short or deleted just now
            member = None
        if member is not None:
            found.append(member)
    return found


def facts(comparison: Comparison, epochs_wanted: bool = False) -> str:
    """What the view leaves out, and what is still under way."""
    told = [f"Grouped by {comparison.by}; the band is the range over a group's runs."]
    if comparison.pending:
        told.append(f"Looking for spikes in {comparison.pending} of the runs.")
    if comparison.apart:
        told.append("These runs have no measured layer in common, so spikes are not counted.")
    elif comparison.left_out:
        rest = len(comparison.left_out) - 6
        names = ", ".join(comparison.left_out[:6]) + (f" and {rest} more" if rest > 0 else "")
        told.append(f"Not measured in every run, so their spikes are not counted: {names}.")
    if epochs_wanted and not comparison.epochs:
        told.append("Not every run tells the steps of an epoch, so they stand along steps.")
    return " ".join(told)
