"""How the layers around one event are drawn: gradient norm (a multiple of normal) against steps since its onset.

Few layers are ridges, one a layer. Of many, those that rose are, with the highest of all others in grey below them;
where many rose it is a map, since ridges would lie on top of each other.
"""

from __future__ import annotations

__all__ = ["OVERLAP", "Risen", "risen"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .names import brief, plain
from .neighbours import Neighbours
from .panels.heatmap import SCALES, packed
from .theme import HEAT_CEILING, HEAT_FLOOR, depth_colour, faint
from .view import numbers
from .words import times

OVERLAP = 2.6  # a layer's highest rise reaches over this many lines
RIDGES = 32  # at most


@dataclass(frozen=True)
class Risen:
    """The traces, the y axis, and where on it each layer stands that has a place of its own; `rest` have none."""

    data: list[dict[str, Any]]
    axis: dict[str, Any]
    places: dict[str, float]
    rest: int = 0
    is_map: bool = False


def risen(focus: Neighbours, flagged: Sequence[str] = (), ticks: int = 26) -> Risen:
    """The layers of `focus`; those `flagged` have a place even if their rise is not clear. At most `ticks` names."""
    layers = focus.layers
    named = {focus.layer, *flagged}
    own = [i for i, layer in enumerate(layers) if focus.rose[i] or layer in named]
    if len(layers) <= RIDGES:
        return _ridges(focus, list(range(len(layers))), ticks)
    return _ridges(focus, own, ticks) if len(own) < RIDGES else _map(focus, ticks)


def _ridges(focus: Neighbours, shown: list[int], ticks: int) -> Risen:
    """One line a layer, offset by depth, and the onsets as a line through them."""
    log = np.log2(np.clip(focus.ratio, 2**-6, 2**20))
    rise = OVERLAP / max(float(np.nanmax(log[np.isfinite(log)], initial=1.0)), 1.0)
    data: list[dict[str, Any]] = []
    for row, i in enumerate(shown):
        colour = depth_colour(i / max(len(focus.layers) - 1, 1))
        told = f"{plain(focus.layers[i])} %{{customdata:.2f}}×, step %{{text}}<extra></extra>"
        data += _ridge(focus, focus.ratio[i], -row + rise * np.maximum(log[i], 0.0), -row, colour, told)
    others = np.setdiff1d(np.arange(len(focus.layers)), shown)
    rows = len(shown) + (len(others) > 0)
    if len(others):
        seen = np.where(np.isnan(focus.ratio[others]), -np.inf, focus.ratio[others]).max(axis=0)
        highest = np.where(np.isinf(seen) & (seen < 0), np.nan, seen)
        y = -len(shown) + rise * np.maximum(np.log2(np.clip(highest, 2**-6, 2**20)), 0.0)
        told = f"the highest of {len(others)} others %{{customdata:.2f}}×, step %{{text}}<extra></extra>"
        data += _ridge(focus, highest, y, -len(shown), "$muted", told)
    data.append(_onsets(focus, shown, log, rise))
    names = brief(focus.layers)
    hop = -(-len(shown) // ticks)
    at, text = [-row for row in range(0, len(shown), hop)], [_tick(focus, names, i) for i in shown[::hop]]
    if len(others):
        at, text = [*at, -len(shown)], [*text, f"{len(others)} others"]
    axis = {"tickvals": at, "ticktext": text, "range": [-rows + 0.4, OVERLAP + 0.3], "showgrid": False, "ticks": ""}
    return Risen(data, axis, {focus.layers[i]: float(-row) for row, i in enumerate(shown)}, len(others))


def _ridge(
    focus: Neighbours, ratio: NDArray[np.float64], y: NDArray[np.float64], ground: float, colour: str, told: str
) -> list[dict[str, Any]]:
    x = focus.offsets.tolist()
    flat = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    ridge = {
        **flat,
        "x": x,
        "y": numbers(y),
        "customdata": numbers(ratio),
        "text": (focus.step + focus.offsets).tolist(),
        "line": {"width": 1.6, "color": colour},
        "fill": "tonexty",
        "fillcolor": faint(colour, 0.25),
        "hoverinfo": "all",
        "hovertemplate": told,
    }
    return [{**flat, "x": x, "y": [ground] * len(x), "line": {"width": 0.6, "color": "$line"}}, ridge]


def _onsets(focus: Neighbours, shown: list[int], log: NDArray[np.float64], rise: float) -> dict[str, Any]:
    rose = [(row, i) for row, i in enumerate(shown) if focus.rose[i]]
    at = [int(np.searchsorted(focus.offsets, focus.onset[i])) for _, i in rose]
    y = np.array([-row + rise * max(log[i, j], 0.0) for (row, i), j in zip(rose, at, strict=True)])
    look = {"size": 8, "color": "$ink", "line": {"width": 1.5, "color": "$surface"}}
    return _joined(focus, [i for _, i in rose], numbers(y), {"width": 1.2, "color": "$ink", "dash": "dot"}, look)


def _map(focus: Neighbours, ticks: int) -> Risen:
    """A row a layer, first layer on top, the ratio as colour."""
    scale, count = SCALES["ratio"], len(focus.layers)
    heat = {
        "type": "heatmap",
        "x": focus.offsets.tolist(),
        "y": list(range(count)),
        "z": packed(scale.of(focus.ratio), scale),
        "zmin": float(np.log2(HEAT_FLOOR)),
        "zmax": float(np.log2(HEAT_CEILING)),
        "colorscale": "$heat",
        "showscale": False,
        "hovertemplate": "layer %{y}, %{x:+d} steps: %{customdata:.3~g}×<extra></extra>",
        "hoverongaps": False,
    }
    rose = np.flatnonzero(focus.rose).tolist()
    line, look = {"width": 1.4, "color": "#ffffff", "dash": "dot"}, {"size": 5, "color": "#ffffff"}
    names, shown = brief(focus.layers), range(0, count, -(-count // ticks))
    axis = {
        "tickvals": list(shown),
        "ticktext": [_tick(focus, names, i) for i in shown],
        "range": [count - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
    }
    places = {layer: float(i) for i, layer in enumerate(focus.layers)}
    return Risen([heat, _joined(focus, rose, rose, line, look)], axis, places, is_map=True)


def _joined(focus: Neighbours, rose: list[int], y: Any, line: dict[str, Any], marker: dict[str, Any]) -> dict[str, Any]:
    """The onsets of the layers `rose`, joined in the order of depth."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [float(focus.onset[i]) for i in rose],
        "y": y,
        "line": line,
        "marker": marker,
        "hovertext": [f"{plain(focus.layers[i])}: onset {focus.onset[i]:+.0f}, {times(focus.height[i])}" for i in rose],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
    }


def _tick(focus: Neighbours, names: Sequence[str], i: int) -> str:
    """A layer's name, bold for the one that the event is named after."""
    return f"<b>{plain(names[i])}</b>" if focus.layers[i] == focus.layer else plain(names[i])
