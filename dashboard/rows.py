"""The recorded values behind a panel as CSV: one row a step of the visible range, every series of the panel, unreduced.

`GET /rows.csv?run=a&panel=knn&from=100&to=200`: steps are the trace's own. With `event=KEY` they count from the event's
onset, as its charts do. `layers=NAME`, again and again, are those that are drawn as lines.
"""

from __future__ import annotations

__all__ = ["MOST_VALUES", "RowsError", "register_rows", "rows_kind", "rows_of"]

import asyncio
import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ..traces.errors import TraceError
from ..traces.reader import Trace
from .follow import Runs, Snapshot
from .panels import Panel, panels
from .view import View, look

MOST_VALUES = 5_000_000  # layers and scalars times steps: about 60 MB of text
BLOCK_ROWS = 2_000
GRADIENT = "grad_norm"


class RowsError(ValueError):
    """A request that cannot be answered, with the HTTP status that says so."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def rows_kind(panel: Panel) -> str:
    """Whose steps the exact rows of a panel are in: "run", "event", or "" where it has none of its own."""
    recorded = getattr(panel, "SERIES", ()) or getattr(panel, "LAYERS", "")
    return {"main": "run", "side": "event", "event": "event"}.get(panel.PLACE, "") if recorded else ""


def register_rows(server: Any, runs: Runs) -> None:
    """Add the address to the dashboard's server, before the page that answers every other one."""

    async def answer(request: Request) -> Response:
        try:
            return await asyncio.to_thread(_answer, runs, request)
        except RowsError as error:
            return PlainTextResponse(f"{error}\n", status_code=error.status)
        except TraceError as error:  # cut short, deleted or damaged
            return PlainTextResponse(f"The run can't be read: {error}\n", status_code=409)

    server.router.routes.insert(0, Route("/rows.csv", answer, methods=["GET"]))


def _answer(runs: Runs, request: Request) -> Response:
    given = request.query_params
    run = given.get("run", "")
    follower = runs.follower(run)
    if follower is None:
        raise RowsError(f"There is no run called {run[:80]!r} here.", 404)
    text = rows_of(
        follower.snapshot(),
        given.get("panel", ""),
        (_number(given.get("from"), "from"), _number(given.get("to"), "to")),
        layers=given.getlist("layers"),
        event=given.get("event", ""),
    )
    name = re.sub(r"[^\w.-]+", "_", f"{run}-{given['panel']}")[:120]
    kept = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}
    return StreamingResponse(text, media_type="text/csv", headers=kept)


def _number(text: str | None, name: str) -> float:
    try:
        value = float(text) if text is not None and len(text) < 40 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RowsError(f"{name}={(text or '')[:40]!r} is not a step: give a number, as in {name}=100.")
    return value


def rows_of(
    snapshot: Snapshot,
    panel: str,
    window: tuple[float, float],
    *,
    layers: Sequence[str] = (),
    event: str = "",
) -> Iterator[str]:
    """The text of the file, piece by piece; everything has been read before the first piece is asked for.

    Raises:
        RowsError: an unknown panel, layer or event, or more than `MOST_VALUES` values. TraceError: it can't be read.
    """
    found = panels().get(panel)
    kind = rows_kind(found) if found is not None else ""
    if found is None or not kind:
        known = ", ".join(name for name, one in panels().items() if rows_kind(one))
        raise RowsError(f"No panel called {panel[:80]!r} has rows of its own: choose one of {known}.", 404)
    trace = snapshot.trace
    if trace is None:
        raise RowsError(f"The run can't be read: {snapshot.message}", 409)
    low, high = sorted(window)
    if kind == "event":
        shift = _onset(snapshot, event)
        low, high = low + shift, high + shift
    steps = trace.steps
    rows = slice(int(np.searchsorted(steps, low)), int(np.searchsorted(steps, high, side="right")))
    drawn = _layers(trace, getattr(found, "LAYERS", ""), layers)
    scalars = [name for name in getattr(found, "SERIES", ()) if name in trace.scalars]
    values = (rows.stop - rows.start) * (len(drawn) + len(scalars))
    if values > MOST_VALUES:
        raise RowsError(
            f"These are {values:,} values, and at most {MOST_VALUES:,} are sent at once: zoom in, or write all of the "
            "run by foreshock convert.",
            413,
        )
    return _written(steps[rows], _columns(trace, rows, drawn, scalars))


def _onset(snapshot: Snapshot, event: str) -> int:
    """The step that the offsets of the event's charts count from."""
    assert snapshot.trace is not None
    if not event:
        raise RowsError("Which event? Give event=LAYER@STEP.")
    try:
        view: View = look(snapshot.trace, snapshot.spikes, snapshot.dips, columns=1, event=event)
    except TraceError:
        raise
    except ValueError as error:
        raise RowsError(str(error)) from None
    if view.event is None:
        raise RowsError("The run has no steps yet.", 409)
    return view.event.step


def _layers(trace: Trace, which: str, chosen: Sequence[str]) -> list[str]:
    if not which or GRADIENT not in trace.series:
        return []
    unknown = next((name for name in chosen if name not in trace.layers), None)
    if unknown is not None:
        raise RowsError(f"This run has no layer {unknown[:80]!r}.")
    if which == "all":
        return list(trace.layers)
    return list(look(trace, columns=1, layers=chosen).shown_layers)


def _columns(
    trace: Trace, rows: slice, layers: Sequence[str], scalars: Sequence[str]
) -> list[tuple[str, NDArray[np.floating]]]:
    """Name and values f[n] of every column."""
    found: list[tuple[str, NDArray[np.floating]]] = []
    if layers:
        norms = trace.read(GRADIENT, start=rows.start, stop=rows.stop)
        found += [(f"{GRADIENT}/{name}", norms[trace.layers.index(name)]) for name in layers]
    return found + [(name, trace.read(name, start=rows.start, stop=rows.stop)) for name in scalars]


def _written(steps: NDArray[np.int64], columns: Sequence[tuple[str, NDArray[np.floating]]]) -> Iterator[str]:
    """A header, then a row a step; nothing stands where nothing was measured. Each number as short as it is exact."""
    head = io.StringIO()
    csv.writer(head, lineterminator="\n").writerow(["step", *(name for name, _ in columns)])
    yield head.getvalue()
    for start in range(0, len(steps), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        cells = [steps[part].astype(str), *(_texts(values[part]) for _, values in columns)]
        yield "".join(",".join(row) + "\n" for row in zip(*cells, strict=True))


def _texts(values: NDArray[np.floating]) -> NDArray[np.str_]:
    return np.where(np.isnan(values), "", values.astype(str))
