"""The dashboard's server: `create_app(root)` gives the Dash app, `serve(root)` runs it on 127.0.0.1.

A browser asks for the whole picture once (an ordinary callback); then a websocket callback pushes what is new. Where
no websocket gets through, the same question is asked again every two seconds.
"""

from __future__ import annotations

__all__ = ["create_app", "serve"]

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update, set_props
from fastapi import FastAPI

from .follow import Runs
from .guard import Guard, Tidy, allowed_hosts
from .page import STATES, page, run_options, tables
from .panels import panel
from .pushes import Cursor, Message, best_spike, full, update
from .view import look
from .words import about_focus

PUSH_S = 0.5  # between two looks at the disk for one browser
BEAT_S = 2.0  # a sign of life when there is nothing new; the browser polls after five seconds without
ROLL_CALL_S = 20.0  # between two questions whether the page is still there: a closed tab says no goodbye
COLUMNS = (200, 2000)

_log = logging.getLogger("foreshock.dashboard")


def create_app(root: str | Path, *, host: str = "127.0.0.1") -> Dash:
    """The app for the runs under `root`, to be served by any ASGI server: `create_app(root).server`.

    It answers only to loopback names and to `host`, whatever address it is bound to.
    """
    runs = Runs(root)
    app = Dash(
        __name__,
        server=FastAPI(docs_url=None, redoc_url=None, openapi_url=None),  # type: ignore[arg-type]  # no foreign scripts
        backend="fastapi",
        websocket_callbacks=False,  # only the stream is: the rest must work where no websocket does
        websocket_inactivity_timeout=0,
        title="foreshock",
        update_title=None,  # type: ignore[arg-type]
        serve_locally=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        on_error=_failed,
        add_log_handler=False,
        meta_tags=[{"name": "color-scheme", "content": "light dark"}],
    )
    app.enable_dev_tools(debug=False)
    app.layout = lambda: page(runs.names(), str(root))
    _scripts(app)
    _answers(app, runs)
    _stream(app, runs)
    server: Any = app.server
    server.add_middleware(Tidy, callbacks=app.callback_map)
    server.add_middleware(Guard, hosts=allowed_hosts(host))
    return app


def serve(root: str | Path, host: str = "127.0.0.1", port: int = 8050) -> None:
    """Serve the dashboard of the runs under `root` until interrupted."""
    app = create_app(root, host=host)
    # Dash's own `run` obeys the HOST variable and leaves its child alive; uvicorn does neither.
    uvicorn.run(app.server, host=host, port=port, log_level="warning", ws_max_size=2**20)


def _failed(error: Exception) -> None:
    """A callback failed: our bug. Log it with its traceback, and say so on the page instead of standing still."""
    _log.error("a dashboard callback failed", exc_info=error)
    set_props("detail", {"children": f"The dashboard could not draw this: {type(error).__name__}. Its log says more."})


def _scripts(app: Dash) -> None:
    """The callbacks that run in the browser (assets/foreshock.js)."""
    here = partial(ClientsideFunction, "foreshock")
    figures = Output({"type": "panel", "name": ALL}, "figure")
    drawn_from = [Input(name, "data") for name in ("push", "focus", "zoom", "scheme")]
    app.clientside_callback(here("compose"), figures, *drawn_from, State("schemes", "data"))
    app.clientside_callback(
        here("arrive"),
        Output("run", "value"),
        Output("spike", "data"),
        Input("url", "search"),
        Input("run", "data"),
        State("run", "value"),
    )
    app.clientside_callback(here("choose"), Output("want", "data"), Input("run", "value"))
    app.clientside_callback(
        here("address"),
        Output("wanted-focus", "data"),
        Input("run", "value"),
        Input("spike", "data"),
        Input("push", "data"),
    )
    app.clientside_callback(
        here("zoomed"),
        Output("zoom", "data"),
        Input({"type": "panel", "name": ALL}, "relayoutData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        here("clicked"),
        Output("spike", "data", allow_duplicate=True),
        Input({"type": "panel", "name": ALL}, "clickData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        here("pause"), Output("pause", "children"), Input("pause", "n_clicks"), prevent_initial_call=True
    )
    app.clientside_callback(
        here("whole"),
        Output("zoom", "data", allow_duplicate=True),
        Input("whole", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(here("tick"), Output("link", "children"), Input("clock", "n_intervals"))


def _answers(app: Dash, runs: Runs) -> None:
    """The ordinary callbacks: the whole picture (or, when polled, its tail), one spike close up, the list of runs."""

    @app.callback(Output("push", "data"), Input("want", "data"), prevent_initial_call=True)
    def load(want: object) -> Any:
        asked = _Asked(want)
        follower = runs.follower(asked.run)
        if follower is None:
            return _unknown(asked.run)
        snapshot = follower.snapshot()
        if snapshot.trace is None:
            return _unreadable(snapshot.run, snapshot.state, snapshot.message)
        if asked.cursor is not None and asked.window is None:
            message = update(snapshot, asked.cursor, asked.columns)
        else:
            message = full(snapshot, asked.columns, asked.window)
        if message is None:
            return {"kind": "beat", "run": snapshot.run, "state": snapshot.state}
        _deliver(message, snapshot.state, snapshot.message)
        return message.push

    @app.callback(Output("focus", "data"), Input("wanted-focus", "data"), prevent_initial_call=True)
    def focus(wanted: object) -> Any:
        asked = wanted if isinstance(wanted, Mapping) else {}
        follower = runs.follower(asked["run"]) if isinstance(asked.get("run"), str) else None
        snapshot = follower.snapshot() if follower is not None else None
        if snapshot is None or snapshot.trace is None:
            return no_update
        key = asked.get("spike") or best_spike(snapshot)
        try:
            view = look(snapshot.trace, snapshot.spikes, snapshot.dips, run=snapshot.run, columns=1, spike=str(key))
        except ValueError as error:  # an address that names no layer of this run
            _text("neighbourhood", str(error))
            return no_update
        drawn = panel("neighbourhood").draw(view)
        _text("neighbourhood", drawn.words if view.focus is None else about_focus(view.focus))
        return {"run": snapshot.run, "figures": {"neighbourhood": drawn.figure}, "spike": key}

    @app.callback(
        Output("run", "data"),
        Output("no-runs", "hidden"),
        Output("run-view", "hidden"),
        Input("listing", "n_intervals"),
        State("run", "data"),
        prevent_initial_call=True,
    )
    def listing(_: object, known: object) -> Any:
        options = run_options(runs.names())
        if options == known:
            return no_update, no_update, no_update
        return options, bool(options), not options and not known


def _stream(app: Dash, runs: Runs) -> None:
    """The websocket callback: one loop a page, pushing what is new."""
    newest: dict[str, object] = {}  # by page: a page that attaches anew ends its older loop

    @app.callback(Input("attach", "data"), websocket=True, persistent=True, prevent_initial_call=True)
    async def stream(attach: object) -> None:
        socket = ctx.websocket
        asked = _Asked(attach)
        if socket is None or not asked.page or (follower := runs.follower(asked.run)) is None:
            return
        token = newest[asked.page] = object()
        held, spoke, called = asked.cursor, time.monotonic(), time.monotonic()
        try:
            while not socket.is_shutdown and newest.get(asked.page) is token:
                snapshot = await asyncio.to_thread(follower.snapshot)
                message = await asyncio.to_thread(update, snapshot, held, asked.columns)
                now = time.monotonic()
                if message is not None:
                    held, spoke = message.cursor, now
                    set_props("push", {"data": {**message.push, "via": "socket"}})
                    _deliver(message, snapshot.state, snapshot.message)
                elif now - spoke >= BEAT_S:
                    spoke = now
                    beat = {"kind": "beat", "run": snapshot.run, "state": snapshot.state, "via": "socket"}
                    set_props("push", {"data": beat})
                    _state(snapshot.state, snapshot.message)
                if now - called >= ROLL_CALL_S:
                    called = now
                    if await socket.get_prop("run", "value", timeout=10) != asked.run:
                        return
                await asyncio.sleep(PUSH_S)
        except TimeoutError:
            return  # the tab was closed while another one keeps the connection
        finally:
            if newest.get(asked.page) is token:
                del newest[asked.page]


class _Asked:
    """A browser's question; anything of the wrong type counts as not given."""

    def __init__(self, data: object) -> None:
        given: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self.run = given["run"] if isinstance(given.get("run"), str) else ""
        self.page = given["page"][:64] if isinstance(given.get("page"), str) else ""
        self.cursor = Cursor.parse(given.get("cursor"))
        width = given.get("columns")
        self.columns = min(max(width, COLUMNS[0]), COLUMNS[1]) if type(width) is int else 1000
        window = given.get("window")
        fine = isinstance(window, list) and len(window) == 2 and all(_number(edge) for edge in window)
        self.window = (float(window[0]), float(window[1])) if fine and isinstance(window, list) else None


def _number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e18  # type: ignore[arg-type,operator]  # False for NaN


def _deliver(message: Message, state: str, reason: str) -> None:
    """Send the words and tables that go with a push."""
    _state(state, reason, message.counts)
    set_props("headline", {"children": message.headline})
    if message.announcement:
        set_props("announce", {"children": message.announcement})
    for name, drawn in (message.drawn or {}).items():
        if name != "neighbourhood":
            _text(name, drawn.words)
        if drawn.tables:
            set_props({"type": "tables", "name": name}, {"children": tables(drawn.tables)})


def _text(name: str, words: str) -> None:
    set_props({"type": "words", "name": name}, {"children": words})


def _state(state: str, reason: str, counts: str = "") -> None:
    """The badge, and below the headline what it means where that is not plain."""
    colour, meaning = STATES.get(state, ("gray", ""))
    told = [counts, "" if state in ("running", "finished") else meaning, reason]
    set_props("badge", {"children": state, "color": colour})
    if any(told):
        set_props("detail", {"children": " ".join(filter(None, told))})


def _unknown(run: str) -> dict[str, Any]:
    set_props("headline", {"children": f"There is no run called “{run[:80]}” here." if run else "Choose a run."})
    _state("deleted", "")
    return {"kind": "none", "run": run[:200], "state": "deleted"}


def _unreadable(run: str, state: str, reason: str) -> dict[str, Any]:
    set_props("headline", {"children": "This run cannot be read."})
    _state(state, reason)
    return {"kind": "none", "run": run, "state": state}
