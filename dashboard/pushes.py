"""The messages to a browser: the whole picture once, then only its tail. Plain JSON values, no web framework.

A browser holds a cursor (`epoch`, `width`, `rows`, `events`): what it has been sent. From the newest snapshot and the
cursor follows what it lacks, so a message that is lost, doubled or late does no harm.
"""

from __future__ import annotations

__all__ = ["Cursor", "Look", "Message", "best_spike", "close_up", "full", "update"]

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..probes.precursors import preceding
from .columns import SCALES, YOUNG_COLUMNS, width_for
from .figures import COLUMNS, extent
from .follow import Snapshot
from .panels import panels_in
from .view import Drawn, View, episodes, key_of, look, remarks_of
from .words import about_dip, about_spike, counts, headline

# While a run is this short its first baseline still moves: it is sent whole, which is little.
_YOUNG_ROWS = YOUNG_COLUMNS
GONE = ("deleted", "broken")  # states in which nothing more can be read


@dataclass(frozen=True)
class Look:
    """How a browser wants a run drawn: in so many columns, which layers as lines, on which scale the map of all."""

    columns: int = 1000
    layers: tuple[str, ...] = ()
    scale: str = SCALES[0]

    @property
    def key(self) -> str:
        """The same for the same look, but for the columns."""
        return "|".join((self.scale, *self.layers))


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
    look: str = Look().key

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


def full(snapshot: Snapshot, wanted: Look) -> Message:
    """The whole run in the columns that were asked for."""
    view = _look(snapshot, wanted)
    drawn = {name: panel.draw(view) for name, panel in panels_in("main", "side").items()}
    cursor = _cursor(snapshot, view, wanted)
    figures = {name: part.figure for name, part in drawn.items() if part.figure and name != "neighbourhood"}
    push = {"kind": "full", "figures": figures, "layers": list(view.layers), "shown": list(view.shown_layers)}
    return Message(_sealed(push, snapshot, view, cursor), cursor, drawn, headline(view), counts(view))


def close_up(snapshot: Snapshot, wanted: Look, window: tuple[float, float]) -> dict[str, Any]:
    """Only the columns in and around the step range `window`, finer than those of the whole run."""
    view = _look(snapshot, wanted, window=window)
    drawn = {name: panel.draw(view) for name, panel in panels_in("main").items()}
    columns = view.columns
    push = {
        "kind": "window",
        "window": list(window),
        "figures": {name: _tail(part, changed=False) for name, part in drawn.items()},
        "low": int(columns.first[0]) if len(columns) else None,
        "high": int(columns.last[-1]) if len(columns) else None,
    }
    return _sealed(push, snapshot, view, _cursor(snapshot, view, wanted))


def update(snapshot: Snapshot, held: Cursor | None, wanted: Look) -> Message | None:
    """What a browser that holds `held` lacks; None if that is nothing."""
    if snapshot.trace is None or (held is not None and snapshot.state in GONE):
        return None  # what a browser shows stays; only the badge changes
    if held is None:
        return full(snapshot, wanted)
    rows, width = snapshot.rows, width_for(snapshot.rows, wanted.columns)
    same_run = held.epoch == snapshot.epoch and held.look == wanted.key
    continues = same_run and held.width == width and held.rows <= rows
    if not continues or held.rows < _YOUNG_ROWS * held.width:
        same = same_run and (held.rows, held.state) == (rows, snapshot.state)
        return None if same and _digest(snapshot) == held.events else full(snapshot, wanted)
    digest = _digest(snapshot)
    if (held.rows, held.state, held.events) == (rows, snapshot.state, digest):
        return None
    since = held.rows // held.width * held.width if rows > held.rows else rows
    view = _look(snapshot, wanted, since=since)
    cursor = _cursor(snapshot, view, wanted)
    changed = digest != held.events
    drawn = {name: panel.draw(view) for name, panel in panels_in("main").items()}
    push = {
        "kind": "tail",
        "from": _from(view),
        "figures": {name: _tail(part, changed) for name, part in drawn.items()},
    }
    whole = _words(snapshot, wanted) if changed or held.state != snapshot.state else None
    sealed = _sealed(push, snapshot, view, cursor)
    return Message(sealed, cursor, whole, headline(view), counts(view), _announcement(snapshot, held))


def best_spike(snapshot: Snapshot) -> str:
    """The key of the spike that is worth looking at first: one before the deepest dip, else the strongest."""
    if snapshot.trace is None or not snapshot.spikes:
        return ""
    pairs = preceding(snapshot.spikes, snapshot.dips)
    if pairs:
        return key_of(max(pairs, key=lambda pair: (pair.dip.depth, pair.lag)).spike)
    usual = [spike for spike in snapshot.spikes if not spike.warmup] or snapshot.spikes
    return key_of(max(usual, key=lambda spike: spike.ratio if math.isfinite(spike.ratio) else math.inf))


def _look(snapshot: Snapshot, wanted: Look, **options: Any) -> View:
    assert snapshot.trace is not None
    given = {"run": snapshot.run, "searched": snapshot.searched, **asdict(wanted), **options}
    return look(snapshot.trace, snapshot.spikes, snapshot.dips, **given)


def _words(snapshot: Snapshot, wanted: Look) -> dict[str, Drawn]:
    view = _look(snapshot, wanted)
    return {name: panel.draw(view) for name, panel in panels_in("main", "side").items()}


def _cursor(snapshot: Snapshot, view: View, wanted: Look) -> Cursor:
    return Cursor(
        snapshot.epoch,
        width_for(view.rows, wanted.columns),
        view.rows,
        _digest(snapshot),
        snapshot.state,
        len(view.episodes),
        len(view.dips),
        wanted.key,
    )


def _sealed(push: dict[str, Any], snapshot: Snapshot, view: View, cursor: Cursor) -> dict[str, Any]:
    figures, lists = _folded(push["figures"])
    sealed = {"run": snapshot.run, "state": snapshot.state, "extent": extent(view), "cursor": asdict(cursor)}
    return {**push, **sealed, "figures": figures, "lists": lists, "best": best_spike(snapshot)}


def _folded(figures: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[Any]]]:
    """The figures with `{"list": i}` for an x or y of many numbers, and these lists, each only once: most traces have
    the same steps, and where a column is one step, minimum, mean and maximum are the same.
    """
    lists: list[list[Any]] = []
    places: dict[tuple[Any, ...], list[int]] = {}

    def place(values: list[Any]) -> dict[str, int]:
        alike = places.setdefault((len(values), *values[:2], values[-1]), [])
        found = next((i for i in alike if lists[i] == values), None)
        if found is None:
            found = len(lists)
            lists.append(values)
            alike.append(found)
        return {"list": found}

    def fold(trace: dict[str, Any] | None) -> dict[str, Any] | None:
        long = [name for name in ("x", "y") if trace and _many_numbers(trace.get(name))]
        return {**trace, **{name: place(trace[name]) for name in long}} if trace and long else trace

    folded = {name: {**figure, "data": [fold(trace) for trace in figure["data"]]} for name, figure in figures.items()}
    return folded, lists


def _many_numbers(values: object) -> bool:
    return isinstance(values, list) and len(values) > 8 and not isinstance(values[0], str)


def _digest(snapshot: Snapshot) -> str:
    """Changes when a mark, a shade or a row of the tables does."""
    parts = [f"{s.layer}{s.onset}{s.peak}{s.ratio:.3g}{s.kind}" for s in snapshot.spikes]
    parts += [f"{d.onset_by}{d.nadir}{d.depth:.3g}{d.kind}{d.end or snapshot.rows}" for d in snapshot.dips]
    parts += [f"{len(remarks_of(snapshot.trace))}"] if snapshot.trace is not None else []
    told = "|".join([f"{math.floor(20 * snapshot.searched)}", snapshot.message, *parts])
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
    return {name: trace[name] for name in ("x", "z" if "z" in trace else "y")}


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
