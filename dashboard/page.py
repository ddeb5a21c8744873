"""The frame around the views: header with navigation and run picker, empty states, what the page remembers."""

from __future__ import annotations

__all__ = ["KEYS", "page"]

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from .cards import data, hidden, labelled
from .live import run_options
from .theme import SCHEMES
from .views import views

_POLITE: dict[str, Any] = {"aria-live": "polite"}

# Key and meaning; the browser acts on them (assets/keys.js).
KEYS = (
    ("n / p", "next / previous spike"),
    ("+ / −", "zoom in / out"),
    ("← / →", "pan, when zoomed"),
    ("0", "whole run"),
    ("e", "the chosen event in full"),
    ("1 … 6", "views"),
    ("space", "pause or resume the updates"),
    ("t", "light or dark"),
    ("?", "this list"),
)
# What the page remembers, all in the browser; the address bar holds what makes a link.
STORES = (
    "push",
    "focus",
    "evidence",
    "signals",
    "comparison",
    "want",
    "attach",
    "scheme",
    "event",
    "view",
    "wanted-focus",
)
WANTED = ("want-runs", "want-evidence", "want-compare", "want-settings")  # questions of the views to the server


def page(names: Sequence[str], root: str) -> dmc.MantineProvider:
    """The whole page for a visitor who arrives when `names` are the runs under `root`."""
    body = html.Main(
        [
            html.Div(_no_runs(root), id="no-runs", hidden=bool(names)),
            html.Div([_view(name, view.layout()) for name, view in views().items()], id="views", hidden=not names),
        ],
        id="content",
        tabIndex=-1,
    )
    return dmc.MantineProvider(
        [
            *_state(),
            html.A("Skip to the charts", href="#content", className="fs-skip"),
            _header(names),
            body,
            _help(),
        ],
        defaultColorScheme="auto",
        theme={"primaryColor": "blue", "fontFamily": "Inter, 'Segoe UI', system-ui, -apple-system, Arial, sans-serif"},
    )


def _view(name: str, inside: list[Any]) -> html.Div:
    return html.Div(inside, id={"type": "view", "name": name}, className=f"fs-view fs-view-{name}", hidden=True)


def _state() -> list[Any]:
    """What the page remembers, and the clocks that notice when the server has gone quiet and ask for new runs."""
    return [
        dcc.Location(id="url", refresh=False),
        *(dcc.Store(id=name) for name in (*STORES, *WANTED)),
        dcc.Store(id="schemes", data=SCHEMES),
        dcc.Interval(id="clock", interval=1000),
        dcc.Interval(id="listing", interval=5000),
        html.Div(id="announce", role="status", className="fs-unseen", **_POLITE),
    ]


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
        attributes={"input": labelled("Run")},
    )
    badge = html.Span("loading" if names else "no runs", id="badge", className="fs-state")
    links = [
        html.Button(
            _short(view.TITLE), type="button", className="fs-link-to", **data(view=name), **labelled(view.TITLE)
        )
        for name, view in views().items()
    ]
    controls = [
        html.Button("?", type="button", className="fs-round", **data(help="open"), **labelled("Keyboard and help")),
        dmc.ColorSchemeToggle(
            lightIcon=html.Span("☀", **hidden()),
            darkIcon=html.Span("☾", **hidden()),
            size="md",
            variant="default",
            id="toggle",
            **labelled("Switch between light and dark"),
        ),
    ]
    brand = [html.Span(className="fs-mark", **hidden()), html.Span("foreshock")]
    status = html.Div([badge, html.Span(id="link", className="fs-link")], className="fs-status")
    top = [
        html.Div(brand, className="fs-brand"),
        html.Nav(links, className="fs-nav", **labelled("Views")),
        picker,
        status,
        html.Div(controls, className="fs-controls"),
    ]
    return html.Header(top, className="fs-header")


def _short(title: str) -> list[Any]:
    """A title whose part from "and" on is hidden where the navigation has no room for it."""
    first, middle, rest = title.partition(" and ")
    return [first, html.Span(middle + rest, className="fs-wide")]


def _no_runs(root: str) -> html.Section:
    return html.Section(
        [
            html.Div(className="fs-mark fs-mark-large", **hidden()),
            html.H1("No runs yet", className="fs-headline"),
            html.P(["Nothing under ", html.Code(root), " is a trace. Start a run, and it appears here by itself:"]),
            html.Pre("foreshock train demo --trace runs/first"),
            html.P(["or attach to your own training loop with ", html.Code("foreshock.probes.watch"), "."]),
        ],
        className="fs-empty",
    )


def _help() -> html.Dialog:
    rows = [html.Tr([html.Th(html.Kbd(key), scope="row"), html.Td(meaning)]) for key, meaning in KEYS]
    inside = [
        html.H2("Keyboard"),
        html.Div(html.Table(html.Tbody(rows)), className="fs-table"),
        dmc.Checkbox(id="keys-on", label="Act on single keys", checked=True, persistence=True, size="sm"),
        html.P(
            "Drag in a chart or on the strip above the charts to zoom; double-click shows the whole run. The address "
            "bar holds run, view, layers, zoom and event: copy it, and the link opens the same picture.",
            className="fs-note",
        ),
        html.Button("Close", type="button", className="fs-button", **data(help="close")),
    ]
    return html.Dialog(inside, id="help", className="fs-dialog", **labelled("Keyboard and help"))
