"""One spike close up: every layer's relative gradient norm against steps since the onset, sorted by depth."""

from __future__ import annotations

from typing import Any

from ..figures import empty
from ..neighbours import AFTER, BEFORE, Neighbours
from ..rising import Risen, risen
from ..view import Drawn, View
from ..words import about_focus

TITLE = "Around one spike"
HELP = (
    "One line a layer, the first on top; a dot where it has risen to half of its own log peak. Dots that lean "
    "right: deeper layers follow later. Of very many layers those that rose. Press e for the event in full."
)
ORDER = 50
PLACE = "side"
HEIGHT = 460
LAYERS = "all"


def draw(view: View) -> Drawn:
    """The layers of `view.focus`, or a hint to pick a spike."""
    focus = view.focus
    if focus is None or not len(focus.offsets):
        text = "Pick a spike in a chart or in the table." if view.spikes else "There is no spike to look at yet."
        return Drawn(empty(view, text), absent=not view.spikes)
    spikes = view.event.spikes if view.event else ()
    drawn = risen(focus, [spike.layer for spike in spikes])
    return Drawn({"data": drawn.data, "layout": _layout(view, focus, drawn)}, words=about_focus(focus, spikes))


def _layout(view: View, focus: Neighbours, drawn: Risen) -> dict[str, Any]:
    background = {"plot_bgcolor": "$frozen"} if drawn.is_map else {}  # shows where nothing was measured
    return {
        "xaxis": {
            "title": {"text": f"steps since the onset, {focus.step:,}", "standoff": 14},
            "zeroline": True,
            "zerolinecolor": "$line",
            "zerolinewidth": 1,
            "showgrid": False,
            "range": [-BEFORE, AFTER],
        },
        "yaxis": drawn.axis,
        "margin": {"l": 98, "r": 10, "t": 8, "b": 50, "autoexpand": False},
        "showlegend": False,
        "hovermode": "closest",
        "uirevision": f"{view.run}/{focus.layer}@{focus.step}",
        **background,
    }
