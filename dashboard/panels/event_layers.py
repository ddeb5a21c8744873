"""All layers around one event, aligned on its onset and sorted by depth: relative gradient norm against steps since."""

from __future__ import annotations

from typing import Any

from ..event import Event
from ..event_axis import event_layout, no_event
from ..figures import markers
from ..names import plain
from ..neighbours import Neighbours
from ..rising import risen
from ..view import Drawn, View
from ..words import about_focus, about_spike, unclear_spikes

TITLE = "Every layer, aligned on the onset"
HELP = (
    "Gradient norm relative to each layer's normal, first layer on top. The dotted line joins the onsets, where each "
    "layer reaches half of its own log peak: if it leans right, deeper layers follow later. Open triangle: a spike "
    "whose onset is not clear of the noise. Of very many layers those that rose are shown, and the highest of the rest."
)
ORDER = 110
PLACE = "event"
HEIGHT = 520
LAYERS = "all"


def draw(view: View) -> Drawn:
    """The layers with their onsets as a line through them, and marks where an onset is not clear."""
    focus = view.focus
    if view.event is None or focus is None or not len(focus.offsets):
        return no_event(view)
    drawn = risen(focus, [spike.layer for spike in view.event.spikes], ticks=32)
    layout = event_layout(view.event, drawn.axis, view.run)
    if drawn.is_map:
        layout["plot_bgcolor"] = "$frozen"  # shows where nothing was measured
    data = [*drawn.data, _unclear(view.event, focus, drawn.places)]
    return Drawn({"data": data, "layout": layout}, words=about_focus(focus, view.event.spikes))


def _unclear(event: Event, focus: Neighbours, places: dict[str, float]) -> dict[str, Any]:
    """Marks at the detector's onset of the spikes that have no clear one."""
    found = unclear_spikes(focus, event.spikes)
    return markers(
        [spike.onset - focus.step for spike in found],
        [places[spike.layer] for spike in found],
        "$ink",
        "triangle-up-open",
        name="spikes without a clear onset",
        hovertext=[f"{plain(about_spike(spike))}, onset not clear" for spike in found],
        hovertemplate="%{hovertext}<extra></extra>",
    )
