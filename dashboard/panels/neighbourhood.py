"""One spike close up: every layer's relative gradient norm against steps since the onset, sorted by depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..figures import empty
from ..names import brief
from ..neighbours import AFTER, BEFORE, Neighbours
from ..theme import depth_colour, faint
from ..view import Drawn, View, numbers
from ..words import about_focus, times

TITLE = "Around one spike"
HELP = (
    "One line a layer, the first on top; a dot where it has risen to half of its own log peak. Dots that lean "
    "right: deeper layers follow later. Press e for the event in full."
)
ORDER = 50
PLACE = "side"
HEIGHT = 460
LAYERS = "all"

OVERLAP = 2.6  # a layer's highest rise reaches over this many lines


def draw(view: View) -> Drawn:
    """The ridges of `view.focus`, or a hint to pick a spike."""
    focus = view.focus
    if focus is None or not len(focus.offsets):
        text = "Pick a spike in a chart or in the table." if view.spikes else "There is no spike to look at yet."
        return Drawn(empty(view, text), absent=not view.spikes)
    drawn = ridges(focus)
    drawn["layout"] = _layout(view, focus)
    return Drawn(drawn, words=about_focus(focus, view.event.spikes if view.event else ()))


def ridges(focus: Neighbours) -> dict[str, Any]:
    """One line a layer, offset by depth, and the onsets as a line through them."""
    count = len(focus.layers)
    log = np.log2(np.clip(focus.ratio, 2**-6, 2**20))
    top = float(np.nanmax(log[np.isfinite(log)], initial=1.0))
    rise = OVERLAP / max(top, 1.0)
    data: list[dict[str, Any]] = []
    for i in range(count):
        data += _ridge(focus, i, -i + rise * np.maximum(log[i], 0.0), i / max(count - 1, 1))
    data.append(_onsets(focus, log, rise))
    return {"data": data}


def _ridge(focus: Neighbours, i: int, y: np.ndarray, share: float) -> list[dict[str, Any]]:
    colour = depth_colour(share)
    x = focus.offsets.tolist()
    flat = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    ground = {**flat, "x": x, "y": [-i] * len(x), "line": {"width": 0.6, "color": "$line"}}
    hover = f"{focus.layers[i]} %{{customdata:.2f}}×, step %{{text}}<extra></extra>"
    ridge = {
        **flat,
        "x": x,
        "y": numbers(y),
        "customdata": numbers(focus.ratio[i]),
        "text": (focus.step + focus.offsets).tolist(),
        "line": {"width": 1.6, "color": colour},
        "fill": "tonexty",
        "fillcolor": faint(colour, 0.25),
        "hoverinfo": "all",
        "hovertemplate": hover,
    }
    return [ground, ridge]


def _onsets(focus: Neighbours, log: np.ndarray, rise: float) -> dict[str, Any]:
    rose = focus.rose.nonzero()[0]
    at = [int(np.searchsorted(focus.offsets, focus.onset[i])) for i in rose]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [float(focus.onset[i]) for i in rose],
        "y": numbers(np.array([-i + rise * max(log[i, j], 0.0) for i, j in zip(rose, at, strict=True)])),
        "line": {"width": 1.2, "color": "$ink", "dash": "dot"},
        "marker": {"size": 8, "color": "$ink", "line": {"width": 1.5, "color": "$surface"}},
        "hovertext": [f"{focus.layers[i]}: onset {focus.onset[i]:+.0f}, {times(focus.height[i])}" for i in rose],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
    }


def _layout(view: View, focus: Neighbours) -> dict[str, Any]:
    count = len(focus.layers)
    hop = -(-count // 26)
    shown = [*range(0, count, hop)]
    return {
        "xaxis": {
            "title": {"text": f"steps since the onset, {focus.step:,}", "standoff": 14},
            "zeroline": True,
            "zerolinecolor": "$line",
            "zerolinewidth": 1,
            "showgrid": False,
            "range": [-BEFORE, AFTER],
        },
        "yaxis": {
            "tickvals": [-i for i in shown],
            "ticktext": [tick(focus, i) for i in shown],
            "range": [-count + 0.4, OVERLAP + 0.3],
            "showgrid": False,
            "ticks": "",
        },
        "margin": {"l": 98, "r": 10, "t": 8, "b": 50, "autoexpand": False},
        "showlegend": False,
        "hovermode": "closest",
        "uirevision": f"{view.run}/{focus.layer}@{focus.step}",
    }


def tick(focus: Neighbours, i: int) -> str:
    """A layer's name, bold for the one that the event is named after."""
    name = brief(focus.layers)[i]
    return f"<b>{name}</b>" if focus.layers[i] == focus.layer else name
