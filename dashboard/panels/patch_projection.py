"""Relative gradient norms of the first layer, a middle and the last block on one log axis, with spikes and dips."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...probes.precursors import Precedence
from ..figures import LEGEND, MARGIN, RUG_AXIS, band, dip_shapes, empty, finite, layout, line, markers, rug
from ..names import brief, plain
from ..theme import FIRST, LAST, MIDDLE, SERIES, faint
from ..view import Drawn, View, key_of, numbers
from ..words import about_dip, about_spike, interventions, times, unmeasured

TITLE = "First layer against deeper ones"
HELP = (
    "Gradient norm relative to each layer's normal, the median of the 256 steps before. Click a triangle, a "
    "spike (open: of a layer not drawn), to see every layer around it; a dotted thread leads to the dip that follows."
)
ORDER = 20
PLACE = "main"
HEIGHT = 330
LAYERS = "shown"

THREADS_LABELLED, FEW = 4, 8  # labels where there are at most so many dips; else of the deepest alone
ROOM = 0.22  # of the axis, for a label


def draw(view: View) -> Drawn:
    """Line and range of a few layers, their spikes, and a thread to every dip that a spike precedes."""
    layers = view.shown_layers
    if not layers or not view.rows:
        text = "No gradient norm yet."
        return Drawn(empty(view, text), words=text)
    shown = list(zip(layers, _colours(len(layers)), strict=True))
    data: list[dict[str, Any]] = []
    for layer, colour in reversed(shown):  # the first layer last: on top
        data += _layer(view, layer, colour)
    data += [_spikes(view, layer, colour) for layer, colour in shown]
    data += [_threads(view), _dips_met(view), rug(view), _elsewhere(view)]
    axis = {"type": "log", "title": {"text": "gradient norm, × normal", "standoff": 8}, **ratio_ticks(), **_span(view)}
    look = {"legend": {**LEGEND, "traceorder": "reversed"}, "showlegend": True, "margin": {**MARGIN, "t": 34}}
    drawn = layout(view, axis, shapes=dip_shapes(view), **look, **RUG_AXIS)
    drawn["annotations"] = [*_labels(view), *_unmeasured(view)]
    return Drawn({"data": data, "layout": drawn}, words=_words(view))


def _span(view: View) -> dict[str, Any]:
    """An axis around 1 where there is nothing to draw, and finer ticks where all is close to it."""
    if view.tail:
        return {}
    rows = [view.layers.index(layer) for layer in view.shown_layers]
    found = view.columns.ratio
    seen = np.concatenate([edge[rows][finite(edge[rows])] for edge in (found.low, found.high)])
    if not len(seen):
        return {"range": [-0.5, 1.0]}
    low, high = seen.min(), seen.max()
    fine = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2]
    return {"tickvals": fine, "ticktext": [f"{value:g}×" for value in fine]} if low > 0.5 and high < 2 else {}


def _unmeasured(view: View) -> list[dict[str, Any]]:
    """Why there are no lines, where there are none."""
    if not unmeasured(view):
        return []
    note = {"text": "No layer's gradient norm was measured.", "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return [{**note, "showarrow": False, "font": {"size": 14, "color": "$muted"}}]


def _colours(count: int) -> list[str]:
    usual = {1: [FIRST], 2: [FIRST, LAST], 3: [FIRST, MIDDLE, LAST]}
    return usual.get(count) or [SERIES[i % len(SERIES)] for i in range(count)]


def ratio_ticks() -> dict[str, Any]:
    """Ticks of a logarithmic axis of multiples."""
    values = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000]
    return {"tickvals": values, "ticktext": [f"{value:g}×" for value in values]}


def _layer(view: View, layer: str, colour: str) -> list[dict[str, Any]]:
    ratio, row, x = view.columns.ratio, view.layers.index(layer), view.columns.steps
    hover = f"%{{y:.2f}}×<extra>{plain(layer)}</extra>"
    drawn = [*band(x, ratio.low[row], ratio.high[row], colour, 0.28), line(x, ratio.mean[row], layer, colour, hover)]
    for trace in drawn:
        trace |= {"legendgroup": layer, "showlegend": False}
    short = brief(view.layers, 28)[row]
    name = short if view.tail or finite(ratio.mean[row]).any() else f"{short}, not measured"
    drawn[-1] |= {"name": plain(name), "showlegend": True, "line": {"color": colour, "width": 1.3}}
    return drawn


def _spikes(view: View, layer: str, colour: str) -> dict[str, Any]:
    found = view.spikes_of(layer)
    return markers(
        [spike.peak for spike in found],
        numbers(np.array([spike.ratio for spike in found])),
        colour,
        "triangle-up",
        name=plain(f"{layer}, spikes"),
        legendgroup=layer,
        showlegend=False,
        customdata=[key_of(spike) for spike in found],
        hovertext=[f"{plain(about_spike(spike))}<br>click for every layer around it" for spike in found],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _told(view: View) -> list[Precedence]:
    """The pairs to draw: those of the shown layers; for a dip that has none, the one of the strongest spike."""
    ours = [pair for pair in view.pairs if pair.spike.layer in view.shown_layers]
    met = {pair.dip.onset_by for pair in ours}
    rest = sorted((pair for pair in view.pairs if pair.dip.onset_by not in met), key=lambda pair: pair.spike.ratio)
    return sorted([*ours, *{pair.dip.onset_by: pair for pair in rest}.values()], key=lambda pair: pair.spike.ratio)


def _threads(view: View) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    for pair in _told(view):
        x += [pair.spike.peak, pair.dip.onset_by, None]
        y += [*numbers(np.array([pair.spike.ratio] * 2)), None]
    dotted = {"color": "$dip", "width": 1.5, "dash": "dot"}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": dotted,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _elsewhere(view: View) -> dict[str, Any]:
    """The spikes of layers that are not drawn, where a thread begins at one."""
    found = [pair.spike for pair in _told(view) if pair.spike.layer not in view.shown_layers]
    return markers(
        [spike.peak for spike in found],
        numbers(np.array([spike.ratio for spike in found])),
        "$ink",
        "triangle-up-open",
        showlegend=False,
        customdata=[key_of(spike) for spike in found],
        hovertext=[f"{plain(about_spike(spike))}<br>click for every layer around it" for spike in found],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _dips_met(view: View) -> dict[str, Any]:
    told = _told(view)
    return markers(
        [pair.dip.onset_by for pair in told],
        numbers(np.array([pair.spike.ratio for pair in told])),
        "$dip",
        "triangle-down",
        showlegend=False,
        customdata=[key_of(pair.dip) for pair in told],
        hovertext=[f"{about_dip(pair.dip)}<br>{pair.lag} steps after {plain(pair.spike.layer)} rose" for pair in told],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _labels(view: View) -> list[dict[str, Any]]:
    """How deep and how much later, beside the threads to the deepest dips; none where two would overlap."""
    best = {pair.dip.onset_by: pair for pair in _told(view)}
    room = ROOM * max(view.last_step - view.first_step, 1)
    kept: list[Precedence] = []
    for pair in sorted(best.values(), key=lambda pair: -pair.dip.depth):
        apart = all(abs(pair.dip.onset_by - other.dip.onset_by) > room for other in kept)
        if apart and np.isfinite(pair.spike.ratio):
            kept.append(pair)
    return [
        {
            "x": pair.dip.onset_by,
            "y": float(np.log10(pair.spike.ratio)),
            "text": _label(view, pair),
            "showarrow": False,
            **_beside(view, pair.dip.onset_by),
            "font": {"color": "$dip", "size": 12},
            "bgcolor": faint("$surface", 0.8),
        }
        for pair in kept[: THREADS_LABELLED if len(best) <= FEW else 1]
    ]


def _label(view: View, pair: Precedence) -> str:
    short = brief(view.layers, 28)[view.layers.index(pair.spike.layer)]
    whose = "" if pair.spike.layer in view.shown_layers else f"{short}: "
    return f"{plain(whose)}−{100 * pair.dip.depth:.0f} points, {pair.lag} steps later"


def _beside(view: View, step: float) -> dict[str, Any]:
    """Right of the dip, or left of everything where the right edge is near."""
    late = step > view.first_step + 0.6 * (view.last_step - view.first_step)
    return {"xanchor": "right", "xshift": -22} if late else {"xanchor": "left", "xshift": 10}


def _words(view: View) -> str:
    parts = []
    for layer in view.shown_layers:
        found = view.spikes_of(layer)
        if found:
            top = max(found, key=lambda spike: spike.ratio)
            count = f"{len(found)} spikes, the highest" if len(found) > 1 else "one spike,"
            parts.append(f"{layer}: {count} {times(top.ratio)} at step {top.peak:,}")
        elif len(view.columns) and not finite(view.columns.ratio.mean[view.layers.index(layer)]).any():
            parts.append(f"{layer}: not measured (frozen)")
        else:
            parts.append(f"{layer}: no spikes")
    return " ".join(filter(None, ["; ".join(parts) + ".", interventions(view)]))
