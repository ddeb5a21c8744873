"""The spikes and the dips as tables, newest first; steps are the trace's own, depths in percentage points."""

from __future__ import annotations

from ..names import brief
from ..view import Drawn, Episode, Table, View, key_of
from ..words import NEEDED, times, unmeasured

TITLE = "Spikes and dips"
HELP = (
    "Spikes of several layers that begin within 16 steps of each other are one row, under the layer that rose first. "
    "Dip: steps from there to the dip that follows."
)
ORDER = 60
PLACE = "side"
HEIGHT = 0

ROWS, NAME = 60, 20  # of a table; characters of a layer's name

_KINDS = {"spike": "", "level_shift": "level shift", "nonfinite": "non-finite"}
_DIPS = {"dip": "", "unrecovered": "unrecovered", "partial_restart": "partial restart"}


def draw(view: View) -> Drawn:
    """Two tables; of a long run the newest rows, with a note of how many there are."""
    spikes, dips = len(view.episodes), len(view.dips)
    words = f"{spikes} {'spike' if spikes == 1 else 'spikes'}, {dips} {'dip' if dips == 1 else 'dips'}"
    words += "." if view.searched >= 1 else f" in the {view.searched:.0%} searched so far."
    return Drawn(tables=(_spikes(view), _dips(view)), words=words)


def _spikes(view: View) -> Table:
    newest = view.episodes[: -ROWS - 1 : -1]
    header = ("Step", "First layer", "Peak", "Layers", "Dip")
    return Table(
        caption="Spikes",
        header=header,
        rows=tuple(_spike_row(view, episode) for episode in newest),
        keys=tuple(key_of(episode.first) for episode in newest),
        note=_note(len(view.episodes), len(newest), "spike") or _why_none(view),
    )


def _spike_row(view: View, episode: Episode) -> tuple[str, ...]:
    top, first = episode.strongest, episode.first
    lags = [pair.lag for pair in view.pairs if pair.spike in episode.spikes]
    names = dict(zip(view.layers, brief(view.layers, NAME), strict=True))
    peak = times(top.ratio) if top.layer == first.layer else f"{times(top.ratio)} in {names[top.layer]}"
    marks = ", ".join(filter(None, (_KINDS.get(first.kind, first.kind), "warm-up" if first.warmup else "")))
    layer = f"{names[first.layer]} ({marks})" if marks else names[first.layer]
    return (
        f"{first.onset:,}",
        layer,
        peak,
        f"{episode.layers}/{len(view.layers)}",
        f"+{max(lags)}" if lags else "–",
    )


def _dips(view: View) -> Table:
    newest = list(view.dips)[: -ROWS - 1 : -1]
    rows, names = [], dict(zip(view.layers, brief(view.layers, NAME), strict=True))
    for dip in newest:
        lags = [(pair.lag, pair.spike.layer) for pair in view.pairs if pair.dip == dip]
        kind = _DIPS.get(dip.kind, dip.kind)
        recovered = f"{dip.end:,}" if dip.end is not None else (kind or "not yet")
        before = f"{names[max(lags)[1]]}, {max(lags)[0]}" if lags else "–"
        rows.append(
            (f"{dip.onset_after:,}–{dip.onset_by:,}", f"{100 * dip.depth:.1f}", f"{dip.nadir:,}", recovered, before)
        )
    header = ("Between steps", "Points", "Lowest", "Recovered", "Spike, steps before")
    note = _note(len(view.dips), len(newest), "dip")
    if not view.dips:
        note = "No dips." if view.measured("knn_accuracy") else "Without a kNN curve there are no dips to find."
    keys = tuple(key_of(dip) for dip in newest)
    return Table(caption="Dips", header=header, rows=tuple(rows), keys=keys, note=note)


def _note(total: int, shown: int, noun: str) -> str:
    return f"The newest {shown} of {total} {noun}s." if total > shown else ""


def _why_none(view: View) -> str:
    if view.episodes:
        return ""
    if view.searched < 1:
        return "Looking for spikes…"
    if unmeasured(view):
        return "Without a gradient norm there are no spikes to find."
    if view.rows <= NEEDED:
        return f"A spike is judged against {NEEDED} steps before it: too few so far."
    return "No spikes."
