"""The messages to a browser: the whole picture once, then only its tail. Plain JSON values, no web framework.

A browser holds a cursor (`epoch`, `width`, `rows`, `events`): what it has been sent. From the newest snapshot and the
cursor follows what it lacks, so a message that is lost, doubled or late does no harm.
"""

from __future__ import annotations

__all__ = ["Cursor", "Message", "best_spike", "full", "update"]

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .columns import YOUNG_COLUMNS, width_for
from .figures import COLUMNS, extent
from .follow import Snapshot
from .panels import panels
from .view import Drawn, View, episodes, key_of, look
from .words import about_dip, about_spike, counts, headline

# While a run is this short its first baseline still moves: it is sent whole, which is little.
_YOUNG_ROWS = YOUNG_COLUMNS
GONE = ("deleted", "broken")  # states in which nothing more can be read


@dataclass(frozen=True)
class Cursor:
    """What a browser holds: `rows` rows of `epoch` in columns of `width`, with the events of digest `events`."""

    epoch: str = ""
    width: int = 0
    rows: int = 0
    events: str = ""
    state: str = ""
    episodes: int = 0
    dips: int = 0

    @classmethod
    def parse(cls, data: object) -> Cursor | None:
        """The cursor in a request; None if it is not one (then everything is sent)."""
        if not isinstance(data, Mapping):
            return None
        kinds = {name: type(value) for name, value in asdict(cls()).items()}
        values: dict[str, Any] = {name: data.get(name) for name in kinds}
        fine = all(type(values[name]) is kind for name, kind in kinds.items())
        return cls(**values) if fine and values["width"] > 0 and values["rows"] >= 0 else None


@dataclass(frozen=True)
class Message:
    """`push` goes to the script that draws; the rest is text: words by panel, tables by panel, one announcement."""

    push: dict[str, Any]
    cursor: Cursor
    drawn: Mapping[str, Drawn] | None = None  # present when words and tables have changed
    headline: str = ""
    counts: str = ""
    announcement: str = ""


def full(snapshot: Snapshot, columns: int, window: tuple[float, float] | None = None) -> Message:
    """Everything, in about `columns` columns; `window` is a step range that is cut finer."""
    view = _look(snapshot, columns, window=window)
    drawn = {name: panel.draw(view) for name, panel in panels().items()}
    cursor = _cursor(snapshot, view, columns)
    figures = {name: part.figure for name, part in drawn.items() if part.figure and name != "neighbourhood"}
    push = {"kind": "full", "figures": figures, "zoomed": list(window) if window else None}
    return Message(_sealed(push, snapshot, view, cursor), cursor, drawn, headline(view), counts(view))


def update(snapshot: Snapshot, held: Cursor | None, columns: int) -> Message | None:
    """What a browser that holds `held` lacks; None if that is nothing."""
    if snapshot.trace is None or (held is not None and snapshot.state in GONE):
        return None  # what a browser shows stays; only the badge changes
    if held is None:
        return full(snapshot, columns)
    rows = snapshot.rows
    continues = held.epoch == snapshot.epoch and held.width == width_for(rows, columns) and held.rows <= rows
    if not continues or held.rows < _YOUNG_ROWS * held.width:
        same = (held.epoch, held.rows, held.state) == (snapshot.epoch, rows, snapshot.state)
        return None if same and _digest(snapshot) == held.events else full(snapshot, columns)
    digest = _digest(snapshot)
    if (held.rows, held.state, held.events) == (rows, snapshot.state, digest):
        return None
    since = held.rows // held.width * held.width if rows > held.rows else rows
    view = _look(snapshot, columns, since=since)
    cursor = _cursor(snapshot, view, columns)
    changed = digest != held.events
    drawn = {name: panel.draw(view) for name, panel in panels().items() if panel.PLACE == "main"}
    push = {
        "kind": "tail",
        "from": _from(view),
        "figures": {name: _tail(part, changed) for name, part in drawn.items()},
    }
    whole = _words(snapshot, columns) if changed or held.state != snapshot.state else None
    sealed = _sealed(push, snapshot, view, cursor)
    return Message(sealed, cursor, whole, headline(view), counts(view), _announcement(snapshot, held))


def best_spike(snapshot: Snapshot) -> str:
    """The key of the spike that is worth looking at first: one before the deepest dip, else the strongest."""
    if snapshot.trace is None or not snapshot.spikes:
        return ""
    view = _look(snapshot, 1)
    if view.pairs:
        return key_of(max(view.pairs, key=lambda pair: (pair.dip.depth, pair.lag)).spike)
    usual = [spike for spike in snapshot.spikes if not spike.warmup] or snapshot.spikes
    return key_of(max(usual, key=lambda spike: spike.ratio if math.isfinite(spike.ratio) else math.inf))


def _look(snapshot: Snapshot, columns: int, **options: Any) -> View:
    assert snapshot.trace is not None
    given = {"run": snapshot.run, "columns": columns, "searched": snapshot.searched, **options}
    return look(snapshot.trace, snapshot.spikes, snapshot.dips, **given)


def _words(snapshot: Snapshot, columns: int) -> dict[str, Drawn]:
    view = _look(snapshot, columns)
    return {name: panel.draw(view) for name, panel in panels().items()}


def _cursor(snapshot: Snapshot, view: View, columns: int) -> Cursor:
    return Cursor(
        snapshot.epoch,
        width_for(view.rows, columns),
        view.rows,
        _digest(snapshot),
        snapshot.state,
        len(view.episodes),
        len(view.dips),
    )


def _sealed(push: dict[str, Any], snapshot: Snapshot, view: View, cursor: Cursor) -> dict[str, Any]:
    sealed = {"run": snapshot.run, "state": snapshot.state, "extent": extent(view), "cursor": asdict(cursor)}
    return {**push, **sealed, "best": best_spike(snapshot)}


def _digest(snapshot: Snapshot) -> str:
    """Changes when a mark, a shade or a row of the tables does."""
    parts = [f"{s.layer}{s.onset}{s.peak}{s.ratio:.3g}{s.kind}" for s in snapshot.spikes]
    parts += [f"{d.onset_by}{d.nadir}{d.depth:.3g}{d.kind}{d.end or snapshot.rows}" for d in snapshot.dips]
    told = "|".join([f"{snapshot.searched:.2f}", *parts])
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _from(view: View) -> int | None:
    """The first step that is sent again: what the browser holds from there on is replaced."""
    return int(view.columns.first[0]) if len(view.columns) else None


def _tail(drawn: Drawn, changed: bool) -> dict[str, Any]:
    """A figure without what has not changed: the marks and the layout, unless events did, and a trace's constants."""
    assert drawn.figure is not None
    data = [
        _grown(trace) if trace.get("meta") == COLUMNS else trace if changed else None for trace in drawn.figure["data"]
    ]
    return {"data": data, "layout": drawn.figure["layout"] if changed else None}


def _grown(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {name: trace[name] for name in ("x", "z") if name in trace} | (
        {"customdata": trace["customdata"]} if "z" in trace else {"y": trace["y"]}
    )


def _announcement(snapshot: Snapshot, held: Cursor) -> str:
    """The newest event in words, if there are more than the browser was told of."""
    assert snapshot.trace is not None
    told = []
    groups = episodes(snapshot.spikes, snapshot.trace.layers)
    if len(groups) > held.episodes:
        told.append(f"New spike: {about_spike(groups[-1].first)}.")
    if len(snapshot.dips) > held.dips:
        told.append(f"New dip: {about_dip(snapshot.dips[-1])}.")
    return " ".join(told)
