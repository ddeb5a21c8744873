"""All layers around one event, aligned on its onset and sorted by depth: relative gradient norm against steps since."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..event import Event
from ..event_axis import event_layout, no_event
from ..figures import markers
from ..neighbours import Neighbours
from ..theme import HEAT_CEILING, HEAT_FLOOR
from ..view import Drawn, View
from ..words import about_focus, about_spike, times, unclear_spikes
from .heatmap import SCALES, packed
from .neighbourhood import OVERLAP, ridges, tick

TITLE = "Every layer, aligned on the onset"
HELP = (
    "Gradient norm relative to each layer's normal, first layer on top. The dotted line joins the onsets, where each "
    "layer reaches half of its own log peak: if it leans right, deeper layers follow later. Open triangle: a spike "
    "whose onset is not clear of the noise."
)
ORDER = 110
PLACE = "event"
HEIGHT = 520
LAYERS = "all"

RIDGES = 32  # with more layers, a map: ridges would lie on top of each other


def draw(view: View) -> Drawn:
    """Ridges of few layers, a map of many; the onsets as a line through them."""
    focus = view.focus
    if view.event is None or focus is None or not len(focus.offsets):
        return no_event(view)
    few = len(focus.layers) <= RIDGES
    data = ridges(focus)["data"] if few else _map(focus)
    sign, low = (-1, OVERLAP + 0.3) if few else (1, -0.5)
    shown = range(0, len(focus.layers), -(-len(focus.layers) // 32))
    data.append(_unclear(view.event, focus, sign))
    axis = {
        "tickvals": [sign * i for i in shown],
        "ticktext": [tick(focus, i) for i in shown],
        "range": [-len(focus.layers) + 0.4, low] if few else [len(focus.layers) - 0.5, low],
        "showgrid": False,
        "ticks": "",
    }
    drawn = event_layout(view.event, axis, view.run)
    if not few:
        drawn["plot_bgcolor"] = "$frozen"  # shows where nothing was measured
    return Drawn({"data": data, "layout": drawn}, words=about_focus(focus, view.event.spikes))


def _unclear(event: Event, focus: Neighbours, sign: int) -> dict[str, Any]:
    """Marks at the detector's onset of the spikes that have no clear one."""
    found = unclear_spikes(focus, event.spikes)
    drawn = markers(
        [spike.onset - focus.step for spike in found],
        [float(sign * focus.layers.index(spike.layer)) for spike in found],
        "$ink",
        "triangle-up-open",
        name="spikes without a clear onset",
        hovertext=[f"{about_spike(spike)}, onset not clear" for spike in found],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    return drawn


def _map(focus: Neighbours) -> list[dict[str, Any]]:
    scale = SCALES["ratio"]
    heat = {
        "type": "heatmap",
        "x": focus.offsets.tolist(),
        "y": list(range(len(focus.layers))),
        "z": packed(scale.of(focus.ratio), scale),
        "zmin": float(np.log2(HEAT_FLOOR)),
        "zmax": float(np.log2(HEAT_CEILING)),
        "colorscale": "$heat",
        "showscale": False,
        "hovertemplate": "layer %{y}, %{x:+d} steps: %{customdata:.3~g}×<extra></extra>",
        "hoverongaps": False,
    }
    rose = np.flatnonzero(focus.rose).tolist()
    onsets = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [float(focus.onset[i]) for i in rose],
        "y": rose,
        "line": {"width": 1.4, "color": "#ffffff", "dash": "dot"},
        "marker": {"size": 5, "color": "#ffffff"},
        "hovertext": [f"{focus.layers[i]}: onset {focus.onset[i]:+.0f}, {times(focus.height[i])}" for i in rose],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    return [heat, onsets]
