"""The callbacks that answer a browser: the whole picture once, then a websocket stream of what is new.

Where no websocket gets through, the ordinary callback is asked every two seconds, with the cursor of what the browser
holds. Reading and searching happen on threads, so that one browser's long run never makes another one wait.
"""

from __future__ import annotations

__all__ = ["STATES", "answer", "answers", "run_options", "stream"]

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dash import Dash, Input, Output, State, ctx, no_update, set_props
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..traces.errors import TraceError
from .asked import Asked
from .cards import said, tell
from .follow import REFRESH_S, Follower, Runs, Snapshot
from .panels import panel, panels_in
from .pushes import GONE, Message, best_spike, close_up, update
from .view import View, look
from .words import about_event, no_event

LARGEST = 2**16  # bytes of a question
PUSH_S = 0.5  # between two looks at the disk for one browser
BEAT_S = 2.0  # a sign of life when there is nothing new; the browser polls after five seconds without
ROLL_CALL_S = 20.0  # between two questions whether the page is still there: a closed tab says no goodbye

# What a run's state means; its name stands beside the coloured dot, so colour is never the only sign.
STATES = {
    "running": "The run is being written.",
    "stalled": "The run says it is running, but nothing has been written for a minute.",
    "finished": "The run has ended.",
    "failed": "The run ended with an error.",
    "deleted": "The run's folder is gone; this is what was read before.",
    "broken": "The run cannot be read.",
    "not found": "Choose one of the runs in the list.",
}


def run_options(names: Sequence[str]) -> list[dict[str, str]]:
    """The choices of the run picker."""
    return [{"value": name, "label": name} for name in names]


def answer(app: Dash, runs: Runs) -> None:
    """Register the ordinary callbacks: a run's picture (or tail), one spike close up, the list of runs."""

    @app.callback(Output("push", "data"), Input("want", "data"), prevent_initial_call=True)
    async def load(want: object) -> Any:
        asked = Asked(want)
        follower = await asyncio.to_thread(runs.follower, asked.run)
        if follower is None:
            return _nothing(
                asked.run, f"There is no run called “{asked.run[:80]}” here." if asked.run else "Choose a run."
            )
        snapshot, message = await asyncio.to_thread(_read, follower, asked)
        if snapshot.trace is None:
            return _nothing(asked.run, "This run cannot be read.", snapshot)
        _deliver(snapshot, message)
        return message.push if message is not None else _beat(snapshot)

    @app.callback(Output("focus", "data"), Input("wanted-focus", "data"), prevent_initial_call=True)
    async def focus(wanted: object) -> Any:
        asked = Asked(wanted)
        follower = await asyncio.to_thread(runs.follower, asked.run)
        view = await asyncio.to_thread(_event, follower, asked.event) if follower is not None else None
        if view is None or isinstance(view, str):
            set_props({"type": "words", "name": "neighbourhood"}, {"children": view or ""})
            nothing = "This run cannot be read." if follower is not None else "Choose a run."
            set_props("event-told", {"children": view or nothing})
            set_props("event-cards", {"hidden": True})  # they would show another event
            return no_update
        drawn = {"neighbourhood": panel("neighbourhood").draw(view)}
        drawn |= {name: found.draw(view) for name, found in panels_in("event").items()}
        set_props("event-told", {"children": said(about_event(view.event) if view.event else no_event(view))})
        set_props("event-cards", {"hidden": view.event is None})
        tell(drawn)
        return {"run": asked.run, "figures": {name: part.figure for name, part in drawn.items() if part.figure}}

    @app.callback(
        *(Output("run", "data"), Output("no-runs", "hidden"), Output("views", "hidden")),
        *(Input("listing", "n_intervals"), State("run", "data")),
        prevent_initial_call=True,
    )
    async def listing(_: object, known: object) -> Any:
        options = run_options(await asyncio.to_thread(runs.names))
        if options == known:
            return no_update, no_update, no_update
        return options, bool(options or known), not (options or known)


def answers(runs: Runs) -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """What is asked apart from Dash, by address: it is there sooner, and costs the page less.

    `POST /picture` gives the first picture of a run while the page still loads, `POST /columns` a zoomed window.
    """

    def by(find: Callable[[Follower, Asked], dict[str, Any] | None]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            body = b""
            async for part in request.stream():
                body += part
                if len(body) > LARGEST:
                    return PlainTextResponse("The question is too long.", 413)
            try:
                asked = Asked(json.loads(body))
            except (ValueError, RecursionError):
                return PlainTextResponse("The question is not JSON.", 400)
            follower = await asyncio.to_thread(runs.follower, asked.run)
            push = None if follower is None else await asyncio.to_thread(find, follower, asked)
            if push is None:
                return Response(status_code=204)
            text = await asyncio.to_thread(json.dumps, push, allow_nan=False, separators=(",", ":"))
            return Response(text, media_type="application/json")

        return respond

    return {"/picture": by(_whole), "/columns": by(_finer)}


def stream(app: Dash, runs: Runs) -> None:
    """Register the websocket callback: one loop a page, pushing what is new."""
    newest: dict[str, object] = {}  # by page: a page that attaches anew ends its older loop

    @app.callback(Input("attach", "data"), websocket=True, persistent=True, prevent_initial_call=True)
    async def push(attach: object) -> None:
        socket, asked = ctx.websocket, Asked(attach)
        follower = await asyncio.to_thread(runs.follower, asked.run)
        if socket is None or follower is None or not asked.page:
            return
        token = newest[asked.page] = object()
        spoke = called = time.monotonic()
        try:
            while not socket.is_shutdown and newest.get(asked.page) is token:
                snapshot, message = await asyncio.to_thread(_read, follower, asked)
                now = time.monotonic()
                if message is not None or now - spoke >= BEAT_S:
                    spoke = now
                    asked.cursor = message.cursor if message is not None else asked.cursor
                    set_props("push", {"data": {**(message.push if message else _beat(snapshot)), "via": "socket"}})
                    _deliver(snapshot, message)
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


def _read(follower: Follower, asked: Asked) -> tuple[Snapshot, Message | None]:
    """The newest snapshot and what to send. Between the two the run may be cut short or deleted: look again then."""
    snapshot = follower.snapshot()
    try:
        return snapshot, _message(snapshot, asked)
    except TraceError:
        time.sleep(REFRESH_S)
    snapshot = follower.snapshot()
    try:
        return snapshot, _message(snapshot, asked)
    except TraceError as error:
        return Snapshot(snapshot.run, None, "broken", str(error)), None


def _message(snapshot: Snapshot, asked: Asked) -> Message | None:
    if snapshot.trace is None:
        return None
    key = asked.cursor, asked.look
    with snapshot.answering:  # the first page does the work, the others wait for it
        if key not in snapshot.answers:
            snapshot.answers[key] = update(snapshot, asked.cursor, asked.look)
        return snapshot.answers[key]


def _whole(follower: Follower, asked: Asked) -> dict[str, Any] | None:
    """The run's picture; None if it cannot be read, which Dash's own question will tell."""
    asked.cursor = None
    message = _read(follower, asked)[1]
    return None if message is None else message.push


def _finer(follower: Follower, asked: Asked) -> dict[str, Any] | None:
    """The columns of a zoomed window; None if nothing was asked, or the run cannot be read."""
    snapshot = follower.snapshot()
    if asked.window is None or snapshot.trace is None:
        return None
    try:
        return close_up(snapshot, asked.look, asked.window)
    except TraceError:  # cut short or deleted just now: the stream says so
        return None


def _event(follower: Follower, event: str) -> View | str | None:
    """One event close up, or why it cannot be; without a name, the one that is worth looking at first."""
    snapshot = follower.snapshot()
    if snapshot.trace is None:
        return None
    try:
        key = event or best_spike(snapshot)
        given = {"run": snapshot.run, "columns": 1, "event": key, "searched": snapshot.searched}
        return look(snapshot.trace, snapshot.spikes, snapshot.dips, **given)
    except ValueError as error:  # an address that names no layer of this run; a run that cannot be read
        return str(error)


def _deliver(snapshot: Snapshot, message: Message | None) -> None:
    """Send the badge, and the words and tables that go with a push."""
    if message is None:
        _state(snapshot)
        return
    _state(snapshot, message.counts)
    set_props("headline", {"children": said(message.headline)})
    set_props("charts", {"hidden": False})
    if message.announcement:
        set_props("announce", {"children": message.announcement})
    tell({name: part for name, part in (message.drawn or {}).items() if name != "neighbourhood"})


def _state(snapshot: Snapshot, counts: str = "") -> None:
    """The badge, and below the headline what it means where that is not plain."""
    meaning = STATES.get(snapshot.state, "")
    told = [counts, "" if snapshot.state in ("running", "finished") else meaning, snapshot.message]
    set_props("badge", {"children": snapshot.state, "className": f"fs-state fs-state-{snapshot.state.split()[0]}"})
    gone = snapshot.trace is None or snapshot.state in GONE
    if any(told) and (counts or gone):  # a sign of life does not take the counts away
        set_props("detail", {"children": " ".join(filter(None, told))})


def _beat(snapshot: Snapshot) -> dict[str, Any]:
    return {"kind": "beat", "run": snapshot.run, "state": snapshot.state}


def _nothing(run: str, headline: str, snapshot: Snapshot | None = None) -> dict[str, Any]:
    set_props("headline", {"children": headline})
    shown = snapshot or Snapshot(run, None, "not found")
    set_props("charts", {"hidden": True})
    _state(shown)
    return {"kind": "none", "run": run[:200], "state": shown.state}
