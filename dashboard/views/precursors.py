"""Do spikes precede dips more than chance? Layer by layer; which signal warns of dips, and which layer is first."""

from __future__ import annotations

import asyncio
from math import isfinite
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html, no_update, set_props

from ...traces.errors import TraceError
from ..asked import Asked
from ..cards import labelled, pair, panel_card, said, tell
from ..evidence import Evidence, Evidences
from ..follow import Runs, Snapshot
from ..panels import panels_in
from ..signals import Reports

TITLE = "Precursors"
ORDER = 40


def layout() -> list[Any]:
    """The verdict, the choice of the layer, and the panels in two columns."""
    picker = dmc.Select(
        id="lag-layer",
        data=[],
        searchable=True,
        clearable=True,
        size="xs",
        placeholder="Layer: the most telling",
        className="fs-search",
        nothingFoundMessage="No such layer",
        attributes={"input": labelled("Layer whose spikes are tested")},
    )
    heading = [
        html.H1("Testing…", id="precursors-told", className="fs-headline"),
        html.P(id="precursors-facts", className="fs-detail"),
    ]
    cards = [panel_card(name, panel) for name, panel in panels_in("precursors", "signals").items()]
    return [
        html.Section(heading, className="fs-summary", **labelled("Summary")),
        html.Div(
            [
                html.Div([picker], className="fs-toolbar"),
                pair(cards),
                html.P(id="precursors-notes", className="fs-note"),
            ],
            id="precursors-cards",
            hidden=True,
        ),
    ]


def register(app: Dash, runs: Runs) -> None:
    """The reports of the chosen run, off the event loop, kept while the run does not change."""
    kept, reports = Evidences(), Reports()

    @app.callback(Output("evidence", "data"), Input("want-evidence", "data"), prevent_initial_call=True)
    async def fill(wanted: object) -> Any:
        asked = Asked(wanted)
        follower = await asyncio.to_thread(runs.follower, asked.run)
        snapshot = await asyncio.to_thread(follower.snapshot) if follower is not None else None
        if snapshot is None or snapshot.trace is None:
            return _nothing("Choose a run." if snapshot is None else "This run cannot be read.", snapshot)
        if not snapshot.rows:
            return _nothing("No steps have been recorded yet.")
        if snapshot.searched < 1:
            return _nothing(f"Looking for spikes: {snapshot.searched:.0%} of the run read.")
        try:
            evidence = await asyncio.to_thread(kept.of, snapshot, asked.layer)
        except ValueError as error:  # no steps beyond the warm-up, or a run that cannot be read
            return _nothing(f"Not testable: {error}.")
        drawn = {name: panel.draw(evidence) for name, panel in panels_in("precursors").items()}
        tell(drawn)
        set_props("precursors-cards", {"hidden": False})
        set_props("precursors-told", {"children": said(verdict(evidence))})
        set_props("precursors-facts", {"children": said(facts(evidence))})
        set_props(
            "precursors-notes",
            {"children": " ".join(f"{note[:1].upper()}{note[1:]}." for note in evidence.report.notes)},
        )
        set_props("lag-layer", {"data": list(evidence.layers)})
        return {"run": asked.run, "figures": {name: part.figure for name, part in drawn.items() if part.figure}}

    @app.callback(Output("signals", "data"), Input("want-evidence", "data"), prevent_initial_call=True)
    async def fill_signals(wanted: object) -> Any:
        asked = Asked(wanted)
        follower = await asyncio.to_thread(runs.follower, asked.run)
        snapshot = await asyncio.to_thread(follower.snapshot) if follower is not None else None
        if snapshot is None or snapshot.trace is None or snapshot.searched < 1:
            return no_update
        try:
            signals = await asyncio.to_thread(reports.of, snapshot)
        except TraceError:  # cut short or deleted just now: the badge says so
            return no_update
        drawn = {name: panel.draw(signals) for name, panel in panels_in("signals").items()}
        tell(drawn)
        return {"run": asked.run, "figures": {name: part.figure for name, part in drawn.items() if part.figure}}


def _nothing(why: str, snapshot: Snapshot | None = None) -> Any:
    """Say why there is nothing to see, in place of the panels: they would show another run."""
    set_props("precursors-told", {"children": why})
    set_props("precursors-facts", {"children": snapshot.message if snapshot is not None else ""})
    set_props("precursors-cards", {"hidden": True})
    return no_update


def verdict(evidence: Evidence) -> str:
    """The report's sentence, as a sentence.

    It says "not testable", and why, where there is too little to test.
    """
    return _sentence(evidence.report.verdict)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def facts(evidence: Evidence) -> str:
    """What went in, and that precedence is not cause."""
    report = evidence.report
    spikes = sum(report.spikes.values())
    dips = f"{report.dips} {'dip' if report.dips == 1 else 'dips'}"
    layers = f"{spikes} {'spike' if spikes == 1 else 'spikes'} of single layers"
    text = f"{layers}, {dips} in {report.steps:,} steps beyond the warm-up. Shown: {evidence.layer or 'none'}."
    if report.lead is not None and report.lead.events:
        text += f" Lead time {report.lead.median:g} steps"
        known = isfinite(report.lead.low) and isfinite(report.lead.high)
        text += f" [{report.lead.low:g}, {report.lead.high:g}]." if known else ", from too few for an interval."
    tested = " Corrected for all layers and lags. What precedes need not cause." if report.testable else ""
    return text + tested
