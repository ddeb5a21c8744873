"""What a run was told and what happened to it: the resolved config, events, skipped steps, the environment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html

from ...traces.reader import Trace
from ..asked import Asked
from ..cards import card, labelled, tables
from ..configs import flat, shown
from ..follow import Runs
from ..view import Table

TITLE = "Config and log"
ORDER = 60

SKIPPED = ("overflow", "nonfinite", "skipped")  # kinds of events that say that a step was not taken as planned
ROWS = 400

_CARDS = {
    "config": ("Configuration", "Every setting as it was used, defaults and derived values resolved."),
    "log": ("Log", "What the run noted while it ran, newest first."),
    "skipped": ("Skipped and non-finite steps", "Steps that were not taken as planned."),
    "environment": ("Run and environment", "What the trace says about itself and where it was made."),
}


def layout() -> list[Any]:
    """Four cards; a search field above the configuration hides the rows that do not match."""
    search = dmc.TextInput(
        id="settings-search", placeholder="Search", size="xs", className="fs-search", **labelled("Search the settings")
    )

    def one(name: str) -> html.Section:
        title, how = _CARDS[name]
        inside = [html.Div(id=f"settings-{name}")]
        return card(title, how, [search, *inside] if name == "config" else inside, f"settings-{name}")

    columns = [
        html.Div([one("config")], className="fs-column"),
        html.Div(list(map(one, list(_CARDS)[1:])), className="fs-column"),
    ]
    heading = [html.H1("Config and log", className="fs-headline"), html.P(id="settings-told", className="fs-detail")]
    return [
        html.Section(heading, className="fs-summary", **labelled("Summary")),
        html.Div(columns, id="settings-cards", className="fs-grid fs-halves", hidden=True),
    ]


def register(app: Dash, runs: Runs) -> None:
    """The tables of the chosen run."""

    @app.callback(
        *(Output(f"settings-{name}", "children") for name in _CARDS),
        *(Output("settings-told", "children"), Output("settings-cards", "hidden")),
        Input("want-settings", "data"),
        prevent_initial_call=True,
    )
    async def fill(wanted: object) -> Any:
        asked = Asked(wanted)
        follower = await asyncio.to_thread(runs.follower, asked.run)
        snapshot = await asyncio.to_thread(follower.snapshot) if follower is not None else None
        if snapshot is None:
            return (*([] for _ in _CARDS), "Choose a run.", True)
        if snapshot.trace is None:
            return (*([] for _ in _CARDS), f"This run cannot be read. {snapshot.message}", True)
        drawn = tables_of(snapshot.trace)
        return (*(tables([drawn[name]]) for name in _CARDS), told(snapshot.trace), False)


def tables_of(trace: Trace) -> dict[str, Table]:
    """The four tables by their cards' names."""
    return {"config": _config(trace), "log": _log(trace), "skipped": _skipped(trace), "environment": _about(trace)}


def told(trace: Trace) -> str:
    """The run in a line."""
    settings = len(flat(trace.config))
    return f"{trace.name}: {settings} settings, {len(trace.events)} events in {len(trace):,} steps."


def _config(trace: Trace) -> Table:
    rows = tuple((name, shown(value)) for name, value in flat(trace.config).items())
    return Table("Settings", ("Setting", "Value"), rows, note="" if rows else "This run recorded no configuration.")


def _log(trace: Trace) -> Table:
    newest = trace.events[: -ROWS - 1 : -1]
    rows = tuple(_event(event) for event in newest)
    more = len(trace.events) - len(newest)
    note = f"The newest {ROWS} of {len(trace.events):,} events." if more > 0 else "" if rows else "No events."
    return Table("Events", ("Step", "Kind", "What happened"), rows, note=note)


def _skipped(trace: Trace) -> Table:
    found = [event for event in trace.events if event.get("kind") in SKIPPED]
    rows = tuple(_event(event) for event in found[: -ROWS - 1 : -1])
    return Table("Skipped steps", ("Step", "Kind", "What happened"), rows, note="" if rows else "None.")


def _event(event: dict[str, Any]) -> tuple[str, str, str]:
    step = event.get("step")
    return (f"{step:,}" if isinstance(step, int) else "–", str(event.get("kind", "")), str(event.get("text", "")))


def _about(trace: Trace) -> Table:
    facts: dict[str, Any] = {
        "state": trace.state,
        "message": trace.message or "–",
        "steps recorded": f"{len(trace):,}",
        "layers": len(trace.layers),
        "series of every layer": ", ".join(trace.series) or "–",
        "scalars": ", ".join(trace.scalars) or "–",
        "started": _when(trace.attrs.get("created")),
        "last written": _when(trace.heartbeat),
        "times resumed": trace.generation,
        "format version": trace.attrs.get("format_version"),
        **flat(trace.meta),
    }
    return Table("Facts", ("Fact", "Value"), tuple((name, shown(value)) for name, value in facts.items()))


def _when(seconds: Any) -> str:
    """A time as UTC.

    >>> _when(0), _when("2026-01-01T10:00:00.52+00:00"), _when("today")
    ('1970-01-01 00:00:00 UTC', '2026-01-01 10:00:00 UTC', 'today')
    """
    if isinstance(seconds, str):
        try:
            seconds = datetime.fromisoformat(seconds).timestamp()
        except ValueError:
            return seconds
    if type(seconds) not in (int, float):
        return shown(seconds)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
